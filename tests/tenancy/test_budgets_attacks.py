"""Budgets where somebody comes at the worst moment: nobody passes who waits, and no child inherits a held lock."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest
from uuid_utils.compat import uuid7

from tenancy.budgets import Budgets, WorkBudget
from tenancy.errors import ConfigurationError, TenantBusyError

REST_S = 0.1


async def test_who_comes_when_a_rest_ends_does_not_pass_who_waits() -> None:
    budget = WorkBudget(concurrency=1, share=0.5, wait_s=5, waiting=4)
    budgets, tenant = Budgets(lambda _tenant: budget), uuid7()
    first = budgets.enter(tenant)
    assert first is not None
    await asyncio.sleep(REST_S)
    waits = asyncio.create_task(budgets.enter_async(tenant))
    await asyncio.sleep(0.01)
    budgets.leave(first)
    await asyncio.sleep(0)

    time.sleep(REST_S * 2)  # the rest ends, and the loop is too busy to look
    with pytest.raises(TenantBusyError):
        budgets.enter_at_once(tenant)

    slot = await waits
    assert slot is not None
    budgets.leave(slot)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_gives_back_a_slot_though_another_thread_held_the_lock_at_the_fork() -> None:
    budget = WorkBudget(concurrency=1, wait_s=0)
    budgets = Budgets(lambda _tenant: budget)
    slot = budgets.enter(uuid7())
    assert slot is not None
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with budgets._lock:
            held.set()
            forked.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)  # ends who waits for a lock that nobody here holds
        budgets.leave(slot)
        os._exit(0)

    forked.set()
    holder.join()
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


def test_share_of_places_without_number_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="bounds nothing"):
        WorkBudget(share=0.5)

    assert WorkBudget(share=1).concurrency is None
