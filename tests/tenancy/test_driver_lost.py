"""Connections that the server ends: each is known to be lost, once, and the pool gives another."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from tenancy.context import tenant_scope
from tests.conftest import ROLES, Database, SomeTenant
from tests.tenancy.engines import column, on_both_drivers, play_sync

SLEEP = "SELECT pg_sleep(60)"


@contextmanager
def killed(database: Database, when: str = "wait_event = 'PgSleep'") -> Iterator[None]:
    """End whoever waits so in this database, as soon as somebody does."""
    with database.connect("postgres") as truth:
        truth.autocommit = True  # a transaction would see the same activity for ever

        def kill() -> None:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                found = truth.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    f" WHERE datname = current_database() AND state = 'active' AND {when}".encode()
                ).fetchall()
                if found:
                    return
                time.sleep(0.01)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield
        finally:
            killer.join()


@on_both_drivers
@pytest.mark.parametrize("when", ["in the first flight", "later", "later, with parameters"])
def test_connection_killed_while_its_statement_runs_is_replaced_without_a_word(
    play: Callable[..., Any],
    database: Database,
    acme: SomeTenant,
    person_of: Callable[..., UUID],
    when: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """T075: a connection that still waits for an answer must be given to nobody."""
    person_of(acme, "Ada")
    caplog.set_level(logging.INFO)

    def story(engine: Engine) -> tuple[bool, list[str]]:
        with tenant_scope(acme.id):
            with engine.connect() as connection:
                if when != "in the first flight":
                    assert column(connection, "SELECT name FROM people") == ["Ada"]
                statement = text(SLEEP) if "parameters" not in when else text(SLEEP + " WHERE 1 = :one")
                with killed(database), pytest.raises(OperationalError, match="terminating connection") as failed:
                    connection.execute(statement, {"one": 1} if "parameters" in when else {})
            with engine.connect() as connection:
                return failed.value.connection_invalidated, column(connection, "SELECT name FROM people")

    assert play(database.url(ROLES.app), story, pool_size=1, max_overflow=0) == (True, ["Ada"])
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_connection_killed_in_a_pipeline_of_the_users_own_is_replaced(
    database: Database, acme: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    """T075. Past SQLAlchemy, which therefore learns of it when it takes the connection back, and says so."""
    person_of(acme, "Ada")

    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id):
            with engine.connect() as connection, killed(database):
                driver: Any = connection.connection.driver_connection
                with pytest.raises(psycopg.OperationalError), driver.pipeline():
                    driver.execute(SLEEP)
            with engine.connect() as connection:
                return column(connection, "SELECT name FROM people")

    assert play_sync(database.url(ROLES.app), story, pool_size=1, max_overflow=0) == ["Ada"]


@contextmanager
def locked(database: Database, table: str) -> Iterator[None]:
    with database.connect("postgres") as truth, truth.transaction():
        truth.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


@on_both_drivers
def test_connection_ended_by_the_server_while_it_is_checked_is_no_pooler(
    play: Callable[..., Any], database: Database, acme: SomeTenant
) -> None:
    """The check waits for a lock, and the server ends it there."""

    def story(engine: Engine) -> None:
        with (
            killed(database, "wait_event_type = 'Lock'"),
            locked(database, "pg_auth_members"),
            pytest.raises(OperationalError, match="terminating connection due to administrator command"),
        ):
            engine.connect()

    with tenant_scope(acme.id):
        play(database.url(ROLES.app), story)


@on_both_drivers
def test_connection_that_could_not_be_checked_is_closed(
    play: Callable[..., Any], database: Database, truth: psycopg.Connection[Any], acme: SomeTenant
) -> None:
    """By the library: SQLAlchemy does it since 2.1 only."""
    kept: list[pytest.ExceptionInfo[OperationalError]] = []  # whose traceback would keep the connection

    def story(engine: Engine) -> int:
        with locked(database, "pg_auth_members"), pytest.raises(OperationalError, match="lock timeout") as failed:
            engine.connect()
        kept.append(failed)
        until = time.monotonic() + 5  # a process takes a moment to end
        while (left := count_unchecked()) and time.monotonic() < until:
            time.sleep(0.01)
        return left

    def count_unchecked() -> int:
        with truth.transaction():  # each sees the activity of its own time
            found = truth.execute("SELECT FROM pg_stat_activity WHERE application_name = 'unchecked'")
            return found.rowcount

    options = {"application_name": "unchecked", "options": "-c lock_timeout=100"}
    with tenant_scope(acme.id):
        assert play(database.url(ROLES.app), story, connect_args=options) == 0
