"""Retention: the oldest entries go, in order, and the chain stays checkable from where it then begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.audit.entries import record
from app.audit.models import AuditEntry, AuditHead, AuditLink

LEAST_DAYS = 30  # migration 0003 refuses to forget anything younger
_BATCH = 5_000


def prune(session: Session, *, keep_days: int, at: datetime | None = None) -> int:
    """Remove a batch of the tenant's entries that are older than this, and return how many; 0 when none is left.

    session: of the tenant, as staff. keep_days: at least 30. at: the moment to count from; None is now.
    What the removal was is an entry of its own. Whoever writes in the tenant waits for the batch, so commit between.
    """
    if keep_days < LEAST_DAYS:
        raise ValueError(f"entries are kept for {LEAST_DAYS} days at least, not for {keep_days}")
    cutoff = (at or datetime.now(UTC)) - timedelta(days=keep_days)
    head = session.scalar(select(AuditHead).with_for_update())
    if head is None:
        return 0
    batch = (
        select(AuditLink.number, AuditLink.hash, AuditLink.at)
        .where(AuditLink.number > head.pruned_number, AuditLink.number <= head.pruned_number + _BATCH)
        .order_by(AuditLink.number)
    )
    last = None
    for number, hash_, written_at in session.execute(batch):
        if written_at >= cutoff:
            break  # only from the beginning, and without a gap
        last = (number, hash_)
    if last is None:
        return 0
    before, (number, hash_) = head.pruned_number, last
    session.execute(update(AuditHead).values(pruned_number=number, pruned_hash=hash_))
    old = select(AuditLink.id).where(AuditLink.number <= number)
    session.execute(delete(AuditEntry).where(AuditEntry.id.in_(old)))
    session.execute(delete(AuditLink).where(AuditLink.number <= number))
    removed = number - before
    record(session, "audit.pruned", after={"removed": removed, "up_to_number": number, "keep_days": keep_days})
    return removed
