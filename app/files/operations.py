"""Adding and removing files: first the content, then the row; first the row, then the content.

So a crash in between leaves content that no row speaks of, which a job removes later, and never the reverse.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import ProblemError
from app.files.models import File, FileTotal
from app.files.storage import answering_outages, files
from app.usage.quotas import Quota, consume, release
from tenancy.tables import TENANT_KEY, new_id

log = logging.getLogger(__name__)

FOLDER = "files"
# The one sum there is.
SUM = "all"


@dataclass(frozen=True)
class Stored:
    """Content that is in the storage, and that no row speaks of yet."""

    id: UUID
    content_type: str
    size_bytes: int
    sha256: str


@contextmanager
def stored(content: IO[bytes], *, content_type: str, max_bytes: int) -> Iterator[Stored]:
    """Store content for the block, which adds its row by `add_file` and commits.

    A refusal inside removes it again. After any other error it may have been committed, so it is left to the job.
    Call it outside of a transaction: the storage may be slow.
    Raises: StorageDownError, ObjectTooLargeError - nothing is stored.
    """
    file_id = new_id()
    name = object_name(file_id)
    with answering_outages():
        found = files().storage.put(name, content, max_bytes=max_bytes)
    try:
        yield Stored(file_id, content_type, found.size_bytes, str(found.sha256))
    except (ProblemError, IntegrityError):
        discard(name)
        raise


def add_file(session: Session, content: Stored, *, name: str) -> File:
    """Add the row of what was stored, and count its bytes. Other uploads of the tenant wait until the transaction ends.

    name: what its sender calls it; it is shown, and decides nothing.
    Raises: QuotaExceededError - it does not fit into what the plan allows; nothing is added.
    """
    consume(session, Quota.STORAGE_BYTES, content.size_bytes)
    file = File(
        id=content.id,
        name=name,
        content_type=content.content_type,
        size_bytes=content.size_bytes,
        sha256=content.sha256,
    )
    session.add(file)
    session.flush()
    _count(session, content.size_bytes)
    return file


def remove_file(session: Session, file: File) -> str:
    """Remove the row of a file, and its bytes from the sum; returns what to `discard` once that is committed."""
    name = object_name(file.id)
    release(session, Quota.STORAGE_BYTES, file.size_bytes)
    session.delete(file)
    session.flush()
    session.execute(
        update(FileTotal).where(FileTotal.id == SUM).values(size_bytes=FileTotal.size_bytes - file.size_bytes)
    )
    return name


def discard(name: str) -> None:
    """Remove content that no row speaks of. Where that fails, the job will do it."""
    try:
        with answering_outages():
            files().storage.delete(name)
    except ProblemError:
        log.warning("file.left_behind", extra={"object": name})


def stored_bytes(session: Session) -> int:
    """Return how many bytes the files of the session's tenant have together, as of this transaction."""
    return session.scalar(select(FileTotal.size_bytes).where(FileTotal.id == SUM)) or 0


def object_name(file_id: UUID) -> str:
    """Return the name in the storage of the content of a file."""
    return f"{FOLDER}/{file_id}"


def _count(session: Session, delta_bytes: int) -> None:
    first = insert(FileTotal).values(id=SUM, size_bytes=delta_bytes)
    session.execute(
        first.on_conflict_do_update(
            index_elements=[TENANT_KEY, "kind"], set_={"size_bytes": FileTotal.size_bytes + delta_bytes}
        )
    )
