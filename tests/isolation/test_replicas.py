"""Reading scopes on a real standby: each tenant sees its own rows, and all that was written before it looked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, delete, func, insert, select, text
from sqlalchemy.orm import Session, sessionmaker
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.errors import ScopeError, WrongTenantError
from tenancy.replicas import ReplicaRules, position_of, replicas_of
from tenancy.session import tenant_sessionmaker
from tests.conftest import ROLES
from tests.isolation.standby import Pair, start_pair
from tests.models import Person

ACME, GLOBEX = UUID(int=1 << 64), UUID(int=2 << 64)
NAMES = select(Person.name).order_by(Person.name)
IS_REPLICA = text("SELECT pg_is_in_recovery()")
PATIENT_S = 20.0


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Ada is in acme and Eve in globex, on both servers."""
    with start_pair() as started:
        with started.primary.connect("postgres") as truth:
            for tenant, name in ((ACME, "Ada"), (GLOBEX, "Eve")):
                truth.execute(
                    "INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, %s, %s, 'active')",
                    [tenant, f"t{tenant.int >> 64}", name],
                )
                truth.execute(
                    "INSERT INTO people (tenant_id, id, name, email) VALUES (%s, %s, %s, 'e')", [tenant, uuid7(), name]
                )
        started.catch_up()
        yield started


@contextmanager
def engine_with_replica(pair: Pair, role: str = ROLES.app, **rules: float) -> Iterator[Engine]:
    engine = create_tenant_engine(
        pair.primary.url(role), replicas=[pair.standby.url(role)], replica_rules=ReplicaRules(**rules)
    )
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture
def engine(pair: Pair) -> Iterator[Engine]:
    with engine_with_replica(pair, look_every_s=0.05, wait_s=5) as engine:
        wait_for_replica(engine)
        yield engine


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Any]:
    return tenant_sessionmaker(engine)


def reads_from_replica(engine: Engine) -> bool:
    with tenant_scope(ACME, reads_only=True), tenant_sessionmaker(engine)() as session:
        return bool(session.scalar(IS_REPLICA))


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT_S
    while not claim():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def wait_for_replica(engine: Engine) -> None:
    wait_until(lambda: reads_from_replica(engine))


@contextmanager
def replay_paused(pair: Pair) -> Iterator[None]:
    with pair.standby.connect("postgres") as truth:
        truth.autocommit = True
        truth.execute("SELECT pg_wal_replay_pause()")
        wait_until(lambda: truth.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",))
        try:
            yield
        finally:
            truth.execute("SELECT pg_wal_replay_resume()")


@pytest.mark.parametrize(("tenant", "own"), [(ACME, ["Ada"]), (GLOBEX, ["Eve"])])
def test_reading_scope_reads_its_tenant_only_on_the_replica(
    sessions: sessionmaker[Any], tenant: UUID, own: list[str]
) -> None:
    with tenant_scope(tenant, reads_only=True), sessions() as session:
        found = session.scalars(NAMES).all()
        is_replica = session.scalar(IS_REPLICA)

    assert (found, is_replica) == (own, True)
