"""A tenant holds a lock or leaves a transaction idle: the others fail in time, and the application recovers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest
from flask import Flask
from pydantic import SecretStr
from sqlalchemy import make_url

from app import close_app, create_app
from app.config import Settings
from tests.app.conftest import Visitor, add_person, codes
from tests.conftest import ROLES, Database

# The roles' own timeouts are the same in kind, and too long for a test: see the first test.
HASTY = {"options": "-c lock_timeout=300ms"}


@pytest.fixture
def hasty(make_settings: Callable[..., Settings], database: Database) -> Iterator[Flask]:
    """An application that waits for a lock no longer than a test can."""
    url = make_url(database.url(ROLES.app)).update_query_dict(HASTY)
    given = SecretStr(url.render_as_string(hide_password=False))
    made = create_app(make_settings().model_copy(update={"database_url": given}))
    yield made
    close_app(made)


def bound(database: Database, visitor: Visitor) -> psycopg.Connection[tuple[object, ...]]:
    """A connection of the app role in the visitor's tenant, such as a request of hers has."""
    connection = database.connect(ROLES.app)
    connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(visitor.tenant_id)])
    return connection


def test_every_connection_of_the_app_role_has_timeouts(database: Database) -> None:
    """T058"""
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")

    with database.connect(ROLES.app) as app:
        found = [app.execute("SELECT current_setting(%s)", [name]).fetchone() for name in names]

    assert found == [("5s",), ("30s",), ("1min",)]


def test_request_that_meets_a_held_lock_fails_in_time_and_the_next_one_succeeds(
    hasty: Flask, database: Database, acme: Visitor, globex: Visitor
) -> None:
    """T058"""
    add_person(globex, "Eve")
    of_globex = replace(globex, client=hasty.test_client(use_cookies=False))
    assert of_globex.get("/api/v1/people").status_code == 200

    with bound(database, acme) as holder:
        holder.execute("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        refused = [of_globex.get("/api/v1/people") for _ in range(2)]
        waited_s = time.monotonic() - started
    after = of_globex.get("/api/v1/people")

    assert [codes(answer) for answer in refused] == [(503, "busy")] * 2
    assert waited_s < 4
    assert [person["name"] for person in after.get_json()["items"]] == ["Eve"]


def test_transaction_left_idle_is_ended_by_the_server_and_its_lock_is_free(
    hasty: Flask, database: Database, acme: Visitor, globex: Visitor
) -> None:
    """T058"""
    add_person(globex, "Eve")
    of_globex = replace(globex, client=hasty.test_client(use_cookies=False))

    with closing(bound(database, acme)) as holder:
        holder.execute("SET LOCAL idle_in_transaction_session_timeout = '200ms'")
        holder.execute("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")
        time.sleep(0.4)
        found = of_globex.get("/api/v1/people")
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            holder.execute("SELECT 1")

    assert [person["name"] for person in found.get_json()["items"]] == ["Eve"]
