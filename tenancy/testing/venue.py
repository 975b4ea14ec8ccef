"""Where one story takes place: an engine with a small pool, two tenants, and a superuser who looks on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from tenancy.binding import create_tenant_engine
from tenancy.budgets import WorkBudget
from tenancy.pools import budgets_of

if TYPE_CHECKING:
    from tenancy.testing.ledger import Ledger, Read

APPLICATION = "tenancy fuzzer"  # the name of its connections
WAIT_MS = 2_000  # nobody in a story has to wait for another, so this is a stall
# The last two end a client that waits for an answer which the server does not owe.
SETTINGS = {
    "lock_timeout": WAIT_MS,
    "statement_timeout": 5 * WAIT_MS,
    "idle_in_transaction_session_timeout": 30 * WAIT_MS,
    "idle_session_timeout": 30 * WAIT_MS,
}
OPTIONS = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
STALLS = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.IdleSessionTimeout,
)
_PID = "pid"  # kept with the pool's entry: a closed connection no longer tells
BUDGET = WorkBudget(statement_timeout_s=5 * WAIT_MS / 1000, lock_timeout_s=WAIT_MS / 1000, concurrency=100)


class Venue:
    """The engine under test, and the superuser's side of it."""

    def __init__(
        self, ledger: Ledger, open_engine: Callable[..., Engine], *, pool_size: int, has_budgets: bool
    ) -> None:
        self._ledger = ledger
        self._admin = ledger.connect_admin()
        for name, value in SETTINGS.items():
            self._admin.execute("SELECT set_config(%s, %s, false)", [name, str(value)])
        self.tenants = ledger.add_tenants(2, self._admin)
        # An engine of somebody else's making knows no budgets.
        more = {"budget_of": _budget_of} if has_budgets and open_engine is create_tenant_engine else {}
        self.engine = open_engine(
            ledger.app_url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=0.001,
            connect_args={"application_name": APPLICATION, "options": OPTIONS},
            **more,
        )
        self.idle: set[int] = set()  # the server's processes whose connections wait in the pool
        event.listen(self.engine, "connect", self._remember)
        event.listen(self.engine, "checkin", lambda _, entry: self.idle.add(entry.info[_PID]))
        for name in ("checkout", "close", "invalidate"):
            event.listen(self.engine, name, lambda _, entry, *__: self.idle.discard(entry.info.get(_PID, 0)))

    def _remember(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        entry.info[_PID] = connection.info.backend_pid

    def connections_taken(self) -> int:
        taken: int = self.engine.pool.checkedout()  # type: ignore[attr-defined]  # of a QueuePool
        return taken

    def slots_taken(self) -> int:
        budgets = budgets_of(self.engine)
        return sum(budgets.open_of(tenant) for tenant in self.tenants) if budgets is not None else 0

    def processes(self) -> list[tuple[int, str]]:
        """Return the server's processes that serve the story, oldest first, each with the name of its client."""
        return self._admin.execute(
            "SELECT pid, application_name FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE %s ORDER BY backend_start",
            [f"{APPLICATION}%"],
        ).fetchall()

    def end(self, pid: int) -> None:
        """End one of them, whatever it is doing; it is gone afterwards."""
        self._admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    def connections_left(self) -> list[Any]:
        """Return what is still connected some time after all was closed: a process takes a moment to end."""
        until = time.monotonic() + 5 * WAIT_MS / 1000
        while self.processes() and time.monotonic() < until:
            time.sleep(0.002)
        return self._admin.execute(
            "SELECT application_name, state, query FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE %s",
            [f"{APPLICATION}%"],
        ).fetchall()

    def everything(self) -> Read:
        """Return every row that the tenants have, or that says it is theirs."""
        return self._ledger.everything(self.tenants, self._admin)

    def close(self) -> None:
        """End what is left, which may hold locks that the clearing would wait for, and clear."""
        with contextlib.closing(self._admin):
            self.engine.dispose()
            for pid, _ in self.processes():
                self.end(pid)
            self._ledger.clear(self._admin)


def _budget_of(_tenant: UUID) -> WorkBudget:
    return BUDGET
