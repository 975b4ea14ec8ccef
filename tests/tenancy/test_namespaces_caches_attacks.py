"""A cache whose server fails for one moment: what was to be forgotten is not served on, and no count begins anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from cachelib import SimpleCache

from tenancy import tenant_scope
from tenancy.namespaces import TenantCache
from tests.tenancy.tenants import ACME


class StumblingCache:
    """A backend whose next reading fails when it was told so, as at a failover; a written class, no mock."""

    def __init__(self) -> None:
        self._kept = SimpleCache()
        self.fails_once = False

    def get(self, key: str) -> Any:
        if self.fails_once:
            self.fails_once = False
            raise ConnectionError("the server is failing over")
        return self._kept.get(key)

    def get_many(self, *keys: str) -> Sequence[Any]:
        found: Sequence[Any] = self._kept.get_many(*keys)
        return found

    def set(self, key: str, value: Any, *, timeout: int | None = None) -> Any:
        return self._kept.set(key, value, timeout=timeout)

    def add(self, key: str, value: Any, *, timeout: int | None = None) -> Any:
        return self._kept.add(key, value, timeout=timeout)

    def delete(self, key: str) -> Any:
        return self._kept.delete(key)

    def inc(self, key: str, delta: int = 1) -> Any:
        return self._kept.inc(key, delta)


def test_value_that_could_not_be_forgotten_is_an_error_after_one_lost_answer() -> None:
    backend = StumblingCache()
    cache = TenantCache(backend, name="app", misses_on=(ConnectionError,))
    with tenant_scope(ACME):
        cache.set("may", "enter")

        backend.fails_once = True
        with pytest.raises(ConnectionError):
            cache.delete("may")

        assert cache.get("may") == "enter"


def test_count_goes_on_after_one_lost_answer() -> None:
    backend = StumblingCache()
    cache = TenantCache(backend, name="app", misses_on=(ConnectionError,))
    with tenant_scope(ACME):
        assert [cache.inc("attempts") for _ in range(3)] == [1, 2, 3]

        backend.fails_once = True
        with pytest.raises(ConnectionError):
            cache.inc("attempts")

        assert cache.inc("attempts") == 4
