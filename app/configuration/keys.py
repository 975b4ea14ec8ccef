"""The keys of the configuration: what a value of each must be, and how far a tenant may move it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from tenancy.errors import TenancyError

Value = TypeVar("Value")
# What is told of a secret.
SET = {"is_set": True}
UNSET = {"is_set": False}
_MOST_BYTES = 1 << 53  # beyond it a JSON number is no longer exact everywhere


class UnknownKeyError(TenancyError):
    """No key of the configuration has this name."""


class InvalidValueError(TenancyError):
    """The key cannot have this value."""


class PasswordPolicy(BaseModel):
    """What a new password must have."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    min_length: int = Field(ge=8, le=128, description="Characters at least.")
    upper: bool = Field(description="An upper-case letter.")
    lower: bool = Field(description="A lower-case letter.")
    number: bool = Field(description="A digit.")
    special: bool = Field(description="A character that is neither letter nor digit.")

    def lacking(self, password: str) -> list[str]:
        """Return what the password has not, in words; empty when it will do."""
        found = []
        if len(password) < self.min_length:
            found.append(f"at least {self.min_length} characters")
        wanted: tuple[tuple[bool, Callable[[str], bool], str], ...] = (
            (self.upper, str.isupper, "an upper-case letter"),
            (self.lower, str.islower, "a lower-case letter"),
            (self.number, str.isdigit, "a digit"),
            (self.special, lambda character: not character.isalnum(), "a character that is no letter and no digit"),
        )
        return found + [words for is_wanted, is_one, words in wanted if is_wanted and not any(map(is_one, password))]

    def and_also(self, other: PasswordPolicy) -> PasswordPolicy:
        """Return the policy that asks for what either asks for."""
        return PasswordPolicy(
            min_length=max(self.min_length, other.min_length),
            upper=self.upper or other.upper,
            lower=self.lower or other.lower,
            number=self.number or other.number,
            special=self.special or other.special,
        )


@dataclass(frozen=True)
class Key(Generic[Value]):
    """One key. Staff may set any value of its type; a tenant's own counts only as far as `narrow` lets it.

    kind: the type and its bounds, for pydantic. default: what counts where the plan says nothing.
    narrow: given what was granted and what the tenant wants, what counts; None where a tenant may not set the key.
    is_secret: kept encrypted and never answered; no plan and no staff has a say, and None is its default.
    """

    name: str
    description: str
    kind: Any
    default: Value
    narrow: Callable[[Value, Value], Value] | None
    is_secret: bool = False

    @property
    def is_tenants(self) -> bool:
        return self.narrow is not None

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.kind)

    def parse(self, value: object) -> Value:
        """Return the value as the key's type; what comes from JSON, TOML or the database.

        Raises: InvalidValueError - names the key and what is wrong with the value, which it does not repeat.
        """
        try:
            parsed: Value = self._adapter.validate_python(value, strict=True)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            found = "; ".join(": ".join([*map(str, fault["loc"]), fault["msg"]]) for fault in faults)
            raise InvalidValueError(f"{self.name}: {found}", hint=f"{self.name} is: {self.description}") from None
        return parsed

    def plain(self, value: Value) -> Any:
        """Return the value as JSON has it; of a secret, only that there is one."""
        if self.is_secret:
            return SET
        return value.model_dump() if isinstance(value, BaseModel) else value

    def stricter(self, granted: Value, wanted: Value) -> Value:
        """Return what counts of what a tenant wants, where this much was granted."""
        return granted if self.narrow is None else self.narrow(granted, wanted)


PASSWORD_POLICY: Key[PasswordPolicy] = Key(
    "security.password_policy",
    "What new passwords of the tenant's people must have. A tenant may ask for more than its plan, not for less.",
    PasswordPolicy,
    PasswordPolicy(min_length=12, upper=True, lower=True, number=True, special=True),
    PasswordPolicy.and_also,
)
SESSION_TIMEOUT: Key[int] = Key(
    "session.timeout",
    "Seconds without a request after which a sign-in ends, from 300 to 86,400; a tenant may make it shorter.",
    Annotated[int, Field(ge=300, le=86_400)],
    3_600,
    min,
)
UPLOAD_MAX_SIZE: Key[int] = Key(
    "file_upload.max_size",
    "Bytes of the largest file that may be uploaded, from 1; a tenant may make it smaller.",
    Annotated[int, Field(ge=1, le=_MOST_BYTES)],
    1_048_576,
    min,
)
RATE_LIMIT: Key[int] = Key(
    "api.rate_limit",
    "API calls let through in an hour, from 1; a tenant may ask for fewer.",
    Annotated[int, Field(ge=1, le=1_000_000_000)],
    1_000,
    min,
)
IMPERSONATION: Key[bool] = Key(
    "security.impersonation",
    "Whether platform staff may act as one of the tenant's people, for a reason and a while; a tenant may forbid it.",
    bool,
    True,
    lambda granted, wanted: granted and wanted,
)
WEBHOOK_SECRET: Key[str | None] = Key(
    "webhooks.signing_secret",
    "A secret of 24 to 200 characters by which the tenant's own systems know what this service sends them.",
    Annotated[str, StringConstraints(min_length=24, max_length=200, pattern=r"^[!-~]+$")],
    None,
    lambda _granted, wanted: wanted,
    is_secret=True,
)

KEYS: Mapping[str, Key[Any]] = {
    key.name: key
    for key in (PASSWORD_POLICY, SESSION_TIMEOUT, UPLOAD_MAX_SIZE, RATE_LIMIT, IMPERSONATION, WEBHOOK_SECRET)
}


def key_of(name: str) -> Key[Any]:
    """Return the key of this name.

    Raises: UnknownKeyError
    """
    if name not in KEYS:
        raise UnknownKeyError(f"no key is named {name[:100]!r}", hint=f"use one of {', '.join(KEYS)}")
    return KEYS[name]
