"""What is done with the staff's tables from time to time: what no longer counts is removed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete

from app.admin.scopes import on_staff_tables
from app.audit.actors import Actor, ActorKind, acting_as
from app.queue.tasks import Job, platform_task
from app.staff.models import KeptAnswer, StaffLink, StaffSignIn

# Spent sign-ins and links can be looked at for as long; the audit keeps that they were.
_LOOKED_AT_FOR = timedelta(days=30)


def remove_spent(now: datetime) -> int:
    """Remove kept answers past their day, and sign-ins and links that ended a month ago; return how many rows."""
    long_ago = now - _LOOKED_AT_FOR
    with (
        acting_as(Actor(ActorKind.JOB, "staff.remove_spent", "removal of what no longer counts")),
        on_staff_tables(reason="remove what no longer counts") as session,
    ):
        done = [
            session.execute(delete(KeptAnswer).where(KeptAnswer.expires_at <= now)),
            session.execute(delete(StaffSignIn).where(StaffSignIn.expires_at <= long_ago)),
            session.execute(delete(StaffLink).where(StaffLink.expires_at <= long_ago)),
        ]
        return sum(cast("CursorResult[Any]", result).rowcount for result in done)


@platform_task(name="staff.remove_spent", cron="41 * * * *")
def remove_spent_rows(_job: Job) -> None:
    """Remove what no longer counts."""
    remove_spent(datetime.now(UTC))
