"""Reads from a streaming standby: what routing costs, and what it costs to read what was just written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, select, text, update
from uuid_utils.compat import uuid7

from benchmarks.bench import ROLES, Bench, pin
from benchmarks.figures import Goal, Part, Row, counted
from benchmarks.measuring import interleave, row
from tenancy import create_tenant_engine, tenant_scope, tenant_sessionmaker
from tenancy.replicas import ReplicaRules, replicas_of
from tests.isolation.standby import Pair, start_pair
from tests.models import Person

PRIMARY, STANDBY, ROUTED = "the primary alone", "the standby alone", "replicas=, reading scope"
WRITING, UNAWARE = "with replicas=", "without"
TENANTS, PEOPLE = 10, 100
HOW = (
    "A primary and a streaming standby made by pg_basebackup, both on the server's core, by the socket. The point read "
    "is the transaction of one statement, in a scope with `reads_only=True`, on an engine of one server, and on "
    "one that is given the standby as `replicas=`. The update shows what it costs to note how far the log went. In the "
    "last row each round updates a person and reads her back in a reading scope: the standby answers once it has "
    "replayed that far, and after the bound the primary does."
)


def run(bench: Bench) -> Iterator[Row]:
    with ExitStack() as stack:
        pair = stack.enter_context(start_pair())
        for database in (pair.primary, pair.standby):
            pin(database.server)
        tenants = _fill(pair)
        engines = {
            PRIMARY: create_tenant_engine(pair.primary.url(ROLES.app)),
            STANDBY: create_tenant_engine(pair.standby.url(ROLES.app)),
            ROUTED: create_tenant_engine(
                pair.primary.url(ROLES.app),
                replicas=[pair.standby.url(ROLES.app)],
                replica_rules=ReplicaRules(look_every_s=0.05, wait_s=1),
            ),
        }
        for engine in engines.values():
            stack.callback(engine.dispose)
        _wait_for_standby(engines[ROUTED], tenants[0][0])
        yield row(
            "point read",
            interleave(
                {name: _reading(engine, tenants) for name, engine in engines.items()},
                rounds=bench.rounds(800),
                budget_s=bench.budget(12),
                warm_up=30,
            ),
            baseline=PRIMARY,
            goals=(Goal(ROUTED, at_most=1.10),),
        )
        writers = {UNAWARE: engines[PRIMARY], WRITING: engines[ROUTED]}
        yield row(
            "update",
            interleave(
                {name: _writing(engine, tenants) for name, engine in writers.items()},
                rounds=bench.rounds(800),
                budget_s=bench.budget(12),
                warm_up=30,
            ),
            baseline=UNAWARE,
        )
        where: list[bool] = []
        yield row(
            "update, then read it back",
            interleave(
                {
                    PRIMARY: _reading_back(engines[PRIMARY], tenants, None),
                    ROUTED: _reading_back(engines[ROUTED], tenants, where),
                },
                rounds=bench.rounds(400),
                budget_s=bench.budget(12),
            ),
            baseline=PRIMARY,
        )
        answered = 100 * sum(where) / len(where)
        yield counted("update, then read it back: answered by", "%", "", {"the standby": answered})


def _fill(pair: Pair) -> list[tuple[UUID, list[UUID]]]:
    tenants = [(uuid7(), [uuid7() for _ in range(PEOPLE)]) for _ in range(TENANTS)]
    with closing(pair.primary.connect("postgres")) as admin:
        for number, (tenant, people) in enumerate(tenants):
            admin.execute(
                "INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, %s, 'T', 'active')",
                [tenant, f"t{number}"],
            )
            with admin.cursor().copy("COPY people (tenant_id, id, name, email) FROM STDIN") as copy:
                for person in people:
                    copy.write_row((tenant, person, "Ada Lovelace", f"{person.hex}@bench.test"))
        admin.commit()
        admin.autocommit = True
        admin.execute("VACUUM ANALYZE people")
    pair.catch_up()
    return tenants


def _wait_for_standby(engine: Engine, tenant: UUID) -> None:
    deadline = time.monotonic() + 20
    while not _is_standby(engine, tenant):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the standby is not read from: {replicas_of(engine)}")
        time.sleep(0.02)


def _is_standby(engine: Engine, tenant: UUID) -> bool:
    with tenant_scope(tenant, reads_only=True), tenant_sessionmaker(engine)() as session:
        return bool(session.scalar(text("SELECT pg_is_in_recovery()")))


def _reading(engine: Engine, tenants: list[tuple[UUID, list[UUID]]]) -> Callable[[int], Any]:
    sessions = tenant_sessionmaker(engine)

    def read(number: int) -> None:
        tenant, people = tenants[number % TENANTS]
        with tenant_scope(tenant, reads_only=True), sessions.begin() as session:
            assert session.scalar(select(Person.name).where(Person.id == people[number % PEOPLE]))

    return read


def _writing(engine: Engine, tenants: list[tuple[UUID, list[UUID]]]) -> Callable[[int], Any]:
    sessions = tenant_sessionmaker(engine)

    def write(number: int) -> None:
        tenant, people = tenants[number % TENANTS]
        with tenant_scope(tenant), sessions.begin() as session:
            session.execute(_renaming(people[number % PEOPLE], number))

    return write


def _reading_back(
    engine: Engine, tenants: list[tuple[UUID, list[UUID]]], where: list[bool] | None
) -> Callable[[int], Any]:
    """where: is told for each round whether the standby answered."""
    sessions = tenant_sessionmaker(engine)

    def write_and_read(number: int) -> None:
        tenant, people = tenants[number % TENANTS]
        person = people[number % PEOPLE]
        with tenant_scope(tenant), sessions.begin() as session:
            session.execute(_renaming(person, number))
        with tenant_scope(tenant, reads_only=True), sessions.begin() as session:
            found = session.execute(select(Person.name, text("pg_is_in_recovery()")).where(Person.id == person)).one()
        assert found[0] == f"Person {number}", "what was just written was not read back"
        if where is not None:
            where.append(bool(found[1]))

    return write_and_read


def _renaming(person: UUID, number: int) -> Any:
    return (
        update(Person)
        .where(Person.id == person)
        .values(name=f"Person {number}")
        .execution_options(synchronize_session=False)
    )


PART = Part("replica", "Reads from a standby", HOW, rows=4, run=run)
