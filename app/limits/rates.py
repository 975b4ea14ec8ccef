"""Rates: how much was taken from a window, in PostgreSQL or in the Redis or Valkey that the settings name."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

import redis
from flask import Flask, current_app
from limits.storage import RedisStorage

from app.config import Settings
from app.db import Database
from app.errors import ProblemError
from app.limits.storage import PostgresStorage, Taken

log = logging.getLogger(__name__)

EXTENSION = "rates"
_ANSWER_WITHIN_S = 0.5
# How long a server that failed is not asked again, so that not each request waits for it.
_REST_S = 5.0


class RateLimitedError(ProblemError):
    """Something was done too often; `Retry-After` says when it may be done again."""

    code = 429
    kind = "rate_limited"


class RatesDownError(ProblemError):
    """Nobody can tell how often something was done, so it is not done."""

    code = 503
    kind = "rate_limits_unavailable"

    def __init__(self) -> None:
        super().__init__("Rate limits cannot be checked just now; try again shortly.", headers={"Retry-After": "5"})


class Rates:
    """Windows that all processes share.

    remote: a Redis or Valkey; None keeps them in PostgreSQL. fallback: what counts while it is away.
    """

    def __init__(
        self, local: PostgresStorage, remote: RedisStorage | None, fallback: Literal["postgres", "refuse"]
    ) -> None:
        self._local = local
        self._remote = remote
        self._fallback = fallback
        self._rests_until = 0.0

    def take(self, keys: Sequence[str], window_s: int, amount: int) -> list[Taken]:
        """Add to each window, and return what each stands at; a negative amount gives back.

        Raises: RatesDownError - the server is away, and the settings say to refuse then.
        """
        if self._remote is not None and time.monotonic() >= self._rests_until:
            try:
                return [self._take_remote(self._remote, key, window_s, amount) for key in keys]
            except redis.RedisError:
                self._rests_until = time.monotonic() + _REST_S
                log.exception("rates.server_failed", extra={"fallback": self._fallback})
        if self._remote is not None and self._fallback == "refuse":
            raise RatesDownError
        return self._local.take(keys, window_s, amount)

    @staticmethod
    def _take_remote(storage: RedisStorage, key: str, window_s: int, amount: int) -> Taken:
        taken = storage.incr(key, window_s, amount)
        return Taken(max(taken, 0), min(max(storage.get_expiry(key) - time.time(), 0.0), float(window_s)))


def init_app(app: Flask, settings: Settings, database: Database) -> Rates:
    """Give the application its rates; nothing connects yet."""
    secret = hmac.digest(settings.secret_key.get_secret_value().encode(), b"app.limits", sha256)
    remote = None
    if settings.rate_limit_url is not None:
        remote = RedisStorage(
            settings.rate_limit_url.get_secret_value(),
            socket_timeout=_ANSWER_WITHIN_S,
            socket_connect_timeout=_ANSWER_WITHIN_S,
        )
    found = Rates(PostgresStorage(database.engine, secret), remote, settings.rate_limit_fallback)
    app.extensions[EXTENSION] = found
    return found


def rates() -> Rates:
    """Return the rates of the current application."""
    found = current_app.extensions[EXTENSION]
    if not isinstance(found, Rates):
        raise TypeError(f"extension {EXTENSION!r} is {type(found).__name__}, not Rates")
    return found
