import asyncio
import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from tenancy.context import (
    account_scope,
    current_account,
    current_scope,
    current_tenant,
    platform_scope,
    require_tenant,
    tenant_scope,
)
from tenancy.errors import NoTenantError, PlatformAccessError, ScopeError

ACME = UUID("00000000-0000-7000-8000-00000000000a")
GLOBEX = UUID("00000000-0000-7000-8000-00000000000b")
ADA = UUID("00000000-0000-7000-8000-0000000000ad")
BOB = UUID("00000000-0000-7000-8000-0000000000b0")


@dataclass
class Record:
    id: Any


@pytest.fixture
def own_context() -> contextvars.Context:
    """For tests that leave an ended scope behind."""
    return contextvars.Context()


# Opening and closing ----------------------------------------------------------------------------------


def test_nobody_is_in_scope_until_a_scope_is_opened() -> None:
    assert current_scope() is None
    assert current_tenant() is None
    assert current_account() is None


def test_inner_scope_gives_way_to_the_outer_one() -> None:
    with tenant_scope(ACME):
        with tenant_scope(GLOBEX):
            inner = current_tenant()
        outer = current_tenant()

    assert (inner, outer, current_tenant()) == (GLOBEX, ACME, None)


def test_outer_scope_returns_after_an_error() -> None:
    with tenant_scope(ACME):
        with pytest.raises(LookupError), tenant_scope(GLOBEX):
            raise LookupError

        assert current_tenant() == ACME


def test_scope_takes_an_object_with_a_uuid_id() -> None:
    with tenant_scope(Record(ACME), account=Record(ADA)):
        assert (current_tenant(), current_account()) == (ACME, ADA)


@pytest.mark.parametrize("reference", [str(ACME), "", "acme", ACME.bytes, ACME.int, None, Record(str(ACME)), [ACME]])
def test_scope_takes_nothing_but_a_uuid(reference: object) -> None:
    """T064: text is parsed where it enters the program, never here."""
    with pytest.raises(TypeError, match=r"tenant must be a uuid\.UUID"):
        tenant_scope(reference)  # type: ignore[arg-type]


def test_account_takes_nothing_but_a_uuid() -> None:
    with pytest.raises(TypeError, match=r"account must be a uuid\.UUID"):
        account_scope(str(ADA))  # type: ignore[arg-type]


def test_scope_block_is_entered_once() -> None:
    block = tenant_scope(ACME)

    with block, pytest.raises(ScopeError, match="already entered"):
        block.__enter__()
    with pytest.raises(ScopeError, match="already entered"):
        block.__enter__()


def test_scopes_closed_out_of_order_are_an_error_and_open_nothing(own_context: contextvars.Context) -> None:
    def story() -> None:
        outer, inner = tenant_scope(ACME), tenant_scope(GLOBEX)
        outer.__enter__()
        inner.__enter__()

        with pytest.raises(ScopeError, match="innermost first"):
            outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)

        assert current_tenant() is None
        with pytest.raises(NoTenantError, match="has ended"):
            require_tenant()

    own_context.run(story)


def test_scopes_closed_out_of_order_do_not_replace_the_error_under_way(own_context: contextvars.Context) -> None:
    def story() -> None:
        outer, inner = tenant_scope(ACME), tenant_scope(GLOBEX)
        outer.__enter__()
        inner.__enter__()

        outer.__exit__(LookupError, LookupError(), None)
        inner.__exit__(None, None, None)

        assert current_tenant() is None

    own_context.run(story)


def test_scope_says_whom_it_acts_for() -> None:
    with platform_scope(actor="ana", reason="audit"), tenant_scope(ACME, account=ADA):
        shown = repr(current_scope())

    assert shown == f"tenant {ACME!r}, account {ADA!r}, the platform (ana)"


# Requiring a tenant -----------------------------------------------------------------------------------


def test_required_tenant_is_the_one_in_scope() -> None:
    with tenant_scope(ACME):
        assert require_tenant() == ACME


def test_required_tenant_is_refused_without_a_scope() -> None:
    with pytest.raises(NoTenantError, match="no tenant is in scope") as caught:
        require_tenant()

    assert "with tenant_scope(tenant)" in caught.value.hint


def test_required_tenant_is_refused_in_an_account_scope() -> None:
    with account_scope(ADA), pytest.raises(NoTenantError, match="scope is an account, not a tenant"):
        require_tenant()


def test_required_tenant_is_refused_in_a_platform_scope() -> None:
    with (
        platform_scope(actor="ana", reason="report"),
        pytest.raises(NoTenantError, match="scope is the platform, not a tenant"),
    ):
        require_tenant()


# Accounts and the platform ----------------------------------------------------------------------------


def test_tenant_scope_keeps_the_account_of_the_enclosing_scope() -> None:
    with account_scope(ADA), tenant_scope(ACME):
        assert (current_tenant(), current_account()) == (ACME, ADA)


def test_tenant_scope_names_another_account_for_its_block_only() -> None:
    with account_scope(ADA):
        with tenant_scope(ACME, account=BOB):
            assert current_account() == BOB
        assert current_account() == ADA


def test_account_scope_leaves_tenant_and_platform_behind() -> None:
    with platform_scope(actor="ana", reason="report"), tenant_scope(ACME), account_scope(ADA):
        scope = current_scope()
        assert scope is not None
        assert (scope.tenant, scope.account, scope.platform) == (None, ADA, None)


def test_tenant_scope_inside_a_platform_scope_keeps_its_reason() -> None:
    with platform_scope(actor="ana", reason="fix invoice 7"), tenant_scope(ACME):
        scope = current_scope()
        assert scope is not None
        assert scope.platform is not None
        assert (scope.tenant, scope.platform.actor, scope.platform.reason) == (ACME, "ana", "fix invoice 7")


def test_platform_scope_leaves_the_tenant_behind() -> None:
    with tenant_scope(ACME, account=ADA), platform_scope(actor="ana", reason="report"):
        assert (current_tenant(), current_account()) == (None, None)


@pytest.mark.parametrize(("actor", "reason"), [("", "report"), ("ana", ""), (" \t", "report"), ("ana", "\n")])
def test_platform_scope_without_actor_or_reason_is_refused(actor: str, reason: str) -> None:
    with pytest.raises(PlatformAccessError, match="without an actor or a reason"):
        platform_scope(actor=actor, reason=reason)


def test_two_platform_scopes_are_not_the_same_even_for_one_reason() -> None:
    with platform_scope(actor="ana", reason="report"):
        first = current_scope()
    with platform_scope(actor="ana", reason="report"):
        second = current_scope()

    assert first is not None
    assert not first.is_same(second)


def test_scopes_of_one_tenant_are_the_same() -> None:
    with tenant_scope(ACME):
        first = current_scope()
    with tenant_scope(ACME):
        second = current_scope()
    with tenant_scope(ACME, account=ADA):
        of_account = current_scope()

    assert first is not None
    assert first.is_same(second)
    assert not first.is_same(of_account)
    assert not first.is_same(None)


# Threads, tasks and generators ------------------------------------------------------------------------


def test_thread_started_in_a_scope_has_none() -> None:
    """T090"""
    found: list[object] = []

    with tenant_scope(ACME):
        thread = threading.Thread(target=lambda: found.append(current_tenant()))
        thread.start()
        thread.join()

    assert found == [None]


def test_pool_thread_keeps_no_scope_between_jobs() -> None:
    """T090: the worker is reused, the tenant is not."""

    def in_acme() -> UUID | None:
        with tenant_scope(ACME):
            return current_tenant()

    with ThreadPoolExecutor(max_workers=1) as pool:
        during = pool.submit(in_acme).result()
        afterwards = pool.submit(current_tenant).result()

    assert (during, afterwards) == (ACME, None)


def test_thread_given_a_copied_context_has_its_tenant_until_the_block_ends() -> None:
    """T090"""
    with tenant_scope(ACME):
        copied = contextvars.copy_context()
        with ThreadPoolExecutor(max_workers=1) as pool:
            during = pool.submit(copied.run, current_tenant).result()
    afterwards = copied.run(current_tenant)

    assert (during, afterwards) == (ACME, None)


async def test_task_started_in_a_scope_has_its_tenant() -> None:
    """T090"""

    async def look() -> UUID | None:
        await asyncio.sleep(0)
        return current_tenant()

    with tenant_scope(ACME):
        found = await asyncio.create_task(look())

    assert found == ACME


async def test_task_that_outlives_its_scope_has_no_tenant() -> None:
    """T090"""
    block_ended = asyncio.Event()

    async def look() -> UUID:
        await block_ended.wait()
        return require_tenant()

    with tenant_scope(ACME):
        task = asyncio.create_task(look())
        await asyncio.sleep(0)
    block_ended.set()

    with pytest.raises(NoTenantError, match="has ended"):
        await task


async def test_concurrent_tasks_keep_their_own_tenants() -> None:
    async def work(tenant: UUID) -> list[UUID]:
        seen = []
        with tenant_scope(tenant):
            for _ in range(5):
                await asyncio.sleep(0)
                seen.append(require_tenant())
        return seen

    of_acme, of_globex = await asyncio.gather(work(ACME), work(GLOBEX))

    assert (of_acme, of_globex) == ([ACME] * 5, [GLOBEX] * 5)


def test_interleaved_generators_that_hold_scopes_are_an_error(own_context: contextvars.Context) -> None:
    """A generator shares its caller's context, so scopes kept open across a `yield` can cross."""

    def story() -> None:
        def rows(tenant: UUID) -> Iterator[UUID]:
            with tenant_scope(tenant):
                yield require_tenant()

        first, second = rows(ACME), rows(GLOBEX)
        assert (next(first), next(second)) == (ACME, GLOBEX)

        with pytest.raises(ScopeError, match="do not keep one open across a `yield`"):
            next(first)
        assert next(second, None) is None
        assert current_tenant() is None

    own_context.run(story)


def test_generator_finalised_in_another_context_leaves_that_context_alone() -> None:
    def rows() -> Iterator[UUID]:
        with tenant_scope(ACME):
            yield require_tenant()

    generator = rows()
    there = contextvars.copy_context()
    there.run(next, generator)

    with tenant_scope(GLOBEX):
        generator.close()  # type: ignore[attr-defined]
        found = current_tenant()

    assert found == GLOBEX
    assert there.run(current_tenant) is None


def test_generator_finalised_in_a_copy_of_its_context_is_no_error(own_context: contextvars.Context) -> None:
    """The copy holds the scope, but not the token that would restore what was before it."""

    def rows() -> Iterator[UUID]:
        with tenant_scope(ACME):
            yield require_tenant()

    generator = rows()
    own_context.run(next, generator)
    copied = own_context.run(contextvars.copy_context)

    copied.run(generator.close)  # type: ignore[attr-defined]

    assert (own_context.run(current_tenant), copied.run(current_tenant)) == (None, None)
