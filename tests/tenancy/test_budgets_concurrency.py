"""Work budgets: how many transactions a tenant has open at once, who waits, and that every slot comes back."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from tenancy.binding import create_async_tenant_engine, create_tenant_engine
from tenancy.budgets import Budgets, WorkBudget
from tenancy.context import tenant_scope
from tenancy.errors import StatementRefusedError, TenantBusyError, WrongTenantError
from tenancy.pools import budgets_of
from tenancy.session import tenant_sessionmaker
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Person
from tests.tenancy.engines import answers, column, dbapi_of, on_both_drivers

Play = Callable[..., Any]
NAMES = "SELECT name FROM people"
PID = "SELECT pg_backend_pid()"
IMPATIENT = WorkBudget(concurrency=1, wait_s=0)
PATIENT = WorkBudget(concurrency=1, wait_s=5)


def same_for_all(budget: WorkBudget) -> Callable[[UUID], WorkBudget]:
    return lambda _tenant: budget


def taken(engine: Engine, tenant: SomeTenant) -> int:
    budgets = budgets_of(engine)
    assert budgets is not None
    return budgets.open_of(tenant.id)


def refused(engine: Engine, tenant: SomeTenant) -> bool:
    try:
        with tenant_scope(tenant.id), engine.connect() as connection:
            column(connection, NAMES)
    except TenantBusyError:
        return True
    return False


# The bound --------------------------------------------------------------------------------------------


@on_both_drivers
def test_transaction_beyond_the_bound_is_refused_and_other_tenants_are_not(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    budget = WorkBudget(concurrency=2, wait_s=0)

    def story(engine: Engine) -> list[bool]:
        with tenant_scope(acme.id), engine.connect() as one, engine.connect() as two:
            assert column(one, NAMES) == column(two, NAMES) == ["Ada"]
            found = [refused(engine, acme), refused(engine, globex)]
            two.commit()
            return [*found, refused(engine, acme)]

    assert play(people_url, story, budget_of=same_for_all(budget)) == [True, False, False]


@on_both_drivers
def test_tenant_without_a_bound_opens_as_many_as_the_pool_has(play: Play, people_url: str, acme: SomeTenant) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.connect() as one, engine.connect() as two, engine.connect() as three:
            return column(one, NAMES) + column(two, NAMES) + column(three, NAMES)

    assert play(people_url, story, budget_of=same_for_all(WorkBudget(lock_timeout_s=1))) == ["Ada"] * 3


@on_both_drivers
def test_refusal_says_which_tenant_and_what_to_do(play: Play, people_url: str, acme: SomeTenant) -> None:
    def story(engine: Engine) -> None:
        with tenant_scope(acme.id), engine.connect() as one:
            column(one, NAMES)
            with engine.connect() as two:
                column(two, NAMES)

    with pytest.raises(TenantBusyError, match=r"1 transactions open here.*hint: try again") as caught:
        play(people_url, story, budget_of=same_for_all(IMPATIENT))

    assert str(acme.id) in caught.value.message


@on_both_drivers
def test_slot_follows_the_tenant_of_each_transaction_of_a_connection(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    def story(engine: Engine) -> list[tuple[int, int]]:
        found = []
        with engine.connect() as connection:
            for tenant in (acme, globex):
                with tenant_scope(tenant.id), connection.begin():
                    column(connection, NAMES)
                    found.append((taken(engine, acme), taken(engine, globex)))
            found.append((taken(engine, acme), taken(engine, globex)))
        return found

    assert play(people_url, story, budget_of=same_for_all(IMPATIENT)) == [(1, 0), (0, 1), (0, 0)]


@on_both_drivers
def test_connection_taken_by_one_tenant_counts_for_the_one_that_uses_it(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    budgets = {acme.id: IMPATIENT, globex.id: WorkBudget(concurrency=1, wait_s=0, lock_timeout_s=3)}

    def story(engine: Engine) -> tuple[int, int, list[str]]:
        with tenant_scope(acme.id):
            connection = engine.connect()
        with tenant_scope(globex.id), connection:
            shown = column(connection, "SELECT current_setting('lock_timeout')")
            return taken(engine, acme), taken(engine, globex), shown

    assert play(people_url, story, budget_of=budgets.get) == (0, 1, ["3s"])


@on_both_drivers
def test_connection_taken_outside_a_scope_is_refused_at_its_first_statement(
    play: Play, people_url: str, acme: SomeTenant
) -> None:
    def story(engine: Engine) -> list[Any]:
        with dbapi_of(engine) as free, tenant_scope(acme.id), engine.connect() as one:
            column(one, NAMES)
            with pytest.raises(TenantBusyError):
                answers(free, NAMES)
            one.rollback()
            return answers(free, NAMES)

    assert play(people_url, story, budget_of=same_for_all(IMPATIENT)) == ["Ada"]


# Waiting ----------------------------------------------------------------------------------------------


def test_thread_waits_for_a_slot_and_gets_it(people_url: str, acme: SomeTenant) -> None:
    engine = create_tenant_engine(people_url, budget_of=same_for_all(PATIENT))

    with ThreadPoolExecutor() as threads:
        with tenant_scope(acme.id), engine.connect() as connection:
            column(connection, NAMES)
            waiting = threads.submit(refused, engine, acme)
            time.sleep(0.1)
            assert not waiting.done()
        assert waiting.result(timeout=4) is False

    assert taken(engine, acme) == 0
    engine.dispose()


def test_thread_that_waits_holds_no_connection(people_url: str, acme: SomeTenant, globex: SomeTenant) -> None:
    engine = create_tenant_engine(
        people_url, budget_of=same_for_all(PATIENT), pool_size=2, max_overflow=0, pool_timeout=0.5
    )

    with ThreadPoolExecutor() as threads, tenant_scope(acme.id), engine.connect() as connection:
        column(connection, NAMES)
        waiting = threads.submit(refused, engine, acme)
        time.sleep(0.1)

        assert threads.submit(refused, engine, globex).result(timeout=2) is False

        connection.commit()
        assert waiting.result(timeout=4) is False
    engine.dispose()


@pytest.mark.parametrize(("waiting", "bound"), [(None, 1), (0, 0), (3, 3)])
def test_no_more_wait_than_the_budget_says_or_else_than_may_work(
    people_url: str, acme: SomeTenant, waiting: int | None, bound: int
) -> None:
    budget = WorkBudget(concurrency=1, wait_s=5, waiting=waiting)
    engine = create_tenant_engine(people_url, budget_of=same_for_all(budget))

    with ThreadPoolExecutor() as threads:
        with tenant_scope(acme.id), engine.connect() as connection:
            column(connection, NAMES)
            waiters = [threads.submit(refused, engine, acme) for _ in range(bound)]
            time.sleep(0.1)
            started = time.monotonic()
            assert refused(engine, acme) is True
            assert time.monotonic() - started < 1
        assert [waiter.result(timeout=4) for waiter in waiters] == [False] * bound
    engine.dispose()


def test_wait_ends_at_its_bound(people_url: str, acme: SomeTenant) -> None:
    engine = create_tenant_engine(people_url, budget_of=same_for_all(WorkBudget(concurrency=1, wait_s=0.2)))

    with tenant_scope(acme.id), engine.connect() as connection:
        column(connection, NAMES)
        started = time.monotonic()
        assert refused(engine, acme) is True
        waited_s = time.monotonic() - started

    assert 0.2 <= waited_s < 2
    assert refused(engine, acme) is False
    engine.dispose()


async def wait_in(engine: AsyncEngine, tenant: SomeTenant) -> str:
    with tenant_scope(tenant.id):
        async with engine.connect() as connection:
            (name,) = await connection.run_sync(column, NAMES)
            return str(name)


async def test_task_waits_without_stopping_the_others(people_url: str, acme: SomeTenant, globex: SomeTenant) -> None:
    engine = create_async_tenant_engine(people_url, budget_of=same_for_all(PATIENT))

    with tenant_scope(acme.id):
        async with engine.connect() as connection:
            await connection.run_sync(column, NAMES)
            waiting = asyncio.create_task(wait_in(engine, acme))
            assert await asyncio.wait_for(wait_in(engine, globex), timeout=3) == "Eve"
            assert not waiting.done()
    assert await waiting == "Ada"

    assert taken(engine.sync_engine, acme) == 0
    await engine.dispose()


async def test_task_cancelled_while_it_waits_gives_up_its_place(people_url: str, acme: SomeTenant) -> None:
    engine = create_async_tenant_engine(people_url, budget_of=same_for_all(PATIENT))

    with tenant_scope(acme.id):
        async with engine.connect() as connection:
            await connection.run_sync(column, NAMES)
            waiting = asyncio.create_task(wait_in(engine, acme))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            heir = asyncio.create_task(wait_in(engine, acme))
            await asyncio.sleep(0.05)
    assert await heir == "Ada"

    assert taken(engine.sync_engine, acme) == 0
    await engine.dispose()


async def test_waiting_tasks_are_refused_at_their_bound(people_url: str, acme: SomeTenant) -> None:
    engine = create_async_tenant_engine(people_url, budget_of=same_for_all(WorkBudget(concurrency=1, wait_s=0.1)))

    with tenant_scope(acme.id):
        async with engine.connect() as connection:
            await connection.run_sync(column, NAMES)
            with pytest.raises(TenantBusyError):
                await wait_in(engine, acme)

    assert await wait_in(engine, acme) == "Ada"
    await engine.dispose()


def test_many_threads_never_exceed_the_bound(people_url: str, acme: SomeTenant) -> None:
    budget = WorkBudget(concurrency=3, wait_s=10)
    engine = create_tenant_engine(people_url, budget_of=same_for_all(budget), pool_size=8)
    seen: list[int] = []
    refusals: list[int] = []

    def work(_number: int) -> None:
        with tenant_scope(acme.id):
            for _ in range(15):
                try:
                    with engine.begin() as connection:
                        column(connection, NAMES)
                        seen.append(taken(engine, acme))
                except TenantBusyError:
                    refusals.append(1)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))

    assert max(seen) == 3
    assert (len(seen), refusals) == (90, [])
    assert taken(engine, acme) == 0
    engine.dispose()


# Every slot comes back --------------------------------------------------------------------------------


def commit(connection: Connection, _truth: Any) -> None:
    column(connection, NAMES)
    connection.commit()


def roll_back(connection: Connection, _truth: Any) -> None:
    connection.exec_driver_sql("UPDATE people SET name = name")
    connection.rollback()


def fail(connection: Connection, _truth: Any) -> None:
    with pytest.raises(DBAPIError):
        column(connection, "SELECT 1 / 0")
    raise ZeroDivisionError


def be_refused(connection: Connection, _truth: Any) -> None:
    with pytest.raises(StatementRefusedError):
        column(connection, "RESET ALL")


def do_nothing(connection: Connection, _truth: Any) -> None:
    connection.begin()


def lose_the_connection(connection: Connection, truth: Any) -> None:
    truth.execute("SELECT pg_terminate_backend(%s)", [*column(connection, PID)])
    column(connection, NAMES)


def lose_it_at_the_commit(connection: Connection, truth: Any) -> None:
    truth.execute("SELECT pg_terminate_backend(%s)", [*column(connection, PID)])
    connection.commit()


def invalidate(connection: Connection, _truth: Any) -> None:
    column(connection, NAMES)
    connection.invalidate()


def detach(connection: Connection, _truth: Any) -> None:
    column(connection, NAMES)
    connection.detach()
    raw = connection.connection.dbapi_connection
    connection.rollback()
    assert raw is not None
    raw.close()  # SQLAlchemy leaves that to us on an asynchronous driver


def change_tenant(connection: Connection, _truth: Any) -> None:
    column(connection, NAMES)
    with tenant_scope(uuid7()), pytest.raises(WrongTenantError):
        column(connection, NAMES)


def use_savepoints(connection: Connection, _truth: Any) -> None:
    column(connection, NAMES)
    with connection.begin_nested():
        column(connection, NAMES)
    connection.begin_nested()


def begin_again(connection: Connection, _truth: Any) -> None:
    for _ in range(2):
        column(connection, NAMES)
        connection.commit()
    column(connection, NAMES)


ENDINGS = [
    commit,
    roll_back,
    fail,
    be_refused,
    do_nothing,
    lose_the_connection,
    lose_it_at_the_commit,
    invalidate,
    detach,
    change_tenant,
    use_savepoints,
    begin_again,
]


def abandon(engine: Engine) -> None:
    """Forget an open transaction, as a program does that loses its connection or session."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        connection = engine.connect()
        column(connection, NAMES)
        del connection
        gc.collect()


@on_both_drivers
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_slots_are_free_whatever_way_transactions_end(
    play: Play, database: Database, acme: SomeTenant, globex: SomeTenant, truth: Any, data: st.DataObject
) -> None:
    """With one slot and no wait, a slot that stayed taken would refuse the next transaction at once."""
    tenants = {"acme": acme, "globex": globex}
    steps = data.draw(
        st.lists(
            st.tuples(st.sampled_from(sorted(tenants)), st.sampled_from([*ENDINGS, abandon])), min_size=1, max_size=8
        )
    )

    def story(engine: Engine) -> list[tuple[int, int]]:
        found = []
        for name, ending in steps:
            with tenant_scope(tenants[name].id):
                if ending is abandon:
                    abandon(engine)
                else:
                    try:
                        with engine.connect() as connection:
                            ending(connection, truth)
                    except (ZeroDivisionError, DBAPIError):
                        pass
            found.append((taken(engine, acme), taken(engine, globex)))
        return found

    found = play(database.url(ROLES.app), story, budget_of=same_for_all(IMPATIENT), pool_size=2, max_overflow=0)

    assert found == [(0, 0)] * len(steps)


@on_both_drivers
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
def test_slot_is_taken_until_the_ending_and_free_after_it(
    play: Play, people_url: str, acme: SomeTenant, truth: Any, ending: Callable[[Connection, Any], None]
) -> None:
    def story(engine: Engine) -> list[int]:
        with tenant_scope(acme.id):
            try:
                with engine.connect() as connection:
                    before = taken(engine, acme)
                    ending(connection, truth)
            except (ZeroDivisionError, DBAPIError):
                pass
            return [before, taken(engine, acme)]

    assert play(people_url, story, budget_of=same_for_all(IMPATIENT)) == [1, 0]


def test_session_that_nobody_closed_gives_its_slot_back(people_url: str, acme: SomeTenant) -> None:
    engine = create_tenant_engine(people_url, budget_of=same_for_all(IMPATIENT))
    sessions = tenant_sessionmaker(engine)

    with tenant_scope(acme.id):
        session = sessions()
        assert session.query(Person.name).scalar() == "Ada"
        assert taken(engine, acme) == 1
        del session
        gc.collect()

    assert taken(engine, acme) == 0
    assert refused(engine, acme) is False
    engine.dispose()


def test_pool_that_gives_no_connection_keeps_no_slot(people_url: str, acme: SomeTenant) -> None:
    engine = create_tenant_engine(people_url, budget_of=same_for_all(IMPATIENT))
    away = create_tenant_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", budget_of=same_for_all(IMPATIENT))

    with tenant_scope(acme.id), pytest.raises(DBAPIError), away.connect():
        pass

    assert taken(away, acme) == 0
    assert refused(engine, acme) is False
    engine.dispose()


@on_both_drivers
def test_engine_disposed_of_keeps_its_bound(play: Play, people_url: str, acme: SomeTenant) -> None:
    def story(engine: Engine) -> list[bool]:
        engine.dispose()
        with tenant_scope(acme.id), engine.connect() as connection:
            column(connection, NAMES)
            return [refused(engine, acme)]

    assert play(people_url, story, budget_of=same_for_all(IMPATIENT)) == [True]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_child_has_slots_of_its_own(database: Database, acme: SomeTenant) -> None:
    engine = create_tenant_engine(database.url(ROLES.app), budget_of=same_for_all(IMPATIENT))

    with tenant_scope(acme.id), engine.connect() as connection:
        column(connection, NAMES)
        child = os.fork()
        if child == 0:
            budgets = budgets_of(engine)
            os._exit(0 if budgets is not None and budgets.enter(acme.id) is not None else 1)
        _, status = os.waitpid(child, 0)
        assert refused(engine, acme) is True

    assert os.waitstatus_to_exitcode(status) == 0
    engine.dispose()


def test_slot_forgotten_by_everyone_is_found_by_who_waits() -> None:
    """Its collection announces nothing; whoever waits looks again at the end."""
    budgets, tenant = Budgets(same_for_all(WorkBudget(concurrency=1, wait_s=0.3))), uuid7()
    held = [budgets.enter(tenant)]
    threading.Timer(0.1, held.clear).start()

    assert budgets.enter(tenant) is not None


def test_slot_given_back_by_a_collection_in_the_midst_of_taking_one_is_no_deadlock() -> None:
    """The collector may close a forgotten connection while this very thread is inside the lock."""
    budgets, tenant = Budgets(same_for_all(WorkBudget(concurrency=2, wait_s=0))), uuid7()
    first = budgets.enter(tenant)
    assert first is not None

    with budgets._lock:
        budgets.leave(first)

    assert budgets.open_of(tenant) == 0
