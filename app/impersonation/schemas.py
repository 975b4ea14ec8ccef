"""What the routes of impersonations take and answer."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field

from app.impersonation.operations import Begun
from app.schemas import Answer, Body
from app.staff.schemas import Reason


class NewImpersonation(Body):
    """Whom to act as, why and for how long."""

    member_id: UUID
    reason: Reason
    minutes: int = Field(30, ge=1, le=480, description="How long; no more than the service allows.")
    can_write: bool = Field(False, description="Also change things; asks for `tenants.write` besides.")


class ImpersonationAnswer(Answer):
    """One impersonation, as both sides see it."""

    id: UUID
    member_id: UUID
    staff_email: str
    reason: str
    can_write: bool
    created_at: datetime
    ends_at: datetime


class ImpersonationList(Answer):
    """Those that count now."""

    items: list[ImpersonationAnswer]


class BegunImpersonation(ImpersonationAnswer):
    """An impersonation and the token to act with; it is shown once, and cannot be refreshed."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme

    @classmethod
    def of(cls, begun: Begun) -> BegunImpersonation:
        plain = ImpersonationAnswer.model_validate(begun.impersonation)
        return cls(**plain.model_dump(), access_token=begun.access_token)
