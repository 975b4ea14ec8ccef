"""Attacks on the queue: what somebody with SQL injection as the app role can put into it."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.app.conftest import Truth, Visitor
from tests.conftest import ROLES, Database

GOOD = {"envelope": "forged", "payload": "{}"}


def enqueue(database: Database, tenant: Visitor, args: object, *, run_at: str | None = None, task: str = "x.y") -> int:
    """Ask for a job past the application, as its own role, bound to a tenant."""
    with database.connect(ROLES.app) as injected, injected.transaction():
        injected.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant.tenant_id)])
        row: Any = injected.execute(
            "SELECT jobs.enqueue(%s, %s::jsonb, 0, NULL, %s::timestamptz)", [task, json.dumps(args), run_at]
        ).fetchone()
    found: int = row[0]
    return found


@pytest.mark.parametrize("args", [[1, 2], "text", 7, None])
def test_job_that_would_stop_every_worker_is_not_taken(database: Database, acme: Visitor, args: object) -> None:
    """A worker reads what a job carries by name; what has no names would end it, and the next one after it."""
    assert enqueue(database, acme, GOOD) > 0

    with pytest.raises(psycopg.errors.InvalidParameterValue):
        enqueue(database, acme, args)


@pytest.mark.parametrize("run_at", ["infinity", "-infinity", "0044-03-15 BC", "20000-01-01"])
def test_job_at_a_time_that_no_clock_shows_is_not_taken(database: Database, acme: Visitor, run_at: str) -> None:
    """Python has no such times: to list or to take the job would fail, for all tenants."""
    assert enqueue(database, acme, GOOD, run_at="2030-01-01") > 0

    with pytest.raises(psycopg.errors.InvalidParameterValue):
        enqueue(database, acme, GOOD, run_at=run_at)


def test_job_with_an_endless_name_or_load_is_not_taken(database: Database, acme: Visitor) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        enqueue(database, acme, GOOD, task="x" * 1_000)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        enqueue(database, acme, {"payload": "x" * 1_000_000})


def test_count_of_lost_workers_is_not_the_senders(database: Database, acme: Visitor, truth: Truth) -> None:
    """What counts the workers a job took down is read as a number, for all jobs in one statement."""
    job = enqueue(database, acme, {**GOOD, "lost": "many"})

    (args,) = truth.execute("SELECT args FROM jobs.procrastinate_jobs WHERE id = %s", [job]).fetchone() or (None,)

    assert args == GOOD


def test_nothing_but_asking_is_open_to_the_app_role(truth: Truth) -> None:
    callable_ = truth.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'jobs'::regnamespace"
        " AND has_function_privilege('tenancy_app', oid, 'EXECUTE')"
    ).fetchall()
    readable = truth.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'jobs'::regnamespace AND relkind IN ('r', 'S')"
        " AND CASE relkind WHEN 'r' THEN has_table_privilege('tenancy_app', oid, 'SELECT, INSERT, UPDATE, DELETE')"
        " ELSE has_sequence_privilege('tenancy_app', oid, 'USAGE, SELECT, UPDATE') END"
    ).fetchall()

    assert callable_ == [("enqueue",)]
    assert readable == []
