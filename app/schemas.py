"""What every request and answer model shares: unknown fields are refused, text is storable."""

from __future__ import annotations

from typing import Annotated, Any

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


def storable(text: str) -> str:
    """Return the text; for `AfterValidator`, behind `StringConstraints`.

    Raises: ValueError
    """
    # PostgreSQL stores neither; both arrive through JSON escapes.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds a character that no text can have (NUL or half a surrogate pair): leave it out")
    return text


def normalize_email(text: str) -> str:
    """Return the one spelling an e-mail address is stored and looked up by.

    Raises: ValueError - it is no address. Reserved names such as `.test` pass: whether mail arrives is not asked.
    """
    try:
        return validate_email(text, check_deliverability=False, test_environment=True).normalized.lower()
    except EmailNotValidError:
        raise ValueError("is no e-mail address: write it as name@example.com") from None


Text = Annotated[str, AfterValidator(storable)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(storable)]
Email = Annotated[
    str,
    StringConstraints(max_length=320),
    AfterValidator(storable),
    AfterValidator(normalize_email),
    Field(json_schema_extra={"format": "email"}),
]
# The length is bounded, so that nobody can make the hash function chew on megabytes. What else it must have is for the
# tenant's `security.password_policy` to say; 8 is the least that any may ask for.
NewPassword = Annotated[str, StringConstraints(min_length=8, max_length=200), AfterValidator(storable)]
GivenPassword = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def omitted() -> Any:
    """Return the default of a field that a PATCH may leave out but not set to null."""
    return Field(default_factory=lambda: None)


class Body(BaseModel):
    """A request's JSON object."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Query(BaseModel):
    """A request's query. `tenant` is for the query resolver, where that is enabled; the route never sees it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    tenant: Text | None = Field(None, description="Slug of the tenant, where the query may name it.")


class ListQuery(Query):
    """The query of a paged list."""

    limit: int = Field(50, ge=1, le=200, description="Rows on a page.")
    cursor: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        None, description="`next_cursor` of the page before."
    )


class Answer(BaseModel):
    """A response's JSON object, read from a row's attributes."""

    model_config = ConfigDict(from_attributes=True)
