"""What signed scopes cost: one transaction of one statement, against the same at the standard level, side by side.

Run: python -m benchmarks.bench_signed [rounds]
Both read one row by key through the ORM, on the same server, in two databases that differ in nothing else, turn by
turn in random order. Two figures: the difference of the medians by the clock, and the difference of the processor
time of both processes, which a busy machine disturbs less. A second pair has ten statements in the transaction, so
that what is paid for each statement can be told from what is paid for binding.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.pool import NullPool

from benchmarks.bench_transaction import DATABASE, fill, pin
from tenancy import create_tenant_engine, tenant_scope, tenant_sessionmaker
from tenancy.embedded import start
from tests.conftest import ROLES, Database, bootstrap
from tests.models import Person
from tests.signed import KEY, sign

Row = tuple[UUID, UUID]
WARM_UP = 300
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Side:
    """One engine with one connection, and what its transactions took."""

    name: str
    engine: Engine
    clock_s: list[float] = field(default_factory=list)
    client_s: float = 0.0
    server_s: float = 0.0

    def backend(self) -> int:
        with tenant_scope(UUID(int=1)), self.engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())

    def cpu_us(self) -> float:
        return (self.client_s + self.server_s) / len(self.clock_s) * 1e6

    def median_us(self) -> float:
        return statistics.median(self.clock_s) * 1e6


def transaction(engine: Engine, statements: int) -> Callable[[Row], None]:
    sessions = tenant_sessionmaker(engine)

    def run(row: Row) -> None:
        tenant, person = row
        with tenant_scope(tenant), sessions() as session:
            for _ in range(statements):
                found = session.execute(select(Person.name).where(Person.id == person)).scalar_one()
                assert found == "Ada"

    return run


def processor_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) * TICK_S


def measure(engines: dict[str, Engine], rows: list[Row], *, statements: int, rounds: int) -> tuple[Side, Side]:
    standard, signed = (Side(name, engines[name]) for name in ("standard", "signed"))
    order = [(side, transaction(side.engine, statements)) for side in (standard, signed)]
    for number in range(WARM_UP):
        for _, run in order:
            run(rows[number % len(rows)])
    for side in (standard, signed):
        side.server_s = -processor_s(side.backend())
    for number in range(rounds):
        random.shuffle(order)  # so that neither side always finds the caches as the other left them
        for side, run in order:
            clock, client = time.perf_counter(), time.thread_time()
            run(rows[number % len(rows)])
            side.client_s += time.thread_time() - client
            side.clock_s.append(time.perf_counter() - clock)
    for side in (standard, signed):
        side.server_s += processor_s(side.backend())
    return standard, signed


def compare(engines: dict[str, Engine], rows: list[Row], *, statements: int, rounds: int) -> tuple[float, float]:
    """Print both sides; return what signing adds to a transaction, in µs: by the clock, and of processor time."""
    standard, signed = measure(engines, rows, statements=statements, rounds=rounds)
    clock, cpu = signed.median_us() - standard.median_us(), signed.cpu_us() - standard.cpu_us()
    print(
        f"{statements:2} statements, median: standard {standard.median_us():.0f} us, "
        f"signed {signed.median_us():.0f} us, {clock:+.1f} us; "
        f"processor: {standard.cpu_us():.0f} us, {signed.cpu_us():.0f} us, {cpu:+.1f} us"
    )
    return clock, cpu


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder, start(Path(folder) / "pg") as server:
        pin(server)
        rows = fill(server)
        with create_engine(server.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as admin:
            admin.exec_driver_sql(f"CREATE DATABASE signed TEMPLATE {DATABASE}")
        bootstrap(server.url(database="signed"), tables=False)  # a copy belongs to whoever made it
        sign(Database(server, "signed"))
        options = {"pool_size": 1, "max_overflow": 0}
        engines = {
            "standard": create_tenant_engine(server.url(role=ROLES.app, database=DATABASE), **options),
            "signed": create_tenant_engine(server.url(role=ROLES.app, database="signed"), signing_key=KEY, **options),
        }
        one = compare(engines, rows, statements=1, rounds=rounds)
        ten = compare(engines, rows, statements=10, rounds=rounds // 4)
        for label, first, all_ten in zip(("median", "processor"), one, ten, strict=True):
            each = (all_ten - first) / 9
            print(f"{label}: {all_ten / 10:+.1f} us a statement of ten, of which binding once {first - each:+.1f} us")
        for engine in engines.values():
            engine.dispose()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
