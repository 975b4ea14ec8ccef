"""Replicas: their rules, what a look at one decides, and what reading from one costs."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tenancy.binding import create_async_tenant_engine, create_tenant_engine
from tenancy.budgets import WorkBudget
from tenancy.context import account_scope, tenant_scope
from tenancy.errors import ConfigurationError, NoTenantError, ScopeError, TenantBusyError
from tenancy.replicas import Replica, ReplicaRules, position_of, replicas_of
from tenancy.session import async_tenant_sessionmaker, tenant_sessionmaker
from tests.conftest import ROLES
from tests.isolation.standby import Pair, start_pair
from tests.models import Person
from tests.tenancy.test_driver_flights import CountingProxy

ACME = UUID(int=1 << 64)
IS_REPLICA = text("SELECT pg_is_in_recovery()")
SEEN = {"recovers": True, "identity": "7", "started_at": "noon", "replayed": "0/3000060", "lag_s": 0.0}


@pytest.mark.parametrize(
    "values",
    [
        {"wait_s": -1},
        {"wait_s": 61},
        {"wait_s": float("nan")},
        {"max_lag_s": 0},
        {"max_lag_s": float("inf")},
        {"look_every_s": 0},
    ],
)
def test_rule_that_bounds_nothing_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        ReplicaRules(**values)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("postgresql+psycopg2://app@/db", {}),
        ("postgresql+psycopg://app@/db", {"isolation_level": "AUTOCOMMIT"}),
    ],
)
def test_replica_is_refused_what_a_tenant_engine_is(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        create_tenant_engine("postgresql+psycopg://app@/db", replicas=[url], **options)


# What a look decides ----------------------------------------------------------------------------------


@pytest.fixture
def replica() -> Replica:
    return Replica(create_engine("postgresql+psycopg://app@/db"), ReplicaRules(look_every_s=0.1), {})


def test_replica_is_unfit_until_it_was_seen(replica: Replica) -> None:
    before = replica.is_healthy
    replica.see(SEEN, "7", asked_at=time.monotonic())

    assert (before, replica.is_healthy, replica.replayed) == (False, True, 0x3000060)


@pytest.mark.parametrize(
    "found",
    [{"recovers": False, "replayed": None}, {"identity": "8"}, {"lag_s": 10.1}, {"lag_s": float("inf")}],
    ids=str,
)
def test_server_that_may_not_be_read_is_set_aside(replica: Replica, found: dict[str, object]) -> None:
    replica.see(SEEN, "7", asked_at=time.monotonic())

    is_fit = replica.see(SEEN | found, "7", asked_at=time.monotonic())

    assert (is_fit, replica.is_healthy) == (False, False)


def test_replica_that_was_not_seen_for_three_looks_is_not_read(replica: Replica) -> None:
    """As of a server that hangs: its answer does not come."""
    replica.see(SEEN, "7", asked_at=time.monotonic() - 0.31)

    assert not replica.is_healthy


def test_answer_that_overtook_another_takes_nothing_back(replica: Replica) -> None:
    for replayed in ("0/3000060", "0/3000020"):
        replica.see(SEEN | {"replayed": replayed}, "7", asked_at=time.monotonic())

    assert replica.replayed == 0x3000060


def test_server_that_was_restarted_is_as_far_as_it_says(replica: Replica) -> None:
    replica.see(SEEN, "7", asked_at=time.monotonic())
    replica.see(SEEN | {"started_at": "later", "replayed": "0/3000020"}, "7", asked_at=time.monotonic())

    assert replica.replayed == 0x3000020


# Engines ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Ada is in acme, on both servers, which also listen on a port each."""
    with start_pair(tcp=True) as started:
        with started.primary.connect("postgres") as truth:
            truth.execute(
                "INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, 'acme', 'A', 'active')", [ACME]
            )
            truth.execute(
                "INSERT INTO people (tenant_id, id, name, email) VALUES (%s, %s, 'Ada', 'e')", [ACME, UUID(int=9)]
            )
        started.catch_up()
        yield started


@contextmanager
def engine_of(primary: str, replica: str, *, rules: ReplicaRules, **options: Any) -> Iterator[Engine]:
    engine = create_tenant_engine(primary, replicas=[replica], replica_rules=rules, **options)
    try:
        wait_until(lambda: read(engine, IS_REPLICA) is True)
        yield engine
    finally:
        engine.dispose()


def read(engine: Engine, statement: Any) -> object:
    with tenant_scope(ACME, reads_only=True), tenant_sessionmaker(engine)() as session:
        return session.scalar(statement)


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not claim():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


@contextmanager
def counted(url: str) -> Iterator[tuple[str, CountingProxy]]:
    """A URL that leads to the server through a proxy."""
    parsed = make_url(url)
    assert parsed.port is not None
    proxy = CountingProxy(parsed.port)
    through = parsed.set(port=proxy.port).update_query_dict({"sslmode": "disable", "gssencmode": "disable"})
    try:
        yield through.render_as_string(hide_password=False), proxy
    finally:
        proxy.close()


def tcp_urls(pair: Pair) -> tuple[str, str]:
    pair.primary.server.set_password(ROLES.app, "flights")
    pair.catch_up()
    primary = pair.primary.server.tcp_url(role=ROLES.app)
    port = pair.standby.server.tcp_port
    return primary, make_url(primary).set(port=port).render_as_string(hide_password=False)


def test_read_from_a_replica_takes_two_flights_and_none_to_the_primary(pair: Pair) -> None:
    primary, standby = tcp_urls(pair)
    calm = ReplicaRules(look_every_s=60)  # no look meanwhile
    with (
        counted(primary) as (primary_url, to_primary),
        counted(standby) as (replica_url, to_replica),
        engine_of(primary_url, replica_url, rules=calm) as engine,
    ):
        before = (to_primary.flights, to_replica.flights)
        for _ in range(3):
            assert read(engine, select(Person.name)) == "Ada"
        found = (to_primary.flights - before[0], to_replica.flights - before[1])

    assert found == (0, 6)


def test_read_of_what_is_known_to_be_replayed_takes_no_more_flights_after_a_write(pair: Pair) -> None:
    primary, standby = tcp_urls(pair)
    rules = ReplicaRules(look_every_s=60, wait_s=20)
    with counted(primary) as (primary_url, to_primary), engine_of(primary_url, standby, rules=rules) as engine:
        sessions = tenant_sessionmaker(engine)

        def write() -> None:
            with tenant_scope(ACME), sessions.begin() as session:
                session.execute(text("UPDATE people SET name = name"))

        write()
        before = to_primary.flights
        write()
        written_in = to_primary.flights - before
        first = read(engine, IS_REPLICA)  # waits: somebody looks on another connection
        second = read(engine, IS_REPLICA)

    assert written_in == 2
    assert (first, second) == (True, True)


def test_tenant_s_budget_holds_over_all_servers(pair: Pair) -> None:
    with engine_of(
        pair.primary.url(ROLES.app),
        pair.standby.url(ROLES.app),
        rules=ReplicaRules(look_every_s=0.1),
        budget_of=lambda _: WorkBudget(concurrency=1, wait_s=0, statement_timeout_s=7),
    ) as engine:
        sessions = tenant_sessionmaker(engine)
        with tenant_scope(ACME, reads_only=True), sessions() as reading:
            found = [reading.scalar(IS_REPLICA), reading.scalar(text("SELECT current_setting('statement_timeout')"))]
            with tenant_scope(ACME, reads_only=False), sessions() as writing, pytest.raises(TenantBusyError):
                writing.scalar(IS_REPLICA)

    assert found == [True, "7s"]


def test_engine_reads_on_after_it_was_disposed_of(pair: Pair) -> None:
    with engine_of(
        pair.primary.url(ROLES.app), pair.standby.url(ROLES.app), rules=ReplicaRules(look_every_s=0.05)
    ) as engine:
        engine.dispose()
        time.sleep(0.2)  # what was seen before is too old by now

        assert read(engine, IS_REPLICA) is False
        wait_until(lambda: read(engine, IS_REPLICA) is True)


def test_threads_end_with_the_engine_s_disposal(pair: Pair) -> None:
    def looking() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "tenancy-replica"]

    with engine_of(pair.primary.url(ROLES.app), pair.standby.url(ROLES.app), rules=ReplicaRules(look_every_s=60)):
        while_open = len(looking())
    wait_until(lambda: not looking())

    assert while_open == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_child_looks_for_itself(pair: Pair) -> None:
    rules = ReplicaRules(look_every_s=0.05)
    with engine_of(pair.primary.url(ROLES.app), pair.standby.url(ROLES.app), rules=rules) as engine:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            time.sleep(0.3)  # what its parent saw is too old by now
            found = [read(engine, IS_REPLICA)]
            wait_until(lambda: read(engine, IS_REPLICA) is True)
            os.write(writer, str([*found, read(engine, IS_REPLICA)]).encode())
            os._exit(0)
        os.waitpid(child, 0)
        of_child = os.read(reader, 100).decode()
        of_parent = read(engine, IS_REPLICA)
    os.close(reader)
    os.close(writer)

    assert (of_child, of_parent) == ("[False, True]", True)


def test_replicas_take_turns(pair: Pair) -> None:
    standby = pair.standby.url(ROLES.app)
    engine = create_tenant_engine(
        pair.primary.url(ROLES.app), replicas=[standby, standby], replica_rules=ReplicaRules(look_every_s=0.05)
    )
    with tenant_scope(ACME), tenant_sessionmaker(engine)() as session:
        session.scalar(IS_REPLICA)
    read(engine, IS_REPLICA)
    wait_until(lambda: all(replica.is_healthy for replica in replicas_of(engine)))

    backends = {read(engine, text("SELECT pg_backend_pid()")) for _ in range(4)}
    engine.dispose()

    assert len(backends) == 2


def test_asynchronous_engine_reads_its_own_writes_from_the_replica(pair: Pair) -> None:
    async def story() -> tuple[list[bool], list[str], str]:
        engine = create_async_tenant_engine(
            pair.primary.url(ROLES.app),
            replicas=[pair.standby.url(ROLES.app)],
            replica_rules=ReplicaRules(look_every_s=0.05, wait_s=10),
        )
        sessions = async_tenant_sessionmaker(engine)
        servers, names = [], []
        await until_replica(engine)
        for name in ("Bea", "Cid", "Ada"):
            with tenant_scope(ACME):
                async with sessions.begin() as session:
                    await session.execute(text("UPDATE people SET name = :name"), {"name": name})
            with tenant_scope(ACME, reads_only=True):
                async with sessions() as session:
                    servers.append(bool(await session.scalar(IS_REPLICA)))
                    names.append(str(await session.scalar(select(Person.name))))
        with tenant_scope(ACME, reads_only=True), pytest.raises(ScopeError) as caught:
            async with sessions() as session:
                await session.execute(text("UPDATE people SET name = 'x'"))
        await engine.dispose()
        return servers, names, caught.value.message

    async def until_replica(engine: AsyncEngine) -> None:
        deadline = time.monotonic() + 20
        while True:
            with tenant_scope(ACME, reads_only=True):
                async with async_tenant_sessionmaker(engine)() as session:
                    if await session.scalar(IS_REPLICA):
                        return
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    servers, names, message = asyncio.run(story())

    assert (servers, names) == ([True, True, True], ["Bea", "Cid", "Ada"])
    assert "reading only" in message


def test_position_needs_a_scope_and_is_zero_without_replicas(pair: Pair) -> None:
    engine = create_tenant_engine(pair.primary.url(ROLES.app))

    with pytest.raises(NoTenantError):
        position_of(engine)
    with tenant_scope(ACME):
        of_tenant = position_of(engine)
    with account_scope(UUID(int=5)):
        of_account = position_of(engine)

    assert (of_tenant, of_account, replicas_of(engine)) == (0, 0, ())
