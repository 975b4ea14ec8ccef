"""Hearing from the database which tenant changed, so that answers end in every process at once."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import psycopg
from sqlalchemy import Engine

from tenancy.directory.memory import Memory

log = logging.getLogger(__name__)

CHANNEL = "tenancy_tenant"


class Listener:
    """The thread that hears from the database which tenant changed, on a connection of its own."""

    def __init__(self, memory: Memory, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self._memory = memory
        self._connect = connect
        self._stopping = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._run, name="tenancy-directory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's socket without saying a word on it."""
        connection = self._connection
        if connection is not None and not connection.closed:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, connection.fileno())
            os.close(nowhere)
            _abandoned.append(connection)

    def _run(self) -> None:
        pause_s = 0.1
        while not self._stopping.is_set():
            try:
                with self._connect() as self._connection:
                    self._listen(self._connection)
            except (psycopg.Error, OSError) as error:
                # Without a lease answers live the floor time: staying up without a listener is by design.
                log.warning("directory.listener_down", extra={"reason": str(error)})
                self._stopping.wait(pause_s)
                pause_s = min(pause_s * 2, 5.0)
            finally:
                self._memory.lease_until = 0.0
                self._connection = None

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        beat_s = min(self._memory.floor_ttl_s / 3, 0.3)  # also how long stop() waits
        connection.execute(f"LISTEN {CHANNEL}")
        self._memory.forget_all()
        while not self._stopping.is_set():
            asked_at = monotonic()
            row = connection.execute("SELECT pg_backend_pid(), pg_listening_channels()").fetchone()
            if row != (connection.info.backend_pid, CHANNEL):
                # A transaction pooler accepts LISTEN and then delivers nothing.
                raise psycopg.OperationalError("the listening connection is not a direct one")
            self._memory.lease_until = asked_at + self._memory.floor_ttl_s
            for notice in connection.notifies(timeout=beat_s):
                self._memory.forget(notice.payload)
                if self._stopping.is_set():
                    return


# Connections of a parent process. Collecting one would warn, and there is nothing right to do with it.
_abandoned: list[psycopg.Connection[Any]] = []


def opener(engine: Engine, url: str | None) -> Callable[[], psycopg.Connection[Any]]:
    """Return what opens a connection for LISTEN: by its own URL, or by the engine's."""
    options: dict[str, Any] = {
        "autocommit": True,
        "application_name": "tenancy directory",
        "connect_timeout": 5,
        "tcp_user_timeout": 5000,
    }
    if url is not None:
        conninfo = url.replace("postgresql+psycopg://", "postgresql://", 1)
    else:
        conninfo = ""
        options = {**engine.dialect.create_connect_args(engine.url)[1], **options}
    return lambda: psycopg.connect(conninfo, **options)
