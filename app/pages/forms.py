"""Forms: what was sent, checked by the same models as the API's bodies, and what to say beside each field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import IntegrityError

Model = TypeVar("Model", bound=BaseModel)
_CSRF = "csrf_token"
_WORDS: Mapping[str, str] = {
    "missing": "Fill this in.",
    "date_from_datetime_parsing": "Choose a day, such as 2026-01-31.",
    "date_parsing": "Choose a day, such as 2026-01-31.",
    "decimal_parsing": "Write a number, such as 1250 or 99.90.",
    "decimal_max_places": "Write at most two digits after the point.",
    "decimal_max_digits": "This number is too large.",
    "decimal_whole_digits": "This number is too large.",
    "greater_than_equal": "Write zero or more.",
    "enum": "Choose one from the list.",
    "uuid_parsing": "Choose one from the list.",
    "string_pattern_mismatch": "Write three capital letters, such as EUR.",
}


class Form:
    """The values of a form and what is wrong with them, ready to be shown again.

    errors: by field. message: about the form as a whole.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.values = {name: "" if value is None else str(value) for name, value in (values or {}).items()}
        self.errors: dict[str, str] = {}
        self.message = ""
        self.values.pop(_CSRF, None)

    def check(self, model: type[Model]) -> Model | None:
        """Return what was sent as the model; None when something is wrong, which `errors` and `message` then say.

        A blank field counts as left out.
        """
        try:
            return model(**{name: value for name, value in self.values.items() if value.strip()})
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_input=False):
                self._complain(str(fault["loc"][0]) if fault["loc"] else "", fault)
        return None

    def refuse(self, error: IntegrityError, told: Mapping[str, tuple[str, str]]) -> None:
        """Say what the database refused.

        told: by the constraint's name, the field and what to say beside it.
        Raises: IntegrityError - another constraint was violated.
        """
        constraint: str = getattr(getattr(error.orig, "diag", None), "constraint_name", None) or ""
        if constraint not in told:
            raise error
        field, words = told[constraint]
        self.errors[field] = words

    def _complain(self, field: str, fault: Any) -> None:
        if fault["type"] == "extra_forbidden" or not field:
            self.message = f"The form has a field that does not belong there: {field[:40]!r}."
            return
        if fault["type"] == "string_too_long":
            words = f"Write at most {fault['ctx']['max_length']} characters."
        else:
            words = _WORDS.get(fault["type"]) or f"This {str(fault['msg']).removeprefix('Value error, ')}."
        self.errors.setdefault(field, words)
