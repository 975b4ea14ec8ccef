"""Adding to the audit: in the transaction of what is done, so that both are there or neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.audit.actors import require_actor
from app.audit.models import AuditEntry


def record(
    session: Session,
    action: str,
    *,
    target: tuple[str, UUID] | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str | None = None,
) -> None:
    """Add one entry to the audit of the session's tenant; it is committed with the rest of the transaction.

    session: of the tenant, as a member or as staff. action: noun.verb in the past tense, `member.invited`.
    target: kind and id of the row it was done to. before, after: the fields that changed, as JSON; no secrets.
    Raises: RuntimeError - nobody is named as acting.
    """
    actor = require_actor()
    session.add(
        AuditEntry(
            action=action,
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_label=actor.label,
            impersonator=actor.impersonator,
            request_id=actor.request_id,
            reason=reason,
            target_kind=target[0] if target else None,
            target_id=target[1] if target else None,
            before=dict(before) if before is not None else None,
            after=dict(after) if after is not None else None,
        )
    )
