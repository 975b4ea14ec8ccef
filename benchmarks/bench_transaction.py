"""One-statement tenant transaction against plain SQLAlchemy with a hand-written predicate, side by side.

Run: python -m benchmarks.bench_transaction [rounds]
Both read one row by key, on the same server and in alternation; the figure is the ratio of the medians.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, create_engine, make_url, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from benchmarks.delay_line import DelayLine
from tenancy import create_tenant_engine, tenant_scope, tenant_sessionmaker
from tenancy.embedded import Server, start
from tests.conftest import ROLES, bootstrap
from tests.models import Person

TENANTS, PEOPLE = 20, 200
DATABASE = "bench"


class PlainBase(DeclarativeBase):
    """Models as an application without the library would write them."""


class PlainPerson(PlainBase):
    __tablename__ = "plain_people"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str]


def fill(server: Server) -> list[tuple[UUID, UUID]]:
    """Make the tables and the people; return one (tenant, person) of each tenant."""
    admin = create_engine(server.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {DATABASE}"))
    url = server.url(database=DATABASE)
    bootstrap(url, tables=True)
    chosen = []
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for number in range(TENANTS):
            tenant, people = uuid7(), [uuid7() for _ in range(PEOPLE)]
            connection.execute(
                text("INSERT INTO tenants (tenant_id, slug, name, status) VALUES (:t, :s, :s, 'active')"),
                {"t": tenant, "s": f"tenant-{number}"},
            )
            connection.execute(
                text("INSERT INTO people (tenant_id, id, name, email) VALUES (:t, :p, 'Ada', :e)"),
                [{"t": tenant, "p": person, "e": f"{person}@bench.test"} for person in people],
            )
            chosen.append((tenant, people[0]))
        # The plain side runs without row-level security, as an application without the library would.
        connection.execute(text("CREATE TABLE plain_people (LIKE people INCLUDING ALL)"))
        connection.execute(text("INSERT INTO plain_people SELECT * FROM people"))
        connection.execute(text(f"GRANT SELECT ON plain_people TO {ROLES.app}"))
    with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return chosen


def ours(engine: Engine) -> Callable[[UUID, UUID], None]:
    sessions = tenant_sessionmaker(engine)

    def run(tenant: UUID, person: UUID) -> None:
        with tenant_scope(tenant), sessions() as session:
            assert session.execute(select(Person.name).where(Person.id == person)).scalar_one() == "Ada"

    return run


def plain(engine: Engine) -> Callable[[UUID, UUID], None]:
    sessions: sessionmaker[Session] = sessionmaker(engine)

    def run(tenant: UUID, person: UUID) -> None:
        with sessions() as session:
            found = session.execute(
                select(PlainPerson.name).where(PlainPerson.tenant_id == tenant, PlainPerson.id == person)
            )
            assert found.scalar_one() == "Ada"
            session.commit()

    return run


def compare(
    label: str,
    left: Callable[[UUID, UUID], None],
    right: Callable[[UUID, UUID], None],
    rows: list[tuple[UUID, UUID]],
    rounds: int,
) -> None:
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 200):
        for side, run in enumerate((left, right)):
            before = time.perf_counter()
            run(*rows[number % len(rows)])
            if number >= 200:
                times[side].append(time.perf_counter() - before)
    medians = [statistics.median(side) * 1e6 for side in times]
    print(f"{label}: ours {medians[0]:.0f} us, plain {medians[1]:.0f} us, ratio {medians[0] / medians[1]:.2f}")


def pin(server: Server) -> None:
    """Give the server one core and this process another: a backend that changes cores changes the figures by half."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1 and server.data_dir is not None:
        postmaster = int((server.data_dir / "cluster" / "postmaster.pid").read_text().split()[0])
        os.sched_setaffinity(postmaster, {cores[1]})
        os.sched_setaffinity(0, {cores[0]})


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder, start(Path(folder) / "pg", tcp_port=0) as server:
        pin(server)
        rows = fill(server)
        server.set_password(ROLES.app, "bench-only")
        url = server.url(role=ROLES.app, database=DATABASE)
        compare("unix socket", ours(create_tenant_engine(url)), plain(create_engine(url)), rows, rounds)
        tcp = make_url(server.tcp_url(role=ROLES.app, database=DATABASE))
        with DelayLine(("127.0.0.1", int(tcp.port or 0)), delay_s=0.0005) as line:
            through = tcp.set(port=line.port)
            compare(
                "tcp, 0.5 ms each way",
                ours(create_tenant_engine(through)),
                plain(create_engine(through)),
                rows,
                rounds // 4,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
