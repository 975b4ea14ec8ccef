"""Positions in the write-ahead log: how far a replica must be before a tenant reads its own writes there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from time import monotonic
from types import TracebackType

import psycopg

from tenancy.context import LAST_POSITION, Scope

COMMIT = (b"COMMIT", None)
# Asked in the same flight. Not the flushed position: with synchronous_commit off that is before the commit.
POSITION_SQL = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"

_KEPT = 4096
_KEPT_S = 600.0
_PAGE_BYTES = 8192
_PAGE_HEADER_BYTES = 24


def parse_position(lsn: str) -> int:
    """Return a pg_lsn, such as 16/B374D848, as a number.

    The insert position after a record that fills its page is past the next page's header, where no record ends: a
    standby reaches the page, and the header only with the next record. It is read as the page's beginning.
    """
    high, _, low = lsn.partition("/")
    position = (int(high, 16) << 32) | int(low, 16)
    return position - _PAGE_HEADER_BYTES if position % _PAGE_BYTES == _PAGE_HEADER_BYTES else position


class Positions:
    """Where the last write of each tenant and account through one engine ended, in this process.

    What is dropped to make room still counts, for everybody: nothing is taken to be replayed before it was.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[Hashable, tuple[int, float]] = {}
        self._dropped = (0, 0.0)

    def note(self, scope: Scope | None, position: int) -> None:
        """Remember that a write in the scope ended at the position; LAST_POSITION when it is not known where."""
        now = self._clock()
        with self._lock:
            for key in _keys(scope):
                before, _ = self._ends.pop(key, (0, 0.0))
                self._ends[key] = (max(before, position) if before != LAST_POSITION else position, now)
            while len(self._ends) > _KEPT:
                self._dropped = (max(self._dropped[0], self._ends.pop(next(iter(self._ends)))[0]), now)

    def needed(self, scope: Scope) -> int:
        """Return how far a replica must be for the scope to read what was written before; 0 for any."""
        oldest = self._clock() - _KEPT_S
        found = [self._dropped, *filter(None, map(self._ends.get, (None, *_keys(scope))))]
        return max((end for end, noted_at in found if noted_at >= oldest), default=0)


def _keys(scope: Scope | None) -> list[Hashable]:
    """The tenant and the account; None for a write in no scope, which concerns everybody."""
    if scope is None or (scope.tenant is None and scope.account is None):
        return [None]
    named = (("tenant", scope.tenant), ("account", scope.account))
    return [each for each in named if each[1] is not None]


class Write(AbstractContextManager["Write"]):
    """The commit of a transaction that wrote. When its end does not become known, no replica is trusted with it."""

    def __init__(self, positions: Positions, scope: Scope | None) -> None:
        self._positions = positions
        self._scope = scope

    def ended_at(self, lsn: str) -> None:
        self._positions.note(self._scope, parse_position(lsn))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An error with a state is the server's answer to COMMIT: nothing was written. Class 57: it stopped meanwhile.
        refused = isinstance(error, psycopg.Error) and error.sqlstate is not None and error.sqlstate[:2] != "57"
        if error is not None and not refused:
            self._positions.note(self._scope, LAST_POSITION)
