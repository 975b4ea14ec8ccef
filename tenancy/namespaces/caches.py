"""Caches: one that belongs to the tenant in scope, and one that was declared everyone's."""

from __future__ import annotations

import functools
import inspect
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar
from uuid import UUID

from tenancy.context import current_scope, outside_any_scope, require_tenant
from tenancy.errors import ConfigurationError, ScopeError
from tenancy.namespaces.arguments import digest_of
from tenancy.namespaces.keys import Key, cache_key

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
# A marker that is lost only costs a fresh start, so it need not live for ever; without an end, some backends would
# take it for the oldest of all and throw it out first.
_GENERATION_S = 30 * 86_400
_GENERATION = ("generation",)
_VALUE = "value"
_COUNT = "count"


class CacheBackend(Protocol):
    """What keeps the values, in the shape of `cachelib`; `RedisBackend` gives a redis client this shape."""

    def get(self, key: str, /) -> Any: ...
    def get_many(self, *keys: str) -> Sequence[Any]: ...
    def set(self, key: str, value: Any, /, *, timeout: int | None = ...) -> Any: ...
    def add(self, key: str, value: Any, /, *, timeout: int | None = ...) -> Any: ...
    def delete(self, key: str, /) -> Any: ...
    def inc(self, key: str, /, delta: int = ...) -> Any: ...


class TenantCache:
    """Keeps values for the tenant in scope, and for it alone; outside of a tenant's scope it refuses.

    name: what the keys begin with, so that several caches share a backend.
    timeout_s: how long a value lives, in seconds, where `set` does not say.
    misses_on: errors of the backend that count as a miss, and are logged, such as `(redis.RedisError,)`. A value
    is then computed again; what cannot be cleared is still an error, for it would go on being served.
    Every read asks the backend twice: for the tenant's generation, which `clear` replaces, and for the value.
    """

    def __init__(
        self,
        backend: CacheBackend,
        *,
        name: str,
        timeout_s: int = 300,
        misses_on: tuple[type[Exception], ...] = (),
    ) -> None:
        self._backend = backend
        self._name = name
        self._timeout_s = _checked(timeout_s)
        self._misses_on = misses_on

    def get(self, key: Key) -> Any:
        """Return the tenant's value; None when there is none.

        Raises: NoTenantError - no tenant is in scope. KeyRefusedError - the key cannot be used.
        """
        return self.get_many(key)[0]

    def get_many(self, *keys: Key) -> list[Any]:
        """Return the tenant's values in the order of the keys, None for each that is missing."""
        generation = self._generation()
        found = [self._key(generation, _VALUE, key) for key in keys]
        return self._try("get", lambda: list(self._backend.get_many(*found)), [None] * len(keys))

    def set(self, key: Key, value: Any, *, timeout_s: int | None = None) -> None:
        """Keep a value for the tenant. timeout_s: None takes the cache's own."""
        self._set(self._key(self._generation(), _VALUE, key), value, timeout_s)

    def add(self, key: Key, value: Any, *, timeout_s: int | None = None) -> bool:
        """Keep a value unless the tenant has one under the key; tell whether it was kept."""
        full = self._key(self._generation(), _VALUE, key)
        timeout = self._timeout(timeout_s)
        return self._try("add", lambda: bool(self._backend.add(full, value, timeout=timeout)), False)

    def delete(self, key: Key) -> None:
        """Forget the tenant's value.

        Raises: an error of the backend, also one that elsewhere counts as a miss: the value may still be served.
        """
        self._backend.delete(self._key(self._known_generation(), _VALUE, key))

    def inc(self, key: Key, delta: int = 1, *, timeout_s: int | None = None) -> int:
        """Add to the tenant's counter and return it; it begins at 0, and ends `timeout_s` after its first count.

        Counters and values are kept apart: `get` does not read a counter.
        Raises: an error of the backend, also one that elsewhere counts as a miss: a limit must not open by it.
        """
        full = self._key(self._known_generation(), _COUNT, key)
        self._backend.add(full, 0, timeout=self._timeout(timeout_s))
        return int(self._backend.inc(full, delta))

    def clear(self) -> None:
        """Forget everything of the tenant in scope at once, without a search; other tenants keep theirs.

        What is being computed meanwhile by `cached` is not kept either.
        """
        self._backend.set(self._marker(require_tenant()), _new_generation(), timeout=_GENERATION_S)

    def cached(self, *, timeout_s: int | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Remember what a function returns: by tenant, account, whether platform staff act, and arguments.

        The function takes plain values only (text, numbers, dates, UUIDs, and lists, tuples and dicts of them); its
        answer must be what the backend can keep.
        Raises: TypeError - a coroutine or generator function, whose answer is read only later; or, when called, an
        argument that has no plain spelling. NoTenantError - when called, no tenant is in scope.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            signature = _signature_of(function)

            @functools.wraps(function)
            def remembered(*args: P.args, **kwargs: P.kwargs) -> R:
                generation = self._generation()
                key = (function.__module__, function.__qualname__, *_whom(), digest_of(signature, args, kwargs))
                full = self._key(generation, _VALUE, key)
                found = self._try("get", lambda: self._backend.get(full), None)
                if found is not None:
                    known: R = _unwrapped(found)
                    return known
                answer = function(*args, **kwargs)
                # Under the generation of before: what `clear` overtook is written where nobody looks.
                self._set(full, [answer], timeout_s)
                return answer

            return remembered

        return decorate

    def _set(self, full: str, value: Any, timeout_s: int | None) -> None:
        timeout = self._timeout(timeout_s)
        self._try("set", lambda: self._backend.set(full, value, timeout=timeout), None)

    def _key(self, generation: str, kind: str, key: Key) -> str:
        parts = (key,) if isinstance(key, str) else tuple(key)
        return cache_key(self._name, require_tenant(), (generation, kind, *parts) if parts else ())

    def _marker(self, tenant: UUID) -> str:
        return cache_key(self._name, tenant, _GENERATION)

    def _generation(self) -> str:
        return self._try("begin", self._known_generation, _new_generation())

    def _known_generation(self) -> str:
        """Return the tenant's generation, or let the error of the backend out: under a new one nothing is forgotten."""
        marker, new = self._marker(require_tenant()), _new_generation()
        found = self._backend.get(marker)
        if found is None:
            self._backend.add(marker, new, timeout=_GENERATION_S)
            found = self._backend.get(marker)  # another process may have begun first
        return str(found or new)

    def _timeout(self, timeout_s: int | None) -> int:
        return self._timeout_s if timeout_s is None else _checked(timeout_s)

    def _try(self, verb: str, ask: Callable[[], R], instead: R) -> R:
        try:
            return ask()
        except self._misses_on as error:
            log.warning("cache.failed", extra={"verb": verb, "cause": type(error).__name__})
            return instead


class PinnedCache:
    """Keeps values that are the same for everyone, such as exchange rates; never what belongs to a tenant.

    It may be read anywhere. It is filled only where no tenant or account is in scope: `cached` runs its function in
    no scope at all, in which no session opens, and `set` inside a scope is refused.
    reason: why these values are everyone's; may not be blank.
    """

    def __init__(self, backend: CacheBackend, *, name: str, reason: str, timeout_s: int = 300) -> None:
        if not reason.strip():
            raise ConfigurationError(
                f"pinned cache {name!r} without a reason", hint="say why its values are everyone's, or use TenantCache"
            )
        self._backend = backend
        self._name = name
        self.reason = reason
        self._timeout_s = _checked(timeout_s)

    def get(self, key: Key) -> Any:
        """Return the value; None when there is none."""
        return self._backend.get(cache_key(self._name, None, key))

    def set(self, key: Key, value: Any, *, timeout_s: int | None = None) -> None:
        """Keep a value for everyone.

        Raises: ScopeError - a tenant, an account or the platform is in scope, so the value may be theirs.
        """
        scope = current_scope()
        if scope is not None:
            raise ScopeError(
                f"pinned cache {self._name!r} was to be filled in the scope of {scope!r}",
                hint="use a TenantCache, or compute the value in no scope, with @pinned.cached()",
            )
        timeout = self._timeout_s if timeout_s is None else _checked(timeout_s)
        self._backend.set(cache_key(self._name, None, key), value, timeout=timeout)

    def delete(self, key: Key) -> None:
        """Forget the value."""
        self._backend.delete(cache_key(self._name, None, key))

    def cached(self, *, timeout_s: int | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Remember for everyone what a function returns, by its arguments; it runs in no scope.

        Raises: TypeError - as for `TenantCache.cached`.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            signature = _signature_of(function)

            @functools.wraps(function)
            def remembered(*args: P.args, **kwargs: P.kwargs) -> R:
                key = (function.__module__, function.__qualname__, digest_of(signature, args, kwargs))
                found = self.get(key)
                if found is not None:
                    known: R = _unwrapped(found)
                    return known
                with outside_any_scope():
                    answer = function(*args, **kwargs)
                    self.set(key, [answer], timeout_s=timeout_s)
                return answer

            return remembered

        return decorate


def _unwrapped(found: Any) -> Any:
    (answer,) = found  # in a list of one, for a None that was returned is no miss
    return answer


def _whom() -> tuple[str, str]:
    scope = current_scope()
    account = scope.account.hex if scope and scope.account else "nobody"
    return account, "staff" if scope and scope.platform else "tenant"


def _new_generation() -> str:
    """Return a mark that was never used: a counter would begin again at 1 once its value is lost."""
    return secrets.token_hex(8)


def _checked(timeout_s: int) -> int:
    if timeout_s <= 0:
        raise ConfigurationError(
            f"a timeout of {timeout_s!r} seconds", hint="give at least 1: backends read 0 in different ways"
        )
    return timeout_s


def _signature_of(function: Callable[..., Any]) -> inspect.Signature:
    late = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_late(function) for is_late in late):
        raise TypeError(f"{function.__qualname__} gives its answer only later: cache where it is awaited or read")
    return inspect.signature(function)
