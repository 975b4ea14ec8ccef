"""One standby as this process knows it: whether it may be read, how far it has replayed, and the thread that looks."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any
from weakref import WeakMethod

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import Engine

from tenancy.errors import ConfigurationError
from tenancy.positions import parse_position

log = logging.getLogger("tenancy.replicas")

CONNECT_TIMEOUT_S = 2  # the shortest that libpq knows
_LOOKS_MISSED = 3  # after so many intervals without a look, a replica is not trusted to be healthy
_LOOK_AGAIN_S = 0.002  # while somebody waits
_LONGEST_WAIT_S = 60.0

IDENTITY_SQL = "SELECT system_identifier::text AS identity FROM pg_catalog.pg_control_system()"
# How far behind by its own account. A standby that has replayed all it received is not, as long as it receives.
LOOK_SQL = """
SELECT pg_catalog.pg_is_in_recovery() AS recovers, s.system_identifier::text AS identity,
       pg_catalog.pg_postmaster_start_time()::text AS started_at, pg_catalog.pg_last_wal_replay_lsn()::text AS replayed,
       CASE WHEN pg_catalog.pg_last_wal_replay_lsn() >= pg_catalog.pg_last_wal_receive_lsn()
                 AND EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE pid IS NOT NULL) THEN 0.0
            ELSE coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()),
                          'Infinity')
       END::float8 AS lag_s
FROM pg_catalog.pg_control_system() s
"""


@dataclass(frozen=True, kw_only=True)
class ReplicaRules:
    """When a replica is read, and not the primary.

    wait_s: how long a read waits for a replica to replay what it must see, at most 60; 0 goes to the primary at once.
    max_lag_s: a replica further behind the primary is not read.
    look_every_s: how often each process looks at each replica. One that was not seen healthy for three times as long
    is not read.
    Raises: ConfigurationError - a value that is no bound.
    """

    wait_s: float = 0.1
    max_lag_s: float = 10.0
    look_every_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.wait_s <= _LONGEST_WAIT_S:
            raise ConfigurationError(
                f"a wait_s of {self.wait_s!r} is not between 0 and {_LONGEST_WAIT_S:g}",
                hint="pass a short time: who waits holds a thread",
            )
        for name, value in (("max_lag_s", self.max_lag_s), ("look_every_s", self.look_every_s)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"a {name} of {value!r} sets no bound", hint="pass seconds, above 0")


class Replica:
    """One replica. `replayed` is how far it is known to be; it may be further."""

    def __init__(self, engine: Engine, rules: ReplicaRules, connect_args: Mapping[str, Any]) -> None:
        self.engine = engine
        self.rules = rules
        self.connect_args = connect_args
        self.replayed = 0
        self.waited_in_vain_at = -1
        self.started_at = ""
        self._seen_at = self._out_until = -math.inf

    @property
    def is_healthy(self) -> bool:
        """True if it was seen lately, in recovery and close behind the primary, and nothing has failed since."""
        now = monotonic()
        return now >= self._out_until and now - self._seen_at < self.rules.look_every_s * _LOOKS_MISSED

    def set_aside(self, reason: str, *, for_s: float = 0.0) -> None:
        """Read it no more until a look finds it healthy, and not before the time is over."""
        if self._seen_at > -math.inf:
            log.warning("replica.set_aside", extra={"replica": self._name, "reason": reason})
        # Jitter, or all processes would come back at the same moment.
        self._out_until = monotonic() + for_s * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        self._seen_at = -math.inf

    def see(self, found: Mapping[str, Any], identity: str, *, asked_at: float) -> bool:
        """Take note of an answer to `LOOK_SQL`; return False, and set it aside, if it is not to be read now.

        identity: of the primary's cluster. asked_at: time.monotonic() of the question.
        """
        if not found["recovers"]:
            reason = "it is not in recovery: a primary of its own"
        elif found["identity"] != identity:
            reason = "it is not a copy of the primary"
        elif found["lag_s"] > self.rules.max_lag_s:
            reason = "it is too far behind"
        else:
            position = parse_position(found["replayed"])
            # A server that was restarted may have gone back to what it had on disk.
            is_same = found["started_at"] == self.started_at
            self.replayed = max(position, self.replayed) if is_same else position
            self.started_at = found["started_at"]
            if self._seen_at == -math.inf:
                log.info("replica.healthy", extra={"replica": self._name})
            self._seen_at = asked_at
            return True
        self.set_aside(reason)
        return False

    @property
    def _name(self) -> str:
        return self.engine.url.render_as_string(hide_password=True)


Look = Callable[[Replica, psycopg.Connection[Any]], bool]


class Watch:
    """Looks at one replica again and again, on a connection of its own, for as long as anybody may read from it.

    look: looks once, and tells whether somebody waits for the replica to move on.
    asked: set to look at once. stopping: set to end.
    """

    def __init__(
        self, replica: Replica, look: WeakMethod[Look], *, asked: threading.Event, stopping: threading.Event
    ) -> None:
        self._replica = replica
        self._look = look
        self._asked = asked
        self._stopping = stopping
        self._options: dict[str, Any] = {
            **replica.engine.dialect.create_connect_args(replica.engine.url)[1],
            **replica.connect_args,
            "autocommit": True,
            "row_factory": tuple_row,
            "application_name": "tenancy replicas",
            "tcp_user_timeout": 3000,
        }
        threading.Thread(target=self._run, name="tenancy-replica", daemon=True).start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(**self._options) as connection:
                    while self._look_once(connection):
                        pass
            except (psycopg.Error, OSError) as error:
                self._replica.set_aside(str(error))
                self._pause()

    def _look_once(self, connection: psycopg.Connection[Any]) -> bool:
        """Look and pause; return False when nobody can be told any more."""
        look = self._look()
        if look is None or self._stopping.is_set():
            self._stopping.set()
            return False
        is_awaited = look(self._replica, connection)
        del look  # or this thread would keep the engine
        if is_awaited:
            self._stopping.wait(_LOOK_AGAIN_S)
        else:
            self._pause()
        return True

    def _pause(self) -> None:
        self._asked.wait(self._replica.rules.look_every_s * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
        self._asked.clear()


def row_of(description: Any, row: Any) -> dict[str, Any]:
    """Return a row of the driver's by the names of its columns."""
    return dict(zip([column[0] for column in description], row, strict=True))
