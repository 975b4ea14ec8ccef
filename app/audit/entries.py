"""Adding to the audit: in the transaction of what is done, so that both are there or neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.audit.actors import current_request_id, require_actor
from app.audit.models import AuditEntry, PlatformEntry
from app.audit.redaction import redacted
from tenancy.session import PlatformSession

Target = tuple[str, UUID]


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
    session.add(AuditEntry(**_columns(action, target=target, before=before, after=after, reason=reason)))


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
    session.add(PlatformEntry(**_columns(action, target=target, before=before, after=after, reason=reason)))


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
        "action": action,
        "actor_kind": actor.kind,
        "actor_id": actor.id,
        "actor_label": actor.label,
        "impersonator": actor.impersonator,
        "request_id": actor.request_id or current_request_id(),
        "reason": reason,
        "target_kind": target[0] if target else None,
        "target_id": target[1] if target else None,
        "before": redacted(before) if before is not None else None,
        "after": redacted(after) if after is not None else None,
    }
