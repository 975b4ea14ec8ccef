"""Celery itself, eager and with a worker on the broker in memory: the tenant comes along, or the task does not run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Celery, chain
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Reject

from tenancy import current_tenant, tenant_scope
from tenancy.context import current_account, current_scope
from tenancy.directory import Reference, TenantRecord
from tenancy.errors import NoTenantError, ParkedJobError
from tenancy.jobs import Carrier
from tenancy.jobs.celery import HEADER, tenant_task
from tests.tenancy.directories import ACME, DORMANT, GLOBEX, ListedDirectory

ANA = UUID("0197c1a2-0000-7000-8000-0000000000aa")
DELETED = TenantRecord(UUID("0197c1a2-0000-7000-8000-00000000000e"), "deleted", "Deleted", "deleted")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


class Shop:
    """A Celery application, and what its tasks saw."""

    def __init__(self, *, eager: bool) -> None:
        self.directory = ListedDirectory(ACME, GLOBEX, DORMANT, DELETED)
        self.carrier = Carrier({"k": b"k" * 32}, signing="k")
        self.seen: list[tuple[UUID | None, UUID | None, Any]] = []
        self.celery = Celery(
            "shop",
            broker="memory://",
            backend="cache+memory://",
            task_cls=tenant_task(self.carrier, self.directory, park_s=0.2),
            set_as_current=False,
        )
        self.celery.conf.update(
            task_always_eager=eager,
            task_default_queue=uuid4().hex,  # the broker in memory is one for the whole process
            worker_hijack_root_logger=False,
        )

        @self.celery.task(name="shop.note", shared=False)
        def note(word: str, *, times: int = 1) -> str:
            self.seen.append((current_tenant(), current_account(), word * times))
            return f"{word}!"

        @self.celery.task(name="shop.flaky", bind=True, shared=False)
        def flaky(task: Any) -> None:
            self.seen.append((current_tenant(), current_account(), task.request.retries))
            if task.request.retries < 2:
                raise task.retry(countdown=0)

        self.note, self.flaky = note, flaky


@pytest.fixture
def eager() -> Shop:
    return Shop(eager=True)


@pytest.fixture(scope="module")
def running_shop() -> Iterator[Shop]:
    made = Shop(eager=False)
    with start_worker(made.celery, pool="solo", perform_ping_check=False, shutdown_timeout=20):
        yield made


@pytest.fixture
def shop(running_shop: Shop) -> Shop:
    running_shop.seen.clear()
    return running_shop


def eventually(claim: Callable[[], bool]) -> None:
    until = time.monotonic() + 15
    while not claim():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_eager_task_runs_in_the_scope_it_was_asked_for_in(eager: Shop) -> None:
    with tenant_scope(ACME.id, ANA):
        eager.note.delay("x", times=2)
        eager.note.apply(["y"])

    assert eager.seen == [(ACME.id, ANA, "xx"), (ACME.id, ANA, "y")]


def test_task_asked_for_without_a_tenant_is_refused(eager: Shop) -> None:
    for ask in (eager.note.delay, eager.note.apply_async):
        with pytest.raises(NoTenantError):
            ask(["x"]) if ask == eager.note.apply_async else ask("x")

    assert eager.seen == []


def test_plain_call_stays_in_the_callers_scope(eager: Shop) -> None:
    with tenant_scope(GLOBEX.id):
        assert eager.note("x") == "x!"

    assert eager.seen == [(GLOBEX.id, None, "x")]


def test_eager_task_of_suspended_tenant_says_so(eager: Shop) -> None:
    with tenant_scope(DORMANT.id), pytest.raises(ParkedJobError):
        eager.note.apply_async(["x"]).get()

    assert eager.seen == []


def test_task_runs_in_the_worker_for_the_tenant_that_asked(shop: Shop) -> None:
    with tenant_scope(ACME.id, ANA):
        shop.note.delay("x", times=2)
    with tenant_scope(GLOBEX.id):
        shop.note.apply_async(kwargs={"word": "y"}, headers={"trace": "t-1"})

    eventually(lambda: len(shop.seen) == 2)
    assert shop.seen == [(ACME.id, ANA, "xx"), (GLOBEX.id, None, "y")]
    assert current_scope() is None


@pytest.mark.parametrize("forgery", ["unsigned", "other task", "other arguments", "other tenant"])
def test_forged_message_is_rejected(shop: Shop, forgery: str) -> None:
    """T120"""
    with tenant_scope(ACME.id):
        other_task = shop.carrier.carry("shop.flaky", arguments=[["x"], {}])
        other_arguments = shop.carrier.carry("shop.note", arguments=[["y"], {}])
        good = shop.carrier.carry("shop.note", arguments=[["x"], {}])
    with tenant_scope(GLOBEX.id):
        body = shop.carrier.carry("shop.note", arguments=[["x"], {}]).partition(".")[0]
    envelopes = {
        "unsigned": {},
        "other task": {HEADER: other_task},
        "other arguments": {HEADER: other_arguments},
        "other tenant": {HEADER: f"{body}.{good.partition('.')[2]}"},
    }

    shop.celery.send_task("shop.note", ["x"], headers=envelopes[forgery])
    with tenant_scope(ACME.id):
        shop.note.delay("after")

    eventually(lambda: len(shop.seen) == 1)
    assert shop.seen == [(ACME.id, None, "after")]


def test_message_with_its_own_envelope_runs(shop: Shop) -> None:
    with tenant_scope(ACME.id):
        envelope = shop.carrier.carry("shop.note", arguments=[["x"], {}])

    shop.celery.send_task("shop.note", ["x"], headers={HEADER: envelope})

    eventually(lambda: shop.seen == [(ACME.id, None, "x")])


def test_task_of_gone_tenant_is_ignored(shop: Shop) -> None:
    with tenant_scope(DELETED.id):
        shop.note.delay("never")
    with tenant_scope(ACME.id):
        shop.note.delay("after")

    eventually(lambda: len(shop.seen) == 1)
    assert shop.seen == [(ACME.id, None, "after")]


def test_task_of_suspended_tenant_waits_until_it_is_served_again(shop: Shop) -> None:
    with tenant_scope(DORMANT.id, ANA):
        shop.note.delay("x")
    time.sleep(0.5)
    assert shop.seen == []

    shop.directory.tenants[Reference("id", str(DORMANT.id))] = TenantRecord(DORMANT.id, "dormant", "Dormant", "active")

    eventually(lambda: shop.seen == [(DORMANT.id, ANA, "x")])


def test_retry_stays_with_its_tenant(shop: Shop) -> None:
    with tenant_scope(ACME.id, ANA):
        shop.flaky.delay()

    eventually(lambda: shop.seen == [(ACME.id, ANA, 0), (ACME.id, ANA, 1), (ACME.id, ANA, 2)])


def test_chain_stays_with_its_tenant(shop: Shop) -> None:
    with tenant_scope(ACME.id, ANA):
        chain(shop.note.s("a"), shop.note.s(times=1)).apply_async()

    eventually(lambda: shop.seen == [(ACME.id, ANA, "a"), (ACME.id, ANA, "a!")])


def test_rejection_is_celerys_own(eager: Shop) -> None:
    eager.note.push_request(called_directly=False, headers={})
    try:
        with pytest.raises(Reject):
            eager.note.__call__("x")
    finally:
        eager.note.pop_request()

    assert eager.seen == []
