"""Content without a row, and rows without content: what a crash, or a restored backup, leaves behind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.files.models import File, FileTotal
from app.files.operations import FOLDER, SUM, object_name
from tenancy.namespaces import TenantStorage

log = logging.getLogger(__name__)

# An upload whose row is not committed yet looks just like an orphan.
GRACE = timedelta(hours=1)
_AT_ONCE = 500


@dataclass
class Tidied:
    """What was found in one tenant. missing: files whose content is gone; they are reported, and left as they are.

    recounted_bytes: how far the sum of the tenant was off; 0 where it was right.
    """

    removed: list[str] = field(default_factory=list)
    removed_bytes: int = 0
    missing: list[UUID] = field(default_factory=list)
    recounted_bytes: int = 0


def tidy_tenant(
    open_session: Callable[[], Session],
    storage: TenantStorage,
    *,
    now: datetime | None = None,
    grace: timedelta = GRACE,
) -> Tidied:
    """Remove content of the tenant in scope that no row speaks of, report rows without content, and mend the sum.

    open_session: makes a session of the tenant. now: aware UTC; None for this moment.
    grace: what is younger than this is left alone, on both sides. It may be repeated, and be stopped at any point.
    """
    before = (now or datetime.now(UTC)) - grace
    found = Tidied()
    present: set[UUID] = set()
    objects = storage.list(FOLDER)
    # The objects are read before the rows: a row that is committed in between is found.
    while batch := list(islice(objects, _AT_ONCE)):
        ids = {one.name: _id_of(one.name) for one in batch}
        with open_session() as session:
            known = set(session.scalars(select(File.id).where(File.id.in_([i for i in ids.values() if i]))))
        present |= known
        for one in batch:
            if ids[one.name] not in known and one.modified_at < before:
                storage.delete(one.name)
                found.removed.append(one.name)
                found.removed_bytes += one.size_bytes
    with open_session() as session:
        rows = session.scalars(select(File.id).where(File.created_at < before)).all()
    found.missing = _without_content(rows, present, open_session, storage)
    found.recounted_bytes = _recount(open_session)
    for file_id in found.missing:
        log.error("file.content_missing", extra={"file_id": str(file_id)})
    if found.removed or found.recounted_bytes:
        log.info(
            "files.tidied",
            extra={
                "removed": len(found.removed),
                "removed_bytes": found.removed_bytes,
                "recounted_bytes": found.recounted_bytes,
            },
        )
    return found


def _without_content(
    rows: Sequence[UUID], present: set[UUID], open_session: Callable[[], Session], storage: TenantStorage
) -> list[UUID]:
    """Return which of the rows have no content, asked once more: a file may have been removed since they were read."""
    missing = [file_id for file_id in rows if file_id not in present]
    if not missing:
        return []
    with open_session() as session:
        still = set(session.scalars(select(File.id).where(File.id.in_(missing))))
    there = {one.name for one in storage.list(FOLDER)}
    return [file_id for file_id in missing if file_id in still and object_name(file_id) not in there]


def _recount(open_session: Callable[[], Session]) -> int:
    """Set the sum to what the rows say, and return how far it was off."""
    with open_session() as session:
        # Locked: who adds or removes a file has either counted it already, or will after this.
        total = session.scalar(select(FileTotal).where(FileTotal.id == SUM).with_for_update())
        if total is None:
            return 0
        true = session.scalar(select(func.coalesce(func.sum(File.size_bytes), 0))) or 0
        off = int(true) - total.size_bytes
        if off:
            session.execute(update(FileTotal).where(FileTotal.id == SUM).values(size_bytes=int(true)))
        session.commit()
        return off


def _id_of(name: str) -> UUID | None:
    """Return the id of the file that the name of an object speaks of; None when it is none of ours."""
    try:
        file_id = UUID(name.removeprefix(f"{FOLDER}/"))
    except ValueError:
        return None
    return file_id if object_name(file_id) == name else None
