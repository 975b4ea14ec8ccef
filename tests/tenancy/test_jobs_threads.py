"""Threads, executors and rounds: the scope is opened anew there, and nothing of it is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import sessionmaker

from tenancy import (
    account_scope,
    create_tenant_engine,
    current_tenant,
    platform_scope,
    require_tenant,
    tenant_scope,
    tenant_sessionmaker,
)
from tenancy.context import current_account, current_scope
from tenancy.errors import ConfigurationError, NoTenantError, PlatformAccessError
from tenancy.jobs import AGAIN, for_each_tenant, in_this_scope, submit
from tenancy.session import TenantSession
from tests.conftest import SomeTenant
from tests.models import Person

ACME, GLOBEX = UUID("0197c1a2-0000-7000-8000-00000000000a"), UUID("0197c1a2-0000-7000-8000-00000000000b")
ANA = UUID("0197c1a2-0000-7000-8000-0000000000aa")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def sessions(people_url: str) -> Iterator[sessionmaker[TenantSession]]:
    engine = create_tenant_engine(people_url)
    yield tenant_sessionmaker(engine)
    engine.dispose()


def seen() -> tuple[UUID | None, UUID | None]:
    return current_tenant(), current_account()


def test_submitted_function_reads_its_tenants_rows(
    pool: ThreadPoolExecutor, sessions: sessionmaker[TenantSession], acme: SomeTenant, globex: SomeTenant
) -> None:
    """T090"""

    def names() -> list[str]:
        with sessions() as session:
            return list(session.scalars(select(Person.name)))

    with tenant_scope(acme.id):
        ours = submit(pool, names)
    with tenant_scope(globex.id):
        theirs = submit(pool, names)

    assert (ours.result(), theirs.result()) == (["Ada"], ["Eve"])


def test_plain_executor_has_no_tenant(pool: ThreadPoolExecutor) -> None:
    """T090"""
    with tenant_scope(ACME), pytest.raises(NoTenantError):
        pool.submit(require_tenant).result()


def test_worker_thread_that_is_reused_has_nothing_left(pool: ThreadPoolExecutor) -> None:
    """T090"""
    with tenant_scope(ACME, ANA):
        assert submit(pool, seen).result() == (ACME, ANA)

    assert pool.submit(current_scope).result() is None


def test_thread_left_in_a_scope_by_others_runs_in_the_carried_one(pool: ThreadPoolExecutor) -> None:
    """T090"""
    pool.submit(lambda: tenant_scope(GLOBEX).__enter__()).result()

    with tenant_scope(ACME):
        assert submit(pool, current_tenant).result() == ACME


def test_scope_that_ended_before_the_function_starts_is_no_hindrance(pool: ThreadPoolExecutor) -> None:
    gate = threading.Event()
    pool.submit(gate.wait)
    with tenant_scope(ACME):
        future = submit(pool, current_tenant)

    gate.set()

    assert future.result() == ACME


def test_scope_is_closed_when_the_function_raises(pool: ThreadPoolExecutor) -> None:
    with tenant_scope(ACME), pytest.raises(ZeroDivisionError):
        submit(pool, lambda: 1 // 0).result()

    assert pool.submit(current_scope).result() is None


def test_arguments_are_handed_on(pool: ThreadPoolExecutor) -> None:
    def add(first: int, *, second: int) -> tuple[UUID | None, int]:
        return current_tenant(), first + second

    with tenant_scope(ACME):
        assert submit(pool, add, 1, second=2).result() == (ACME, 3)


def test_thread_runs_in_the_scope_it_was_made_in() -> None:
    found: list[UUID | None] = []
    with tenant_scope(ACME):
        thread = threading.Thread(target=in_this_scope(lambda: found.append(current_tenant())))

    with tenant_scope(GLOBEX):
        thread.start()
        thread.join()

    assert found == [ACME]


def test_bound_function_may_be_called_more_than_once() -> None:
    with tenant_scope(ACME):
        bound = in_this_scope(current_tenant)

    assert [bound(), bound()] == [ACME, ACME]


def test_process_gets_the_scope_too() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes, tenant_scope(ACME, ANA):
        assert submit(processes, current_tenant).result() == ACME


def test_reading_scope_stays_one(pool: ThreadPoolExecutor) -> None:
    def reads_only() -> bool | None:
        scope = current_scope()
        return scope.reads_only if scope else None

    with tenant_scope(ACME, reads_only=True):
        assert submit(pool, reads_only).result() is True
    with tenant_scope(ACME):
        assert submit(pool, reads_only).result() is False


def test_account_scope_is_carried(pool: ThreadPoolExecutor) -> None:
    with account_scope(ANA):
        assert submit(pool, seen).result() == (None, ANA)


def test_nothing_is_carried_out_of_no_scope_or_the_platforms(pool: ThreadPoolExecutor) -> None:
    with pytest.raises(NoTenantError):
        submit(pool, seen)
    with platform_scope(actor="ana", reason="test"), pytest.raises(PlatformAccessError):
        submit(pool, seen)
    with platform_scope(actor="ana", reason="test"), tenant_scope(ACME), pytest.raises(PlatformAccessError):
        submit(pool, seen)


# Rounds -----------------------------------------------------------------------------------------------


def test_function_is_called_once_for_each_tenant_in_its_scope() -> None:
    found: list[tuple[UUID, UUID | None]] = []

    round_ = for_each_tenant([ACME, GLOBEX, ACME], lambda tenant: found.append((tenant, current_tenant())))

    assert found == [(ACME, ACME), (GLOBEX, GLOBEX)]
    assert (round_.done, round_.failed, round_.left) == ((ACME, GLOBEX), {}, ())


def test_tenants_are_taken_as_objects_too() -> None:
    class Tenant:
        id = ACME

    assert for_each_tenant([Tenant()], lambda _: None).done == (ACME,)


def test_round_runs_outside_of_the_callers_scope() -> None:
    with platform_scope(actor="ana", reason="test"):
        found: list[object] = []
        for_each_tenant([ACME], lambda _: found.append(getattr(current_scope(), "platform", "none")))

    assert found == [None]


def test_error_of_one_tenant_does_not_keep_the_rest_from_it() -> None:
    def fail_for_acme(tenant: UUID) -> None:
        if tenant == ACME:
            raise ValueError("acme")

    round_ = for_each_tenant([ACME, GLOBEX], fail_for_acme)

    assert round_.done == (GLOBEX,)
    assert {tenant: str(error) for tenant, error in round_.failed.items()} == {ACME: "acme"}


def test_round_stops_at_the_first_error_when_asked_to() -> None:
    tenants = [uuid4() for _ in range(5)]

    def fail_for_second(tenant: UUID) -> None:
        if tenant == tenants[1]:
            raise ValueError

    round_ = for_each_tenant(tenants, fail_for_second, stop_on_error=True)

    assert round_.done == (tenants[0],)
    assert list(round_.failed) == [tenants[1]]
    assert round_.left == tuple(tenants[2:])


def test_limit_bounds_the_calls_and_the_rest_is_told() -> None:
    tenants = [uuid4() for _ in range(5)]

    round_ = for_each_tenant(tenants, lambda _: None, limit=2)

    assert round_.done == tuple(tenants[:2])
    assert round_.left == tuple(tenants[2:])


def test_concurrency_is_reached_and_not_exceeded() -> None:
    counts, lock = {"now": 0, "most": 0}, threading.Lock()

    def count(_: UUID) -> None:
        with lock:
            counts["now"] += 1
            counts["most"] = max(counts["most"], counts["now"])
        time.sleep(0.03)
        with lock:
            counts["now"] -= 1

    for_each_tenant([uuid4() for _ in range(12)], count, concurrency=3)

    assert counts["most"] == 3


def test_tenant_with_more_to_do_waits_for_all_the_others() -> None:
    other = uuid4()
    parts, order = {ACME: 3, GLOBEX: 1, other: 2}, []

    def do_part(tenant: UUID) -> object:
        order.append(tenant)
        parts[tenant] -= 1
        return AGAIN if parts[tenant] else None

    round_ = for_each_tenant([ACME, GLOBEX, other], do_part)

    assert order == [ACME, GLOBEX, other, ACME, other, ACME]
    assert round_.done == (GLOBEX, other, ACME)


def test_tenants_are_read_as_they_are_needed() -> None:
    taken: list[int] = []

    def source() -> Iterator[UUID]:
        for number in range(100):
            taken.append(number)
            yield uuid4()

    def stop(_: UUID) -> None:
        raise ValueError(len(taken))

    round_ = for_each_tenant(source(), stop, limit=1)

    assert [str(error) for error in round_.failed.values()] == ["1"]


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"limit": 0}, {"limit": -1}])
def test_round_of_nothing_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        for_each_tenant([ACME], lambda _: None, **options)


def test_interrupt_is_not_taken_for_a_tenants_error() -> None:
    def interrupt(_: UUID) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for_each_tenant([ACME, GLOBEX], interrupt)
