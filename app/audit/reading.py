"""Reading the audit: by filters, a page at a time, or as a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Generator, Iterator
from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from app.audit.chain import Chain, Link, chain_of_tenant
from app.audit.models import AuditEntry, EntryColumns, PlatformEntry
from app.audit.schemas import EntryAnswer, EntryList, EntryQuery, ExportQuery
from app.errors import InvalidInputError
from app.paging import Sorts

ENTRIES = Sorts(AuditEntry, ("at",))
PLATFORM_ENTRIES = Sorts(PlatformEntry, ("at",))
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_COLUMNS = tuple(EntryAnswer.model_fields)
_BATCH = 500


def matching(rows: Select[Any], model: type[EntryColumns], query: EntryQuery | ExportQuery) -> Select[Any]:
    """Keep the entries that every given filter lets through."""
    if query.action is not None:
        is_noun = query.action.endswith(".")
        rows = rows.where(
            model.action.startswith(query.action, autoescape=True) if is_noun else model.action == query.action
        )
    if query.actor is not None:
        named = (model.actor_id == query.actor, model.actor_label == query.actor, model.impersonator == query.actor)
        rows = rows.where(or_(*named))
    for column, wanted in (
        (model.actor_kind, query.actor_kind),
        (model.target_kind, query.target_kind),
        (model.target_id, query.target_id),
        (model.request_id, query.request_id),
    ):
        if wanted is not None:
            rows = rows.where(column == wanted)
    if query.since is not None:
        rows = rows.where(model.at >= query.since)
    return rows if query.until is None else rows.where(model.at < query.until)


def page_of_tenant(session: Session, query: EntryQuery) -> EntryList:
    """Return one page of the audit of the session's tenant."""
    rows = matching(select(AuditEntry), AuditEntry, query)
    page = ENTRIES.page(session, rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return EntryList.model_validate({"items": page.rows, "next_cursor": page.next_cursor})


def page_of_platform(session: Session, query: EntryQuery) -> EntryList:
    """Return one page of the platform's own audit."""
    rows = matching(select(PlatformEntry), PlatformEntry, query)
    page = PLATFORM_ENTRIES.page(session, rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return EntryList.model_validate({"items": page.rows, "next_cursor": page.next_cursor})


# Files ------------------------------------------------------------------------------------------------


def refuse_part(query: ExportQuery) -> None:
    """Refuse an export that could not be checked.

    Raises: InvalidInputError - a filter is given, and the format is that of the chain.
    """
    is_whole = query.model_dump(exclude={"tenant", "format"}, exclude_none=True) == {}
    if query.format == "ndjson" and not is_whole:
        raise InvalidInputError.of("query.format", "a part of a chain cannot be checked: leave the filters out, or csv")


def export_lines(session: Session, query: ExportQuery) -> Iterator[str]:
    """Yield the file that is asked for of the tenant in scope, as it is read."""
    if query.format == "ndjson":
        return ndjson(session, chain_of_tenant())
    rows = matching(select(AuditEntry), AuditEntry, query)
    return csv_lines(session, rows.order_by(AuditEntry.at, AuditEntry.id))


def ndjson(session: Session, chain: Chain) -> Iterator[str]:
    """Yield the whole chain, a line for each entry and at last one for the head; anybody can check it without us.

    `entry` is always the last member, and its text, byte for byte, is what the hash is over.
    """
    head = None
    with_links = chain.read(session)
    try:
        for head, link in with_links:  # noqa: B007 - the head is the same on each, and written last
            if link is not None:
                yield _line(link)
    finally:
        with_links.close()
    end = {"number": head.number, "hash": head.hash.hex()} if head is not None else {"number": 0, "hash": None}
    start = {"pruned_number": head.pruned_number, "pruned_hash": head.pruned_hash.hex()} if head is not None else {}
    yield json.dumps({"head": {"owner": str(chain.owner)} | end | start}) + "\n"


def _line(link: Link) -> str:
    about = {
        "number": link.number,
        "linked_at": link.written_at,
        "previous_hash": link.previous_hash.hex(),
        "hash": link.hash.hex(),
    }
    return f'{json.dumps(about)[:-1]}, "entry": {link.text or "null"}}}\n'


def csv_lines(session: Session, rows: Select[Any]) -> Generator[str, None, None]:
    """Yield the entries as CSV; no cell is taken for a formula."""
    yield _row(_COLUMNS)
    with session.execute(rows, execution_options={"yield_per": _BATCH}) as found:
        for entry in found.scalars():
            yield _row([_cell(getattr(entry, name)) for name in _COLUMNS])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _row(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
