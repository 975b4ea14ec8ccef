"""Reading scopes on a real standby: each tenant sees its own rows, and all that was written before it looked."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, delete, func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session, sessionmaker
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.embedded import start
from tenancy.errors import ScopeError, UnsafeConnectionError, WrongTenantError
from tenancy.positions import POSITION_SQL, parse_position
from tenancy.replicas import ReplicaRules, position_of, replicas_of
from tenancy.session import tenant_sessionmaker
from tests import signed
from tests.conftest import ROLES, Database
from tests.isolation.standby import ACME, FOLLOWING, GLOBEX, Pair, start_filled_pair, start_pair
from tests.models import Person
from tests.signed import KEY, fill, sign

NAMES = select(Person.name).order_by(Person.name)
IS_REPLICA = text("SELECT pg_is_in_recovery()")
PATIENT_S = 20.0


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with start_filled_pair() as started:
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


def test_writing_scope_and_core_connection_stay_on_the_primary(engine: Engine, sessions: sessionmaker[Any]) -> None:
    with tenant_scope(ACME), sessions() as session:
        of_writing_scope = session.scalar(IS_REPLICA)
    with tenant_scope(ACME, reads_only=True), engine.connect() as connection:
        of_connection = connection.scalar(IS_REPLICA)

    assert (of_writing_scope, of_connection) == (False, False)


def test_engine_without_replicas_reads_the_primary_in_a_reading_scope(pair: Pair) -> None:
    engine = create_tenant_engine(pair.primary.url(ROLES.app))

    with tenant_scope(ACME, reads_only=True), tenant_sessionmaker(engine)() as session:
        found = (session.scalar(IS_REPLICA), session.scalars(NAMES).all())
    engine.dispose()

    assert found == (False, ["Ada"])


# Writes -----------------------------------------------------------------------------------------------


def flush_person(session: Session) -> None:
    session.add(Person(name="New", email="n"))
    session.flush()


WRITES: dict[str, Callable[[Session], object]] = {
    "flush": flush_person,
    "insert": lambda session: session.execute(insert(Person).values(name="New", email="n")),
    "delete": lambda session: session.execute(delete(Person)),
    "lock": lambda session: session.execute(select(Person.name).with_for_update()),
}


@pytest.mark.parametrize("with_replica", [True, False], ids=["replica", "primary"])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_write_in_a_reading_scope_is_refused_on_either_server(
    pair: Pair, engine: Engine, write: Callable[[Session], object], with_replica: bool
) -> None:
    bare = create_tenant_engine(pair.primary.url(ROLES.app))
    sessions = tenant_sessionmaker(engine if with_replica else bare)
    with tenant_scope(ACME), sessions() as session:
        write(session)  # what may be done is undone

    with (
        tenant_scope(ACME, reads_only=True),
        sessions() as session,
    ):
        is_replica = session.scalar(IS_REPLICA)
        with pytest.raises(
            ScopeError, match=r"the statement writes or locks, and the scope is .*reading only"
        ) as caught:
            write(session)
    bare.dispose()

    assert is_replica is with_replica
    assert "reads_only=False" in caught.value.hint


def test_core_write_in_a_reading_scope_is_refused(engine: Engine) -> None:
    with (
        tenant_scope(ACME, reads_only=True),
        engine.connect() as connection,
        pytest.raises(ScopeError, match="reading only"),
    ):
        connection.execute(insert(Person).values(name="New", email="n"))


def test_option_to_write_does_not_outdo_the_scope(sessions: sessionmaker[Any]) -> None:
    with tenant_scope(ACME, reads_only=True), sessions() as session:
        session.connection(execution_options={"postgresql_readonly": False})
        with pytest.raises(ScopeError, match="reading only"):
            session.execute(delete(Person))


def test_driver_s_own_transaction_block_in_a_reading_scope_only_reads(engine: Engine) -> None:
    with tenant_scope(ACME, reads_only=True):
        raw = engine.raw_connection()
        driver: Any = raw.driver_connection
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), driver.transaction():
            driver.execute("UPDATE people SET name = name")
        raw.close()


def test_scope_within_a_reading_scope_reads_only_unless_it_says_that_it_writes(sessions: sessionmaker[Any]) -> None:
    with tenant_scope(ACME, reads_only=True):
        with tenant_scope(ACME), sessions() as session, pytest.raises(ScopeError):
            session.execute(delete(Person))
        with tenant_scope(ACME, reads_only=False), sessions() as session:
            assert session.execute(delete(Person)).rowcount == 1  # rolled back by the session's end


def test_session_of_a_reading_scope_is_refused_in_a_writing_one_within(sessions: sessionmaker[Any]) -> None:
    with (
        tenant_scope(ACME, reads_only=True),
        sessions() as session,
        tenant_scope(ACME, reads_only=False),
        pytest.raises(WrongTenantError, match="reading only"),
    ):
        session.scalars(NAMES)


# Reading one's own writes -----------------------------------------------------------------------------


def add_person(sessions: sessionmaker[Any], tenant: UUID, name: str) -> None:
    with tenant_scope(tenant), sessions.begin() as session:
        session.add(Person(name=name, email=uuid7().hex))


def forget_people(pair: Pair) -> None:
    with pair.primary.connect("postgres") as truth:
        truth.execute("DELETE FROM people WHERE name NOT IN ('Ada', 'Eve')")


def test_every_read_sees_what_was_written_before_it_however_replay_goes(pair: Pair) -> None:
    """200 rounds, in which the standby is now behind and now caught up."""
    chance = random.Random(20)
    count = select(func.count()).select_from(Person)
    expected, servers = {ACME: 1, GLOBEX: 1}, set()
    with (
        engine_with_replica(pair, look_every_s=0.05, wait_s=0.02, max_lag_s=1000) as engine,
        pair.standby.connect("postgres") as truth,
    ):
        truth.autocommit = True
        sessions = tenant_sessionmaker(engine)
        wait_for_replica(engine)
        try:
            for _ in range(200):
                if chance.random() < 0.2:
                    truth.execute(f"SELECT pg_wal_replay_{chance.choice(['pause', 'resume'])}()")
                tenant = chance.choice([ACME, GLOBEX])
                if chance.random() < 0.7:
                    add_person(sessions, tenant, "Written")
                    expected[tenant] += 1
                reader = chance.choice([ACME, GLOBEX])
                with tenant_scope(reader, reads_only=True), sessions() as session:
                    servers.add(session.scalar(IS_REPLICA))
                    assert session.scalar(count) == expected[reader]
        finally:
            truth.execute("SELECT pg_wal_replay_resume()")
    forget_people(pair)

    assert servers == {True, False}


def test_read_goes_to_the_primary_when_the_wait_is_over(pair: Pair) -> None:
    with engine_with_replica(pair, look_every_s=0.05, wait_s=0.2, max_lag_s=1000) as engine:
        sessions = tenant_sessionmaker(engine)
        wait_for_replica(engine)
        with replay_paused(pair):
            add_person(sessions, ACME, "Late")
            began = time.monotonic()
            with tenant_scope(ACME, reads_only=True), sessions() as session:
                found = (session.scalars(NAMES).all(), session.scalar(IS_REPLICA))
            waited_s = time.monotonic() - began
            with tenant_scope(GLOBEX, reads_only=True), sessions() as session:
                of_another_tenant = session.scalar(IS_REPLICA)
            replica = replicas_of(engine)[0]
            in_vain = replica.waited_in_vain_at == replica.replayed
    forget_people(pair)

    assert found == (["Ada", "Late"], False)
    assert waited_s >= 0.2
    assert of_another_tenant is True
    assert in_vain


def test_read_waits_for_the_replica_to_move_on(pair: Pair, engine: Engine, sessions: sessionmaker[Any]) -> None:
    with replay_paused(pair):
        add_person(sessions, ACME, "Soon")
        resume = threading.Timer(0.2, pair_resume, args=[pair])
        resume.start()
        with tenant_scope(ACME, reads_only=True), sessions() as session:
            found = (session.scalars(NAMES).all(), session.scalar(IS_REPLICA))
        resume.join()
    forget_people(pair)

    assert found == (["Ada", "Soon"], True)


def pair_resume(pair: Pair) -> None:
    with pair.standby.connect("postgres") as truth:
        truth.execute("SELECT pg_wal_replay_resume()")


def test_position_carries_a_write_to_another_process(pair: Pair, engine: Engine) -> None:
    """Two engines know as little of each other as two processes do."""
    with engine_with_replica(pair, look_every_s=0.05, wait_s=0, max_lag_s=1000) as other:
        wait_for_replica(other)
        with replay_paused(pair):
            add_person(tenant_sessionmaker(engine), ACME, "Told")
            with tenant_scope(ACME):
                position = position_of(engine)
            found = []
            for after in (None, position):
                with tenant_scope(ACME, reads_only=True, after=after), tenant_sessionmaker(other)() as session:
                    found.append(session.scalars(NAMES).all())
    forget_people(pair)

    assert found == [["Ada"], ["Ada", "Told"]]


def test_write_that_fills_its_page_is_known_to_have_arrived(pair: Pair) -> None:
    """The primary names a position past the next page's header; the standby stays before it until more is written."""
    fill = "SELECT pg_logical_emit_message(false, '', repeat('a', %s), true)"
    with pair.primary.connect("postgres") as primary, pair.standby.connect("postgres") as standby:
        primary.autocommit = standby.autocommit = True
        named, deadline = "", time.monotonic() + PATIENT_S
        while not named.endswith(("2018", "4018", "6018", "8018", "A018", "C018", "E018")):
            assert time.monotonic() < deadline, "no write has filled its page"
            primary.execute(fill, [random.randrange(0, 64, 8)])
            named = str(primary.execute(POSITION_SQL).fetchone()[0])  # type: ignore[index]

        def replayed() -> str:
            return str(standby.execute("SELECT pg_last_wal_replay_lsn()::text").fetchone()[0])  # type: ignore[index]

        wait_until(lambda: parse_position(replayed()) >= parse_position(named))


def test_write_by_a_driver_s_own_transaction_block_is_noted(engine: Engine) -> None:
    with tenant_scope(ACME):
        before = position_of(engine)
        raw = engine.raw_connection()
        with raw.driver_connection.transaction():  # type: ignore[union-attr]
            raw.driver_connection.execute("UPDATE people SET name = name")  # type: ignore[union-attr]
        raw.close()
        after = position_of(engine)

    assert after > before


def test_transaction_that_only_reads_or_is_rolled_back_notes_nothing(engine: Engine) -> None:
    tenant = UUID(int=3 << 64)
    sessions = tenant_sessionmaker(engine)

    with tenant_scope(tenant):
        with sessions.begin() as session:
            session.scalars(NAMES).all()
        with sessions() as session:
            session.execute(delete(Person))
            session.rollback()
        position = position_of(engine)

    assert position == 0


def test_commit_that_fails_raises_what_it_did_and_notes_nothing(pair: Pair, engine: Engine) -> None:
    tenant = UUID(int=4 << 64)
    constraint = "ALTER TABLE people ALTER CONSTRAINT fk_people_tenant_id_company_id"
    with pair.primary.connect("postgres") as truth:
        truth.execute(
            "INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, 't4', 'T', 'active')"
            " ON CONFLICT DO NOTHING",
            [tenant],
        )
        truth.execute(f"{constraint} DEFERRABLE INITIALLY DEFERRED")
    sessions = tenant_sessionmaker(engine)

    with tenant_scope(tenant):
        with pytest.raises(IntegrityError, match="violates foreign key"), sessions.begin() as session:
            session.add(Person(name="Lost", email="l", company_id=uuid7()))
        position = position_of(engine)
        with sessions() as session:
            found = session.scalars(NAMES).all()
    with pair.primary.connect("postgres") as truth:
        truth.execute(f"{constraint} NOT DEFERRABLE")

    assert (position, found) == (0, [])


def test_write_whose_commit_was_not_answered_is_read_on_the_primary(pair: Pair, engine: Engine) -> None:
    """Nobody knows whether it happened, so no replica is trusted to show it."""
    sessions = tenant_sessionmaker(engine)

    with tenant_scope(ACME), sessions() as session:
        session.add(Person(name="Perhaps", email=uuid7().hex))
        session.flush()
        terminate_backend(pair.primary, session)
        with pytest.raises(DBAPIError, match="terminating connection"):
            session.commit()
    with tenant_scope(ACME, reads_only=True), sessions() as session:
        of_the_tenant = session.scalar(IS_REPLICA)
    with tenant_scope(GLOBEX, reads_only=True), sessions() as session:
        of_another = session.scalar(IS_REPLICA)

    assert (of_the_tenant, of_another) == (False, True)


def terminate_backend(server: Database, session: Session) -> None:
    pid = session.scalar(text("SELECT pg_backend_pid()"))
    with server.connect("postgres") as truth:
        truth.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def backend_of_primary(sessions: sessionmaker[Any]) -> object:
    with tenant_scope(ACME), sessions() as session:
        return session.scalar(text("SELECT pg_backend_pid()"))


# Failing replicas -------------------------------------------------------------------------------------


@pytest.fixture
def doomed() -> Iterator[Pair]:
    """A pair of the test's own, with nobody in it."""
    with start_pair() as started:
        yield started


def test_reads_go_to_the_primary_while_the_replica_is_down_and_back_when_it_is_up(doomed: Pair) -> None:
    with engine_with_replica(doomed, look_every_s=0.05) as engine:
        wait_for_replica(engine)
        sessions = tenant_sessionmaker(engine)
        before = backend_of_primary(sessions)
        server = doomed.standby.server
        server.close()
        wait_until(lambda: not replicas_of(engine)[0].is_healthy)
        while_down = [reads_from_replica(engine) for _ in range(3)]
        after = backend_of_primary(sessions)
        assert server.data_dir is not None
        with start(server.data_dir, settings=FOLLOWING):
            wait_for_replica(engine)

    assert while_down == [False, False, False]
    assert after == before  # the primary's connections outlived it


def test_replica_that_dies_in_a_transaction_is_its_caller_s_error_and_the_next_read_goes_on(pair: Pair) -> None:
    with engine_with_replica(pair, look_every_s=5) as engine:
        wait_for_replica(engine)
        sessions = tenant_sessionmaker(engine)
        before = backend_of_primary(sessions)
        with tenant_scope(ACME, reads_only=True), sessions() as session:
            terminate_backend(pair.standby, session)
            with pytest.raises(DBAPIError, match="terminating connection"):
                session.scalars(NAMES)
        after = backend_of_primary(sessions)
        is_healthy = replicas_of(engine)[0].is_healthy
        with tenant_scope(ACME, reads_only=True), sessions() as session:
            found = (session.scalars(NAMES).all(), session.scalar(IS_REPLICA))

    assert not is_healthy
    assert found == (["Ada"], False)
    assert after == before  # the primary's pool is none the worse for it


def test_replica_that_takes_no_more_connections_falls_back_within_the_call(pair: Pair) -> None:
    """It was healthy when last seen; the primary answers the same call."""
    with engine_with_replica(pair, look_every_s=5) as engine:
        wait_for_replica(engine)
        replica = replicas_of(engine)[0]
        replica.engine.dispose()
        with pair.primary.connect("postgres") as truth:
            truth.execute(f"ALTER ROLE {ROLES.app} CONNECTION LIMIT 1")
        pair.catch_up()
        was_healthy = replica.is_healthy
        with tenant_scope(ACME, reads_only=True), tenant_sessionmaker(engine)() as session:
            found = (session.scalars(NAMES).all(), session.scalar(IS_REPLICA))
        with pair.primary.connect("postgres") as truth:
            truth.execute(f"ALTER ROLE {ROLES.app} CONNECTION LIMIT -1")
        pair.catch_up()

    assert (was_healthy, replica.is_healthy) == (True, False)
    assert found == (["Ada"], False)


def test_replica_of_a_signed_database_verifies_the_scope(doomed: Pair) -> None:
    sign(doomed.primary)
    fill(doomed.primary)
    doomed.catch_up()
    engine = create_tenant_engine(
        doomed.primary.url(ROLES.app),
        replicas=[doomed.standby.url(ROLES.app)],
        replica_rules=ReplicaRules(look_every_s=0.05),
        signing_key=KEY,
    )
    wait_for_replica(engine)

    found = []
    for tenant in (signed.ACME, signed.GLOBEX):
        with tenant_scope(tenant, reads_only=True), tenant_sessionmaker(engine)() as session:
            found.append((session.scalars(NAMES).all(), session.scalar(IS_REPLICA)))
    engine.dispose()

    assert found == [(["Ada"], True), (["Eve"], True)]


def test_promoted_replica_is_not_read(doomed: Pair) -> None:
    """It is a primary then, of which this one's writes know nothing."""
    with engine_with_replica(doomed, look_every_s=0.05) as engine:
        wait_for_replica(engine)
        with doomed.standby.connect("postgres") as truth:
            assert truth.execute("SELECT pg_promote()").fetchone() == (True,)
        wait_until(lambda: not replicas_of(engine)[0].is_healthy)
        with tenant_scope(ACME, reads_only=True), tenant_sessionmaker(engine)() as session:
            found = session.scalar(text("SELECT timeline_id FROM pg_control_checkpoint()"))

    assert found == 1  # the promoted server's is 2


def test_replica_whose_role_sees_past_the_policies_is_an_error(pair: Pair) -> None:
    """As the primary's would be: going round it in silence would hide a hole."""
    engine = create_tenant_engine(
        pair.primary.url(ROLES.app),
        replicas=[pair.standby.url("postgres")],
        replica_rules=ReplicaRules(look_every_s=0.05),
    )
    reads_from_replica(engine)
    reads_from_replica(engine)
    wait_until(lambda: replicas_of(engine)[0].is_healthy)

    with pytest.raises(UnsafeConnectionError, match="it has SUPERUSER"):
        reads_from_replica(engine)
    engine.dispose()


def test_server_that_is_no_standby_is_never_read(pair: Pair) -> None:
    engine = create_tenant_engine(
        pair.primary.url(ROLES.app),
        replicas=[pair.primary.url(ROLES.app)],
        replica_rules=ReplicaRules(look_every_s=0.02),
    )
    for _ in range(10):
        reads_from_replica(engine)
        time.sleep(0.02)
    is_healthy = replicas_of(engine)[0].is_healthy
    engine.dispose()

    assert not is_healthy
