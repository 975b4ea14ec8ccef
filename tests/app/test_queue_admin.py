"""Jobs through the admin API: what staff see of them, and what they do about them."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.queue.tables import PLATFORM
from app.staff.permissions import StaffPermission, StaffRole
from tests.app.conftest import Visitor, codes
from tests.app.staffing import Staffer, key_client, staff_client
from tests.conftest import Database


@pytest.fixture
def owner(app: Flask) -> Staffer:
    return staff_client(app)


@pytest.fixture
def job_of(database: Database) -> Callable[..., int]:
    """Put a job into the queue, past everything, in the state that is given."""

    def add(tenant_id: UUID = PLATFORM, *, status: str = "todo", queue: str = "default", task: str = "x.y") -> int:
        with database.connect("postgres") as truth:
            row = truth.execute(
                "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, status, tenant, args)"
                ' VALUES (%s, %s, %s, %s, \'{"envelope": "a.b", "payload": "{}", "lost": 3}\') RETURNING id',
                [queue, task, status, tenant_id],
            ).fetchone()
        assert row is not None
        return int(str(row[0]))

    return add


def test_jobs_are_listed_by_tenant_and_state(
    owner: Staffer, acme: Visitor, globex: Visitor, job_of: Callable[..., int]
) -> None:
    waiting, failed = job_of(acme.tenant_id), job_of(acme.tenant_id, status="failed")
    parked = job_of(acme.tenant_id, queue="parked")
    job_of(globex.tenant_id)

    def ids(query: str) -> list[int]:
        return [item["id"] for item in owner.get(f"/jobs?for_tenant={acme.tenant_id}{query}").get_json()["items"]]

    assert ids("") == [parked, failed, waiting]
    assert ids("&state=waiting") == [waiting]
    assert ids("&state=parked") == [parked]
    assert ids("&state=failed") == [failed]
    assert ids("&state=running") == []
    assert ids("&task=x.y&limit=1") == [parked]
    assert ids("&task=x.z") == []


def test_pages_follow_each_other(owner: Staffer, acme: Visitor, job_of: Callable[..., int]) -> None:
    made = [job_of(acme.tenant_id) for _ in range(3)]

    first = owner.get(f"/jobs?for_tenant={acme.tenant_id}&limit=2").get_json()
    second = owner.get(f"/jobs?for_tenant={acme.tenant_id}&limit=2&cursor={first['next_cursor']}").get_json()

    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None


def test_job_shows_what_it_is_and_not_what_it_carries(
    owner: Staffer, acme: Visitor, job_of: Callable[..., int]
) -> None:
    job_id = job_of(acme.tenant_id, queue="parked")

    shown = owner.get(f"/jobs/{job_id}").get_json()

    assert {name: shown[name] for name in shown if name != "asked_at"} == {
        "id": job_id,
        "tenant_id": str(acme.tenant_id),
        "task": "x.y",
        "state": "parked",
        "priority": 0,
        "attempts": 0,
        "run_at": None,
    }


def test_jobs_are_counted_by_state(owner: Staffer, acme: Visitor, job_of: Callable[..., int]) -> None:
    for status in ("todo", "todo", "doing", "succeeded", "failed", "cancelled", "aborted"):
        job_of(acme.tenant_id, status=status)
    job_of(acme.tenant_id, queue="parked")

    counts = owner.get(f"/jobs/counts?for_tenant={acme.tenant_id}").get_json()

    assert counts == {
        "by_state": {"waiting": 2, "parked": 1, "running": 1, "succeeded": 1, "failed": 1, "cancelled": 2},
        "total": 8,
    }


@pytest.mark.parametrize("status", ["failed", "cancelled", "aborted"])
def test_job_that_ended_badly_is_run_again_and_the_tenants_audit_says_why(
    owner: Staffer, acme: Visitor, job_of: Callable[..., int], database: Database, status: str
) -> None:
    job_id = job_of(acme.tenant_id, status=status)

    answer = owner.post(f"/jobs/{job_id}/retry", json={"reason": "the mail server is back"})

    assert (answer.status_code, answer.get_json()["state"]) == (200, "waiting")
    with database.connect("postgres") as truth:
        found = truth.execute(
            "SELECT action, reason, after FROM audit_entries WHERE tenant_id = %s AND action LIKE 'job.%%'",
            [acme.tenant_id],
        ).fetchall()
        args = truth.execute("SELECT args ? 'lost' FROM jobs.procrastinate_jobs WHERE id = %s", [job_id]).fetchone()
    assert found == [("job.retried", "the mail server is back", {"job": job_id, "task": "x.y"})]
    assert args == (False,)


def test_waiting_job_is_cancelled(owner: Staffer, acme: Visitor, job_of: Callable[..., int]) -> None:
    for queue in ("default", "parked"):
        job_id = job_of(acme.tenant_id, queue=queue)

        answer = owner.post(f"/jobs/{job_id}/cancel", json={"reason": "asked for by mistake"})

        assert (answer.status_code, answer.get_json()["state"]) == (200, "cancelled")


def test_platforms_job_is_recorded_in_the_platforms_audit(
    owner: Staffer, job_of: Callable[..., int], database: Database
) -> None:
    job_id = job_of()

    answer = owner.post(f"/jobs/{job_id}/cancel", json={"reason": "not now"})

    assert answer.get_json()["tenant_id"] is None
    with database.connect("postgres") as truth:
        found = truth.execute(
            "SELECT action, reason FROM platform_entries WHERE (after->>'job')::bigint = %s", [job_id]
        ).fetchall()
    assert found == [("job.cancelled", "not now")]


@pytest.mark.parametrize(
    ("status", "verb"),
    [("todo", "retry"), ("doing", "retry"), ("succeeded", "retry"), ("doing", "cancel"), ("failed", "cancel")],
)
def test_what_cannot_be_done_to_a_job_now_is_a_conflict(
    owner: Staffer, acme: Visitor, job_of: Callable[..., int], status: str, verb: str
) -> None:
    job_id = job_of(acme.tenant_id, status=status)

    answer = owner.post(f"/jobs/{job_id}/{verb}", json={"reason": "why not"})

    assert codes(answer) == (409, "job_state")


@pytest.mark.parametrize("job_id", [0, 9_223_372_036_854_775_807, 2**64])
def test_unknown_job_is_not_found(owner: Staffer, job_id: int) -> None:
    assert codes(owner.get(f"/jobs/{job_id}")) == (404, "not_found")
    assert codes(owner.post(f"/jobs/{job_id}/retry", json={"reason": "why not"})) == (404, "not_found")


@pytest.mark.parametrize(
    "query",
    ["cursor=x", "cursor=-1", "cursor=99999999999999999999", "state=odd", "for_tenant=7", "task=A b"],
)
def test_bad_query_names_its_field(owner: Staffer, query: str) -> None:
    answer = owner.get(f"/jobs?{query}")

    assert codes(answer) == (400, "invalid_input")
    assert [error["field"] for error in answer.get_json()["errors"]] == [f"query.{query.partition('=')[0]}"]


def test_changing_needs_a_reason(owner: Staffer, acme: Visitor, job_of: Callable[..., int]) -> None:
    job_id = job_of(acme.tenant_id)

    assert codes(owner.post(f"/jobs/{job_id}/cancel", json={})) == (400, "invalid_input")
    assert owner.get(f"/jobs/{job_id}").get_json()["state"] == "waiting"


def test_reading_staff_may_look_and_change_nothing(app: Flask, acme: Visitor, job_of: Callable[..., int]) -> None:
    job_id = job_of(acme.tenant_id)
    reader = staff_client(app, StaffRole.READ_ONLY)
    program = key_client(app, StaffPermission.TENANTS_READ)

    assert reader.get(f"/jobs/{job_id}").status_code == 200
    assert codes(reader.post(f"/jobs/{job_id}/cancel", json={"reason": "why not"})) == (403, "forbidden")
    assert codes(program.get(f"/jobs/{job_id}")) == (403, "forbidden")


def test_tenants_own_members_see_no_job(client: FlaskClient, acme: Visitor, job_of: Callable[..., int]) -> None:
    job_id = job_of(acme.tenant_id)

    assert acme.get("/api/v1/admin/jobs").status_code == 401
    assert acme.get(f"/api/v1/admin/jobs/{job_id}").status_code == 401
    assert client.get("/api/v1/admin/jobs").status_code == 401
    assert client.get(f"/api/v1/admin/jobs?for_tenant={uuid4()}").status_code == 401
