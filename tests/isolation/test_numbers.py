"""T046: what ids and numbers tell a tenant of the others."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import Engine, MetaData, Text, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.numbers import CounterMixin, next_number
from tenancy.rls import guard_sql, guarded
from tenancy.session import TenantSession, tenant_sessionmaker
from tenancy.tables import TenantTable, TenantUnique, new_id
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Person

Sessions = sessionmaker[TenantSession]
RANDOM = (1 << 62) - 1


class Base(DeclarativeBase):
    metadata = MetaData()


class Counter(CounterMixin, TenantTable, Base):
    __tablename__ = "counters"


class Invoice(TenantTable, Base):
    __tablename__ = "invoices"
    number: Mapped[int]
    title: Mapped[str] = mapped_column(Text, default="")
    __table_args__ = (TenantUnique("number"),)


@pytest.fixture
def engine(fresh_database: Database) -> Iterator[Engine]:
    with fresh_database.connect(ROLES.migrator) as owner:
        owner.execute(
            "CREATE TABLE counters (tenant_id uuid, series text, last bigint, PRIMARY KEY (tenant_id, series))"
        )
        owner.execute(
            "CREATE TABLE invoices (tenant_id uuid, id uuid, number int, title text, PRIMARY KEY (tenant_id, id),"
            " UNIQUE (tenant_id, number))"
        )
        for table in guarded(Base.metadata):
            for statement in guard_sql(table, ROLES):
                owner.execute(statement.encode())
    made = create_tenant_engine(fresh_database.url(ROLES.app))
    yield made
    made.dispose()


def write_invoices(sessions: Sessions, tenant: UUID, count: int) -> None:
    with tenant_scope(tenant):
        for _ in range(count):
            with sessions.begin() as session:
                session.add(Invoice(number=next_number(session, Counter, "invoice")))


def numbers(sessions: Sessions, tenant: UUID) -> list[int]:
    with tenant_scope(tenant), sessions() as session:
        return list(session.scalars(select(Invoice.number).order_by(Invoice.number)))


# Ids


def test_ids_of_one_burst_do_not_count() -> None:
    """T046: two ids of one tenant in one millisecond do not tell how many others took between them."""
    burst = [new_id() for _ in range(5000)]

    steps = [abs((b.int & RANDOM) - (a.int & RANDOM)) for a, b in itertools.pairwise(burst)]
    assert {made.version for made in burst} == {7}
    assert len(set(burst)) == 5000
    assert len({made.int & 0xFFFF_FFFF for made in burst}) > 4990  # nor do they follow from the time
    assert len({made.int >> 80 for made in burst}) < 4000  # many share their millisecond
    # 5,000 random steps of 62 bits below 2**33: one chance in 50,000. A counter steps by 2**32 or so, each time.
    assert min(steps) > 1 << 33


def test_ids_keep_the_order_of_their_making() -> None:
    made = [new_id() for _ in range(2000)]

    out_of_order = sum(a > b for a, b in itertools.pairwise(made))

    assert out_of_order < 20


@pytest.mark.parametrize("between", [0, 1000])
def test_rows_written_by_others_leave_no_mark_in_ones_ids(
    acme: SomeTenant, globex: SomeTenant, sessions: Sessions, between: int
) -> None:
    """T046"""
    ids = []
    for _ in range(2):
        with tenant_scope(acme.id), sessions.begin() as session:
            ids.append(session.scalars(insert(Person).values(name="A", email=str(len(ids))).returning(Person.id)).one())
        if between and len(ids) == 1:
            with tenant_scope(globex.id), sessions.begin() as session:
                session.execute(insert(Person), [{"name": "B", "email": str(n)} for n in range(between)])

    with tenant_scope(globex.id), sessions() as session:
        assert len(session.scalars(select(Person)).all()) == between
    assert abs((ids[1].int & RANDOM) - (ids[0].int & RANDOM)) > 1 << 33


# Numbers


def test_numbers_are_counted_by_tenant_whatever_the_others_write(engine: Engine) -> None:
    """T046"""
    sessions, ours, theirs = tenant_sessionmaker(engine), uuid7(), uuid7()

    write_invoices(sessions, ours, 1)
    write_invoices(sessions, theirs, 50)
    write_invoices(sessions, ours, 1)

    assert numbers(sessions, ours) == [1, 2]
    assert numbers(sessions, theirs) == list(range(1, 51))


def test_numbers_have_no_gap_under_concurrency_and_rollbacks(engine: Engine) -> None:
    """T046"""
    sessions, tenants = tenant_sessionmaker(engine), [uuid7(), uuid7()]

    def work(seed: int) -> int:
        chance, committed = random.Random(seed), 0
        for _ in range(25):
            tenant = chance.choice(tenants)
            with contextlib.suppress(ZeroDivisionError), tenant_scope(tenant), sessions.begin() as session:
                session.add(Invoice(number=next_number(session, Counter, "invoice")))
                session.flush()
                if chance.random() < 0.3:
                    raise ZeroDivisionError
                committed += 1
        return committed

    with ThreadPoolExecutor(4) as pool:
        committed = sum(pool.map(work, range(4)))

    found = [numbers(sessions, tenant) for tenant in tenants]
    assert sum(len(each) for each in found) == committed
    assert 40 < committed < 100
    for each in found:
        assert each == list(range(1, len(each) + 1))


def test_series_of_one_tenant_are_counted_apart(engine: Engine) -> None:
    sessions = tenant_sessionmaker(engine)
    with tenant_scope(uuid7()), sessions.begin() as session:
        drawn = [next_number(session, Counter, series) for series in ("invoice", "offer", "invoice")]

    assert drawn == [1, 1, 2]


def test_counter_of_another_tenant_can_be_neither_read_nor_moved(engine: Engine) -> None:
    """T046: a counter tells how much was written, so it is guarded like any row."""
    sessions, ours, theirs = tenant_sessionmaker(engine), uuid7(), uuid7()
    write_invoices(sessions, theirs, 3)

    with tenant_scope(ours), sessions.begin() as session:
        seen = session.execute(text("SELECT last FROM counters")).all()
        moved = session.execute(text("UPDATE counters SET last = 100")).rowcount  # type: ignore[attr-defined]

    assert (seen, moved) == ([], 0)
    with tenant_scope(theirs), sessions() as session:
        assert session.scalars(select(Counter.last)).all() == [3]
