"""Keyset paging: an opaque cursor that says after which row a page begins, for whitelisted sorts only."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import Select, inspect, literal, tuple_
from sqlalchemy.orm import Session

from app.errors import InvalidInputError

Row = TypeVar("Row")
_BROKEN = "this is no cursor of this list: take `next_cursor` from the last page unchanged, or leave it out"


@dataclass(frozen=True)
class Page(Generic[Row]):
    """One page; `next_cursor` is None on the last one."""

    rows: Sequence[Row]
    next_cursor: str | None


@dataclass(frozen=True)
class Sorts(Generic[Row]):
    """The sorts a list offers, `-name` for downwards.

    columns: none may hold NULL; the row's id makes each a total order.
    """

    model: type[Row]
    columns: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for column in self.columns for name in (column, f"-{column}"))

    def page(self, session: Session, rows: Select[Row], *, sort: str, cursor: str | None, limit: int) -> Page[Row]:
        """Return the page of `rows` that begins after the cursor; costs one statement.

        Raises: InvalidInputError - the sort is not offered, or the cursor is not of this list and sort.
        """
        after = self.position(sort, cursor)
        is_down = sort.startswith("-")
        name = sort.removeprefix("-")
        column, row_id = inspect(self.model).columns[name], inspect(self.model).columns["id"]
        if after is not None:
            value, after_id = after
            here = tuple_(column, row_id)
            there = tuple_(literal(value, column.type), literal(after_id, row_id.type))
            rows = rows.where(here < there if is_down else here > there)
        order = (column.desc(), row_id.desc()) if is_down else (column, row_id)
        found = session.scalars(rows.order_by(*order).limit(limit + 1)).all()
        if len(found) <= limit:
            return Page(found, None)
        last: Any = found[limit - 1]
        return Page(found[:limit], _encode(sort, getattr(last, name), last.id))

    def position(self, sort: str, cursor: str | None) -> tuple[Any, UUID] | None:
        """Return the sorted value and the id of the row that a page begins after; None for the first page.

        Raises: InvalidInputError - the sort is not offered, or the cursor is not of this list and sort.
        """
        if sort not in self.names:
            raise InvalidInputError.of("query.sort", f"not offered: use one of {', '.join(self.names)}")
        column = inspect(self.model).columns[sort.removeprefix("-")]
        return None if cursor is None else _decode(cursor, sort, column.type.python_type)


def _encode(sort: str, value: Any, row_id: UUID) -> str:
    plain = value.isoformat() if isinstance(value, datetime) else value
    return urlsafe_b64encode(json.dumps([sort, plain, str(row_id)]).encode()).decode().rstrip("=")


def _decode(cursor: str, sort: str, kind: type[Any]) -> tuple[Any, UUID]:
    """Parse a cursor. It grants nothing, so it is checked rather than signed: its parts become bound values."""
    try:
        if not cursor.isascii():
            raise ValueError("not base64")
        found_sort, value, row_id = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        parsed = datetime.fromisoformat(value) if kind is datetime else value
        if found_sort != sort or type(parsed) is not kind or "\0" in str(parsed):
            raise ValueError("of another list")
        if isinstance(parsed, datetime) and parsed.tzinfo is None:
            raise ValueError("no instant")
        if isinstance(parsed, int) and abs(parsed) >= 1 << 63:
            raise ValueError("no stored number")
        str(parsed).encode()
        return parsed, UUID(row_id)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidInputError.of("query.cursor", _BROKEN) from None
