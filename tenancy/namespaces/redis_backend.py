"""A redis client in the shape of a cache's backend. Values are JSON: whoever can write to the server runs no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class RedisClient(Protocol):
    """What is used of `redis.Redis` or `valkey.Valkey`."""

    def get(self, name: str, /) -> Any: ...
    def mget(self, keys: Sequence[str], /) -> Any: ...
    def set(self, name: str, value: Any, /, *, ex: int | None = ..., nx: bool = ...) -> Any: ...
    def delete(self, *names: str) -> Any: ...
    def incrby(self, name: str, amount: int = ..., /) -> Any: ...


class RedisBackend:
    """Keeps values on a Redis or Valkey server, shared by all processes.

    dumps, loads: how a value becomes text and comes back; `pickle` here would run what others have written.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        dumps: Callable[[Any], str | bytes] = json.dumps,
        loads: Callable[[Any], Any] = json.loads,
    ) -> None:
        self._client = client
        self._dumps = dumps
        self._loads = loads

    def get(self, key: str) -> Any:
        return self._loaded(self._client.get(key))

    def get_many(self, *keys: str) -> list[Any]:
        return [self._loaded(found) for found in self._client.mget(list(keys))] if keys else []

    def set(self, key: str, value: Any, *, timeout: int | None = None) -> bool:
        return bool(self._client.set(key, self._dumps(value), ex=timeout))

    def add(self, key: str, value: Any, *, timeout: int | None = None) -> bool:
        """Keep a value unless there is one; the server does both in one step."""
        return bool(self._client.set(key, self._dumps(value), ex=timeout, nx=True))

    def delete(self, key: str) -> bool:
        return bool(self._client.delete(key))

    def inc(self, key: str, delta: int = 1) -> int:
        return int(self._client.incrby(key, delta))

    def _loaded(self, found: Any) -> Any:
        return None if found is None else self._loads(found)
