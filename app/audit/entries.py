"""Adding to the audit: in the transaction of what is done, so that both are there or neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy.orm import Session

from app.audit.actors import current_request_id, require_actor
from app.audit.redaction import redacted
from tenancy.context import require_tenant
from tenancy.driver import TenantConnection
from tenancy.session import PlatformSession
from tenancy.tables import TENANT_KEY, new_id

Target = tuple[str, UUID]
REFUSAL = "audit_refusal"  # in `session.info`: what is called before each entry, and raises where none may be made


def record(
    session: Session,
    action: str,
    *,
    target: Target | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str | None = None,
) -> None:
    """Add one entry to the audit of the session's tenant; it is committed with the rest of the transaction.

    session: of the tenant, as a member or as staff. action: noun.verb in the past tense, `member.invited`.
    target: kind and id of the row it was done to. before, after: the fields that changed; secrets are taken out.
    Raises: RuntimeError - nobody is named as acting.
    """
    row = _columns(action, target=target, before=before, after=after, reason=reason)
    _add(session, "audit_entries", {TENANT_KEY: require_tenant()} | row)


def record_platform(
    session: PlatformSession,
    action: str,
    *,
    target: Target | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str | None = None,
) -> None:
    """Add one entry to the platform's own audit, of what belongs to no tenant.

    session: made in `platform_scope(..., reads_only=False)`, with no tenant in scope.
    Raises: RuntimeError - nobody is named as acting.
    """
    _add(session, "platform_entries", _columns(action, target=target, before=before, after=after, reason=reason))


def _columns(
    action: str,
    *,
    target: Target | None,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    reason: str | None,
) -> dict[str, Any]:
    actor = require_actor()
    return {
        "id": new_id(),
        "action": action,
        "actor_kind": actor.kind.value,
        "actor_id": actor.id,
        "actor_label": actor.label,
        "impersonator": actor.impersonator,
        "request_id": actor.request_id or current_request_id(),
        "reason": reason,
        "target_kind": target[0] if target else None,
        "target_id": target[1] if target else None,
        "before": Jsonb(redacted(before)) if before is not None else None,
        "after": Jsonb(redacted(after)) if after is not None else None,
    }


def _add(session: Session, table: str, row: Mapping[str, Any]) -> None:
    """Send the row with the COMMIT: past the unit of work, which takes longer than all else that an entry costs.

    In a savepoint it is sent at once, because it goes with the savepoint where that is rolled back.
    """
    refuse: Callable[[], None] | None = session.info.get(REFUSAL)
    if refuse is not None:
        refuse()
    statement, values = _insert(table, tuple(row)), list(row.values())
    connection = session.connection()
    driver = connection.connection.driver_connection
    if session.in_nested_transaction() or not isinstance(driver, TenantConnection):
        connection.exec_driver_sql(statement, tuple(values))
    else:
        driver.execute_last(statement, values)


@cache
def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})"  # noqa: S608
