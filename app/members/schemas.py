"""What the routes of members and invitations take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from app.members.invitations import Sent
from app.members.models import Invitation, Member
from app.members.permissions import Permission, Role
from app.schemas import Answer, Body, Email, ListQuery, Text, omitted


class MemberQuery(ListQuery):
    """The query of the list of members."""

    role: Role | None = None
    sort: Literal["email", "-email", "created_at", "-created_at"] = "email"


class MemberChange(Body):
    """What to change of a member."""

    role: Role = omitted()
    permissions: dict[Permission, bool] = omitted()


class MemberAnswer(Answer):
    """A member. `permissions` are the exceptions to the role, `granted` is what both come to."""

    id: UUID
    account_id: UUID
    email: str
    role: Role
    permissions: dict[str, bool]
    granted: list[Permission]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, member: Member) -> MemberAnswer:
        return cls(
            id=member.id,
            account_id=member.account_id,
            email=member.email,
            role=Role(member.role),
            permissions=member.permissions,
            granted=sorted(member.granted),
            created_at=member.created_at,
            updated_at=member.updated_at,
        )


class MemberList(Answer):
    items: list[MemberAnswer]
    next_cursor: str | None


class NewInvitation(Body):
    """Whom to invite, and as what."""

    email: Email
    role: Role = Role.MEMBER


class InvitationQuery(ListQuery):
    """The query of the list of invitations."""

    sort: Literal["created_at", "-created_at", "email", "-email"] = "-created_at"


class InvitationAnswer(Answer):
    """An invitation; its token is in the mail and nowhere else.

    `link` is answered in development only: whoever holds it can sign in as the person invited.
    """

    id: UUID
    email: str
    role: Role
    expires_at: datetime
    accepted_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    link: str | None = None

    @classmethod
    def of(cls, found: Sent | Invitation) -> InvitationAnswer:
        invitation = found.invitation if isinstance(found, Sent) else found
        answer = cls.model_validate(invitation)
        return answer.model_copy(update={"link": found.link}) if isinstance(found, Sent) else answer


class InvitationList(Answer):
    items: list[InvitationAnswer]
    next_cursor: str | None


class Acceptance(Body):
    """An invitation's token, and the password of the address it was sent to: a new one where it has no account."""

    token: Text = Field(min_length=1, max_length=200)
    password: Text = Field(min_length=1, max_length=200)


class Joining(Body):
    """An invitation's token, for who is signed in already."""

    token: Text = Field(min_length=1, max_length=200)
