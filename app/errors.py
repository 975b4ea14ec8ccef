"""Every error the application answers with: one shape, RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import HTTPException


class FieldError(BaseModel):
    """One field at fault, and how to put it right."""

    model_config = ConfigDict(frozen=True)

    field: str = Field(description="Path of the field, such as `email` or `query.sort`.")
    message: str = Field(description="What is wrong and what to send instead.")


class Problem(BaseModel):
    """An error, as every route answers it (`application/problem+json`)."""

    type: str = Field(description="A URI for the kind of problem.")
    title: str = Field(description="The kind of problem in words; the same each time.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened this time, and the next step.")
    code: str = Field(description="A stable name to branch on.")
    errors: list[FieldError] = Field(default_factory=list, description="The fields at fault, if any.")


class ProblemError(HTTPException):
    """Base of the application's own errors; raised anywhere in a request, answered as a problem.

    detail: for the person who sent the request: what was found and the next step, no row contents.
    members: further members of the problem, such as the choices open to the caller.
    """

    code = 400
    kind = "bad_request"

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.members = dict(members or {})
        self.headers = dict(headers or {})


class InvalidInputError(ProblemError):
    """The request was understood and says something it may not."""

    kind = "invalid_input"

    @classmethod
    def of(cls, field: str, message: str) -> InvalidInputError:
        return cls("The request has a field that cannot be used.", errors=[FieldError(field=field, message=message)])


class NotSignedInError(ProblemError):
    """Nobody is signed in, or with something that no longer counts."""

    code = 401
    kind = "not_signed_in"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class ForbiddenError(ProblemError):
    """The member's role does not reach this far."""

    code = 403
    kind = "forbidden"


class RowNotFoundError(ProblemError):
    """No such row for this tenant; the same words whether the row is foreign or was never there."""

    code = 404
    kind = "not_found"

    def __init__(self) -> None:
        super().__init__("Nothing is here under this id.")


class TakenError(ProblemError):
    """A value that must be unique is in use."""

    code = 409
    kind = "taken"


class ChoiceNeededError(ProblemError):
    """More than one answer is possible, and only the caller can choose."""

    code = 409
    kind = "choose_tenant"
