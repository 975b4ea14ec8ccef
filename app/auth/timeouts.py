"""Timeouts: a sign-in ends once it was not used for as long as `session.timeout` of its tenant says.

It is carried on by being used: at a refresh, and by a request that comes in the second half of the time left to it,
so that most requests write nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from app.auth.access import Principal
from app.auth.desk import Desk
from app.auth.models import SignIn
from app.configuration.keys import SESSION_TIMEOUT


def timeout_of(desk: Desk, session: Session) -> timedelta:
    """Return how long a sign-in of the session's tenant may go unused."""
    return timedelta(seconds=desk.standings.of(session).setting(SESSION_TIMEOUT))


def carry_on(desk: Desk, session: Session, principal: Principal) -> None:
    """Put off the end of a sign-in that is being used, if it is due; never beyond the longest life of a sign-in.

    Commits, if it writes: the route that follows may only read. One that comes too late leaves the sign-in ended.
    """
    timeout = timeout_of(desk, session)
    if principal.expires_at - datetime.now(UTC) > timeout / 2:
        return
    latest = SignIn.created_at + desk.sign_in_ttl
    later = func.least(latest, func.now() + timeout)
    session.execute(
        update(SignIn)
        .where(SignIn.id == principal.sign_in_id, SignIn.ended_at.is_(None), SignIn.expires_at < later)
        .values(expires_at=later)
        .execution_options(synchronize_session=False)
    )
    session.commit()
