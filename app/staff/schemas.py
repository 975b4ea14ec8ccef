"""What the routes of staff take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from app.schemas import Answer, Body, Email, GivenPassword, ListQuery, Name, NewPassword, Text
from app.staff.permissions import StaffPermission, StaffRole


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank: say why")
    return text.strip()


Reason = Annotated[
    Text,
    StringConstraints(min_length=1, max_length=500),
    AfterValidator(_said),
    Field(description="Why; the audit keeps it."),
]
Secret = Annotated[Text, StringConstraints(min_length=1, max_length=200)]


class StaffCredentials(Body):
    """What somebody of the staff signs in with."""

    email: Email
    password: GivenPassword


class FirstOwner(Body):
    """The first owner, by the link that was printed when the service started without staff."""

    token: Secret
    email: Email
    password: NewPassword


class PasswordByLink(Body):
    """A password, by a one-time link."""

    token: Secret
    password: NewPassword


class StaffToken(Answer):
    """A sign-in of platform staff. The token is shown once."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme
    expires_at: datetime


class StaffMe(Answer):
    """Who of the staff is asking, and what she may do; `role` is null for an API key."""

    staff_id: UUID
    email: str
    role: StaffRole | None
    key_prefix: str | None
    permissions: list[StaffPermission]


class StaffMember(Answer):
    """One person of the staff."""

    id: UUID
    email: str
    role: StaffRole
    disabled_at: datetime | None
    created_at: datetime


class StaffPage(Answer):
    """One page of the staff."""

    items: list[StaffMember]
    next_cursor: str | None


class StaffQuery(ListQuery):
    """The query of the list of staff."""

    sort: str = Field("email", description="`email`, `created_at`, or either with `-` for downwards.")


class NewStaff(Body):
    """Somebody to add to the staff. She sets her password by a one-time link."""

    email: Email
    role: StaffRole
    reason: Reason


class StaffWithLink(StaffMember):
    """One person of the staff, and the secret of the link that sets her password; it is shown once."""

    link_token: str
    link_expires_at: datetime


class StaffChange(Body):
    """Another role."""

    role: StaffRole
    reason: Reason


class BecauseOf(Body):
    """Why."""

    reason: Reason


class LinkAnswer(Answer):
    """The secret of a one-time link that sets a password; it is shown once."""

    link_token: str
    link_expires_at: datetime


class NewKeyBody(Body):
    """An API key to make. You answer for it: it ends with your role."""

    name: Name
    permissions: list[StaffPermission] = Field(min_length=1, max_length=len(StaffPermission))
    expires_at: AwareDatetime = Field(description="When it ends; at most 366 days from now.")
    reason: Reason


class KeyAnswer(Answer):
    """One API key, without its secret. `last_used_at` is right to within some minutes."""

    id: UUID
    staff_id: UUID
    name: str
    prefix: str
    permissions: list[StaffPermission]
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class KeyWithSecret(KeyAnswer):
    """An API key that was just made. The secret is shown once."""

    secret: str


class KeyPage(Answer):
    """One page of API keys."""

    items: list[KeyAnswer]
    next_cursor: str | None


class KeyQuery(ListQuery):
    """The query of the list of API keys."""

    sort: str = Field("-created_at", description="`created_at`, `expires_at`, `name`, or one with `-` for downwards.")
    include_revoked: bool = Field(False, description="Also those that were revoked.")
