"""Overriding what a plan says for one tenant, and taking that back: done by platform staff, in the tenant's session."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.audit.actors import require_actor
from app.audit.entries import record
from app.configuration.keys import key_of
from app.errors import InvalidInputError, RowNotFoundError
from app.plans.models import Override
from app.plans.standing import lock_tenant, note_change
from app.plans.terms import Feature, Quota, TermKind
from tenancy.errors import TenancyError

_MOST = (1 << 63) - 1


def override(
    session: Session, kind: TermKind, name: str, value: Any, *, reason: str, expires_at: datetime | None
) -> Override:
    """Give the session's tenant another value than its plan does; replaces the override there was.

    value: of a feature, whether the tenant has it; of a limit, a number or None for unlimited; of a key, its value.
    expires_at: aware; None lasts until somebody takes it back.
    Raises: InvalidInputError - the name is unknown, the value is not one it can have, or it would have expired already.
    """
    stored = _checked(kind, name, value)
    lock_tenant(session)  # of two at one moment, the second replaces the first
    if expires_at is not None and expires_at <= session.scalars(select(func.clock_timestamp())).one():
        raise InvalidInputError.of("expires_at", "is over: send a time to come, or null for no end")
    found = _find(session, kind, name)
    before = None if found is None else _as_json(found)
    row = found or Override(kind=kind, name=name)
    row.value, row.reason, row.expires_at, row.author = stored, reason, expires_at, require_actor().label
    session.add(row)
    session.flush()
    record(
        session, f"{kind}.overridden", target=("override", row.id), before=before, after=_as_json(row), reason=reason
    )
    note_change(session)
    return row


def withdraw_override(session: Session, kind: TermKind, name: str, *, reason: str) -> None:
    """Let the plan count again for the session's tenant.

    Raises: RowNotFoundError - nothing is overridden under this name.
    """
    lock_tenant(session)
    found = _find(session, kind, name)
    if found is None:
        raise RowNotFoundError
    record(session, f"{kind}.restored", target=("override", found.id), before=_as_json(found), reason=reason)
    session.delete(found)
    session.flush()
    note_change(session)


def _find(session: Session, kind: TermKind, name: str) -> Override | None:
    return session.scalar(select(Override).where(Override.kind == kind, Override.name == name))


def _checked(kind: TermKind, name: str, value: Any) -> Any:
    """Return the value as it is stored."""
    match kind:
        case TermKind.FEATURE:
            check_name(name, Feature)
            if not isinstance(value, bool):
                raise InvalidInputError.of("value", f"{name} is a feature: send true or false")
            return value
        case TermKind.LIMIT:
            check_name(name, Quota)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST):
                raise InvalidInputError.of("value", f"{name} is a limit: send a whole number from 0, or null for none")
            return value
        case TermKind.CONFIGURATION:
            try:
                key = key_of(name)
                parsed = key.parse(value)
            except TenancyError as error:
                raise InvalidInputError.of("value", str(error)) from None
            if key.is_secret:
                raise InvalidInputError.of("value", f"{name} is a secret: only the tenant itself sets it")
            return key.plain(parsed)


def check_name(name: str, names: type[Feature] | type[Quota]) -> None:
    """Raises: InvalidInputError - there is no such feature or quota; it lists those there are."""
    if name not in list(names):
        raise InvalidInputError.of("name", f"unknown: use one of {', '.join(names)}")


def _as_json(row: Override) -> dict[str, Any]:
    return {
        "name": row.name,
        "value": row.value,
        "reason": row.reason,
        "author": row.author,
        "expires_at": None if row.expires_at is None else row.expires_at.isoformat(),
    }
