"""What signed scopes cost: one transaction of one statement, against the same at the standard level, side by side.

Run: python -m benchmarks.bench_signed [rounds]
Both read one row by key through the ORM, on the same server, in two databases that differ in nothing else, and
in random order; the figure is the difference of the medians. A second pair of figures adds nine more statements
to the transaction: what each of those pays.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, create_engine, make_url, select
from sqlalchemy.pool import NullPool

from benchmarks.bench_transaction import DATABASE, fill, pin
from tenancy import create_tenant_engine, tenant_scope, tenant_sessionmaker
from tenancy.embedded import start
from tenancy.signing import SigningKey
from tests.conftest import ROLES, Database, bootstrap
from tests.models import Person
from tests.signed import KEY, sign

Row = tuple[UUID, UUID]


def transaction(engine: Engine, statements: int) -> Callable[[Row], None]:
    sessions = tenant_sessionmaker(engine)

    def run(row: Row) -> None:
        tenant, person = row
        with tenant_scope(tenant), sessions() as session:
            for _ in range(statements):
                found = session.execute(select(Person.name).where(Person.id == person)).scalar_one()
                assert found == "Ada"

    return run


def compare(engines: dict[str, Engine], rows: list[Row], *, statements: int, rounds: int) -> float:
    """Print the medians of both sides; return what signing adds to a transaction, in µs."""
    runs = {name: transaction(engine, statements) for name, engine in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs.items())
    for number in range(rounds + 200):
        random.shuffle(order)  # so that neither side always finds the caches as the other left them
        for name, run in order:
            before = time.perf_counter()
            run(rows[number % len(rows)])
            if number >= 200:
                times[name].append(time.perf_counter() - before)
    medians = {name: statistics.median(each) * 1e6 for name, each in times.items()}
    added = medians["signed"] - medians["standard"]
    print(
        f"{statements:2} statements: standard {medians['standard']:.0f} us, signed {medians['signed']:.0f} us, "
        f"{added:+.1f} us a transaction, {added / statements:+.1f} us a statement"
    )
    return added


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder, start(Path(folder) / "pg") as server:
        pin(server)
        rows = fill(server)
        with create_engine(server.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as admin:
            admin.exec_driver_sql(f"CREATE DATABASE signed TEMPLATE {DATABASE}")
        bootstrap(server.url(database="signed"), tables=False)  # a copy belongs to whoever made it
        sign(Database(server, "signed"))
        keys: dict[str, tuple[str, SigningKey | None]] = {"standard": (DATABASE, None), "signed": ("signed", KEY)}
        engines = {
            name: create_tenant_engine(make_url(server.url(role=ROLES.app, database=database)), signing_key=key)
            for name, (database, key) in keys.items()
        }
        one = compare(engines, rows, statements=1, rounds=rounds)
        ten = compare(engines, rows, statements=10, rounds=rounds // 4)
        print(f"each further statement: {(ten - one) / 9:+.1f} us; binding: {one - (ten - one) / 9:+.1f} us")
        for engine in engines.values():
            engine.dispose()


if __name__ == "__main__":
    print(f"on cores {sorted(os.sched_getaffinity(0))}")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
