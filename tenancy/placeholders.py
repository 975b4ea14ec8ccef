"""Statements with very many placeholders: converted for the server once, and remembered.

psycopg writes `$1` for each `%(name)s`, and remembers the outcome for short texts only. For a thousand rows to insert
that took longer than all else that the client does for them.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from psycopg._queries import PostgresQuery

SHORTER, LONGER = 4_096, 200_000  # characters: psycopg remembers shorter texts itself, longer ones take much memory
KEPT = 16

_known: dict[tuple[str, str], tuple[Any, Any, Any, Any]] = {}
_adding = Lock()


class RememberedQuery(PostgresQuery):
    """psycopg's query, whose conversion of a long text is remembered for all connections of the process."""

    __slots__ = ()

    def convert(self, query: Any, vars: Any) -> None:  # noqa: A002 - psycopg's name
        text: Any = query  # psycopg's types want literals
        if not isinstance(query, str) or vars is None or not SHORTER < len(query) <= LONGER:
            super().convert(text, vars)
            return
        key = (query, self._tx.encoding)
        known = _known.get(key)
        if known is not None:
            self.query, self._want_formats, self._order, self._parts = known
            self.dump(vars)
            return
        super().convert(text, vars)
        with _adding:
            if len(_known) >= KEPT:
                del _known[next(iter(_known))]  # the oldest
            _known[key] = (self.query, self._want_formats, self._order, self._parts)


def forget_conversions() -> None:
    """Forget every conversion, as in a process that has just begun."""
    with _adding:
        _known.clear()


def kept_conversions() -> int:
    return len(_known)
