"""The cache of the application: one for all processes where a server is named, else one in each."""

from __future__ import annotations

import redis
from cachelib import SimpleCache
from flask import Flask, current_app

from app.config import Settings
from tenancy.namespaces import CacheBackend, RedisBackend, TenantCache

EXTENSION = "cache"
_NAME = "crm"
_TIMEOUT_S = 300
_MOST_VALUES = 20_000
# A cache that takes longer than what it saves is none.
_ANSWER_WITHIN_S = 0.5


def init_app(app: Flask, settings: Settings) -> None:
    """Give the application its cache; nothing connects before the first use."""
    app.extensions[EXTENSION] = open_cache(settings)


def open_cache(settings: Settings) -> TenantCache:
    """Return the cache that the settings name. While its server is away, everything is computed anew."""
    return TenantCache(_backend(settings), name=_NAME, timeout_s=_TIMEOUT_S, misses_on=(redis.RedisError,))


def _backend(settings: Settings) -> CacheBackend:
    if settings.cache_url is None:
        return SimpleCache(threshold=_MOST_VALUES, default_timeout=_TIMEOUT_S)
    client = redis.Redis.from_url(
        settings.cache_url.get_secret_value(),
        socket_timeout=_ANSWER_WITHIN_S,
        socket_connect_timeout=_ANSWER_WITHIN_S,
        retry=None,
    )
    return RedisBackend(client)


def tenant_cache() -> TenantCache:
    """Return the cache of the current application; it keeps values for the tenant in scope."""
    found = current_app.extensions[EXTENSION]
    if not isinstance(found, TenantCache):
        raise TypeError(f"extension {EXTENSION!r} is {type(found).__name__}, not a TenantCache")
    return found
