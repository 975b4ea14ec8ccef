"""The soak: many threads and tenants on one small pool, with errors and killed connections, for as long as one likes.

Run `python -m tenancy.testing.soak --help`.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from psycopg import OperationalError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tenancy.binding import create_tenant_engine
from tenancy.context import current_scope, tenant_scope
from tenancy.errors import TenancyError
from tenancy.session import tenant_sessionmaker
from tenancy.testing.actions import ACTIONS, Actor, DeliberateError, act_for_nobody
from tenancy.testing.ledger import Ledger, add_arguments, open_ledger

TRANSACTIONS = 32_000
THREADS = 16
TENANTS = 20
SHOWN = 20
# What the actions provoke, and what a killed connection says of itself. Anything else is a fault of the run.
EXPECTED = {
    "AdminShutdown",
    "DivisionByZero",
    "InFailedSqlTransaction",
    "InsufficientPrivilege",
    "NotNullViolation",
    "SyntaxError",
    "UniqueViolation",
}


@dataclass
class Report:
    """What a soak did and found.

    foreign: the first rows found that were another tenant's, of `foreign_rows` in all. unexpected: tracebacks of
    errors that nothing provoked. actions: how often each kind of action was completed.
    """

    seed: int
    threads: int
    tenants: int
    transactions: int = 0
    rows_checked: int = 0
    foreign_rows: int = 0
    foreign: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    actions: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    seconds: float = 0.0

    @property
    def unused(self) -> list[str]:
        """Actions that were never completed: what they would have found is not known."""
        return sorted({action.__name__ for action in (*ACTIONS, act_for_nobody)} - self.actions.keys())

    @property
    def is_clean(self) -> bool:
        """Whether no foreign row was read or written, nothing broke, and every kind of action was completed."""
        return not (self.foreign_rows or self.unexpected or self.unused) and self.rows_checked > 0

    def text(self) -> str:
        per_second = self.transactions / self.seconds if self.seconds else 0.0
        lines = [
            f"seed {self.seed}: {self.threads} threads, {self.tenants} tenants",
            f"{self.transactions:,} transactions in {self.seconds:.1f} s ({per_second:,.0f}/s), {self.kills} kills",
            f"{self.rows_checked:,} rows checked, {self.foreign_rows:,} foreign",
            "actions: " + ", ".join(f"{name} {count:,}" for name, count in sorted(self.actions.items())),
            "errors: " + ", ".join(f"{name} {count:,}" for name, count in sorted(self.errors.items())),
            *(f"FOREIGN {line}" for line in self.foreign),
            *(f"UNEXPECTED {line}" for line in self.unexpected),
            *([f"NEVER COMPLETED {', '.join(self.unused)}"] if self.unused else []),
        ]
        return "\n".join([*lines, "clean" if self.is_clean else "NOT CLEAN"])


class Soak:
    """One run: the threads take transactions from a common count, and one more thread kills connections."""

    def __init__(self, ledger: Ledger, engine: Engine, report: Report, *, stop_at: Callable[[int], bool]) -> None:
        self.ledger, self.engine, self.report = ledger, engine, report
        self.sessions = tenant_sessionmaker(engine)
        with ledger.connect_admin() as admin:
            self.tenants = ledger.add_tenants(report.tenants, admin)
        self._stop_at = stop_at
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def run(self, *, kill_every: int) -> None:
        workers = [threading.Thread(target=self._work, args=(number,)) for number in range(self.report.threads)]
        killer = threading.Thread(target=self._kill, args=(kill_every, workers))
        begun = time.monotonic()
        for thread in (*workers, killer):
            thread.start()
        try:
            for thread in (*workers, killer):
                thread.join()
        finally:  # interrupted, if anything is left to join
            self._stopped.set()
            for thread in (*workers, killer):
                thread.join()
            self.report.seconds = time.monotonic() - begun
            with self.ledger.connect_admin() as admin:
                written = self.ledger.everything(self.tenants, admin)
            for tenant in self.tenants:
                mine = [row for row in written if row[0] == tenant or row[1].startswith(tenant.hex)]
                self.note(rows=len(mine), foreign=self.ledger.foreign(mine, tenant))

    def note(self, *, rows: int = 0, foreign: list[str] | None = None, action: str = "", error: str = "") -> None:
        with self._lock:
            report = self.report
            report.rows_checked += rows
            report.foreign_rows += len(foreign or ())
            report.foreign += (foreign or [])[: SHOWN - len(report.foreign)]
            report.actions.update([action] if action else [])
            report.errors.update([error] if error else [])

    def _take(self) -> bool:
        with self._lock:
            if self._stopped.is_set() or self._stop_at(self.report.transactions):
                return False
            self.report.transactions += 1
            return True

    def _work(self, number: int) -> None:
        actor = Actor(self.ledger, self.note, self.tenants, number, Random(f"{self.report.seed}/{number}"))  # noqa: S311 - a seed is to be repeated
        try:
            while self._take():
                self._transact(actor)
                if current_scope() is not None:
                    raise AssertionError("a scope outlived its transaction")
        except BaseException:  # noqa: BLE001 - a thread's error is the run's finding, and ends the run
            with self._lock:
                self.report.unexpected.append(traceback.format_exc())
            self._stopped.set()

    def _transact(self, actor: Actor) -> None:
        try:
            if actor.random.random() < 0.03:
                act_for_nobody(actor, self.engine)
                self.note(action=act_for_nobody.__name__)
                return
            tenant = actor.choose_tenant()
            with tenant_scope(tenant), self.sessions() as session:
                for action in actor.choose_actions():
                    action(actor, session, tenant)
                    self.note(action=action.__name__)
                actor.end(session)
        except (DBAPIError, PoolTimeoutError, PendingRollbackError, OperationalError, TenancyError) as error:
            kind = _kind_of(error)
            if kind is None:
                raise
            self.note(error=kind)
        except DeliberateError:
            self.note(error="DeliberateError")

    def _kill(self, every: int, workers: list[threading.Thread]) -> None:
        """End a connection of the app role, whatever it is doing, for each so many transactions."""
        random = Random(f"{self.report.seed}/kill")  # noqa: S311 - a seed is to be repeated
        due = every
        with self.ledger.connect_admin() as admin:
            while any(worker.is_alive() for worker in workers):
                if self.report.transactions < due:
                    self._stopped.wait(0.005)
                    if self._stopped.is_set():
                        return
                    continue
                due += every
                found = admin.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
                    " ORDER BY pid",
                    [APPLICATION],
                ).fetchall()
                if found:
                    admin.execute("SELECT pg_terminate_backend(%s)", [random.choice(found)[0]])
                    self.report.kills += 1


def _kind_of(error: Exception) -> str | None:
    """Name an error that the run provokes; None for one that it does not."""
    if isinstance(error, DBAPIError):
        name = type(error.orig).__name__
        if name in EXPECTED:
            return name
        # Killed while the driver talks, it may say only that it cannot go on: not even that it is disconnected.
        return "connection cut" if error.connection_invalidated or name == "OperationalError" else None
    if isinstance(error, OperationalError):  # killed while it was being opened, before SQLAlchemy wraps errors
        return "connection cut"
    return type(error).__name__


APPLICATION = "tenancy soak"


def soak(
    ledger: Ledger,
    *,
    transactions: int = TRANSACTIONS,
    threads: int = THREADS,
    tenants: int = TENANTS,
    seconds: float | None = None,
    seed: int | None = None,
    pool_size: int | None = None,
    kill_every: int = 200,
) -> Report:
    """Run mixed transactions in many threads and check every row that any of them reads.

    seconds: run for so long instead of counting transactions; 0 runs until interrupted.
    seed: decides what each thread does, though not how the threads interleave. None chooses one.
    pool_size: connections for all threads; None takes half as many as threads, so that some must wait.
    kill_every: a connection is ended by the superuser after each so many transactions.
    """
    report = Report(secrets.randbelow(1 << 32) if seed is None else seed, threads, tenants)
    deadline = None if not seconds else time.monotonic() + seconds

    def stop_at(done: int) -> bool:
        return done >= transactions if seconds is None else deadline is not None and time.monotonic() >= deadline

    engine = create_tenant_engine(
        ledger.app_url,
        pool_size=pool_size or max(2, threads // 2),
        max_overflow=0,
        pool_timeout=0.3,
        connect_args={"application_name": APPLICATION},
    )
    try:
        Soak(ledger, engine, report, stop_at=stop_at).run(kill_every=kill_every)
    except KeyboardInterrupt:
        if seconds is None:
            raise
    finally:
        engine.dispose()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tenancy.testing.soak", description=__doc__)
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--tenants", type=int, default=TENANTS)
    parser.add_argument("--seconds", type=float, help="run for so long instead; 0 runs until interrupted")
    add_arguments(parser)
    arguments = parser.parse_args()
    for name in ("psycopg", "sqlalchemy.pool"):  # they tell of each connection that is killed here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with open_ledger(arguments) as ledger:
        report = soak(
            ledger,
            transactions=arguments.transactions,
            threads=arguments.threads,
            tenants=arguments.tenants,
            seconds=arguments.seconds,
            seed=arguments.seed,
        )
    sys.stdout.write(report.text() + "\n")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
