"""A place that was in use rests before it is free again, so that a tenant has no more than its share of the time."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from tenancy.budgets import BudgetOf, Budgets, WorkBudget
from tenancy.errors import ConfigurationError, TenantBusyError

# Long beside what a thread needs to be woken, short for who waits for the tests.
WORK_S = 0.3


def budgets_with(**bounds: Any) -> Budgets:
    budget = WorkBudget(**{"concurrency": 1, "wait_s": 0, "share": 0.5} | bounds)
    budget_of: BudgetOf = lambda _tenant: budget  # noqa: E731 - a name for its type
    return Budgets(budget_of)


def work(budgets: Budgets, tenant: Any, seconds: float = WORK_S) -> None:
    slot = budgets.enter(tenant)
    assert slot is not None
    time.sleep(seconds)
    budgets.leave(slot)


def is_refused(budgets: Budgets, tenant: Any) -> bool:
    try:
        slot = budgets.enter(tenant)
    except TenantBusyError:
        return True
    assert slot is not None
    budgets.leave(slot)
    return False


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan")])
def test_share_that_is_no_part_of_the_time_is_refused(share: float) -> None:
    with pytest.raises(ConfigurationError, match="is no part of the time"):
        WorkBudget(concurrency=1, share=share)


def test_place_rests_three_times_as_long_as_it_was_in_use_at_a_quarter() -> None:
    budgets, tenant = budgets_with(share=0.25), uuid7()
    work(budgets, tenant)

    assert is_refused(budgets, tenant)
    time.sleep(3.5 * WORK_S)
    assert not is_refused(budgets, tenant)


def test_whole_share_rests_never() -> None:
    budgets, tenant = budgets_with(share=1), uuid7()
    work(budgets, tenant)

    assert not is_refused(budgets, tenant)


def test_rest_ends_after_a_second_however_long_the_work() -> None:
    budgets, tenant = budgets_with(share=0.01, wait_s=3), uuid7()
    work(budgets, tenant)

    started = time.monotonic()
    assert not is_refused(budgets, tenant)

    assert 0.8 < time.monotonic() - started < 2


def test_other_places_and_other_tenants_do_not_rest_along() -> None:
    budgets, tenant, other = budgets_with(concurrency=2), uuid7(), uuid7()
    work(budgets, tenant)

    second = budgets.enter(tenant)

    assert second is not None
    assert is_refused(budgets, tenant)
    assert not is_refused(budgets, other)


def test_rest_is_remembered_when_nobody_holds_a_place_any_longer() -> None:
    budgets, tenant = budgets_with(share=0.25), uuid7()
    work(budgets, tenant)

    assert is_refused(budgets, tenant)


def test_place_given_back_twice_rests_once() -> None:
    budgets, tenant = budgets_with(concurrency=2), uuid7()
    slot = budgets.enter(tenant)
    assert slot is not None
    time.sleep(WORK_S)

    budgets.leave(slot)
    budgets.leave(slot)

    assert budgets.enter(tenant) is not None


def test_thread_that_waits_has_the_place_when_the_rest_ends() -> None:
    """Nobody announces it."""
    budgets, tenant = budgets_with(wait_s=5), uuid7()
    work(budgets, tenant)

    started = time.monotonic()
    assert budgets.enter(tenant) is not None

    assert 0.5 * WORK_S < time.monotonic() - started < 2


async def test_task_that_waits_has_the_place_when_the_rest_ends() -> None:
    budgets, tenant = budgets_with(wait_s=5), uuid7()
    work(budgets, tenant)

    slot = await asyncio.wait_for(budgets.enter_async(tenant), timeout=2)

    assert slot is not None


def test_who_waits_longest_is_first_after_a_rest() -> None:
    budgets, tenant, order = budgets_with(wait_s=10, waiting=3, share=0.9), uuid7(), list[int]()
    work(budgets, tenant)

    def wait(number: int) -> None:
        slot = budgets.enter(tenant)
        order.append(number)
        time.sleep(0.02)
        assert slot is not None
        budgets.leave(slot)

    held = budgets.enter(tenant)
    threads = [threading.Thread(target=wait, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)  # so that they come in order
    assert held is not None
    budgets.leave(held)
    for thread in threads:
        thread.join(timeout=5)

    assert order == [0, 1, 2]


def test_tenant_has_no_more_than_its_share_whatever_it_tries() -> None:
    budgets, tenant = budgets_with(share=0.25, wait_s=5, waiting=4), uuid7()
    used, until = list[float](), time.monotonic() + 1.0

    def insist() -> None:
        while time.monotonic() < until:
            slot = budgets.enter(tenant)
            began = time.monotonic()
            time.sleep(0.01)
            used.append(time.monotonic() - began)
            assert slot is not None
            budgets.leave(slot)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(insist) for _ in range(4)]:
            done.result(timeout=10)

    assert 0.05 < sum(used) < 0.4
