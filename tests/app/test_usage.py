"""Usage: measured without a statement, written in batches, summed as often as one likes, and read by its tenant."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import event

from app import close_app
from app.audit.actors import Actor, ActorKind, acting_as
from app.auth.desk import EXTENSION as DESK
from app.config import Settings
from app.plans.changes import register_counter
from app.plans.terms import TermKind
from app.queue.tasks import Job
from app.staff.permissions import StaffRole
from app.tenants.models import Tenant
from app.usage.buffer import UsageBuffer
from app.usage.jobs import run_rollup, stock_of, take_stock
from app.usage.meters import EXTENSION as USAGE
from app.usage.quotas import Quota
from tenancy.context import platform_scope, tenant_scope
from tests.app.conftest import Truth, Visitor, add_person, codes, fields
from tests.app.entitled import give, staff_in
from tests.app.staffing import staff_client
from tests.app.test_lifecycle_processes import plain

JOB = Actor(ActorKind.JOB, "tests", "tests")


def buffer_of(app: Flask) -> UsageBuffer:
    found: UsageBuffer = app.extensions[USAGE]
    return found


def total(visitor: Visitor, query: str = "timeRange=2d") -> dict[str, Any]:
    buffer_of(visitor.client.application).flush()
    answer = visitor.get(f"/api/v1/usage?{query}")
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()["total"]
    return found


def records(truth: Truth, visitor: Visitor) -> int:
    row = truth.execute("SELECT count(*) FROM usage_records WHERE tenant_id = %s", [visitor.tenant_id]).fetchone()
    assert row is not None
    return int(row[0])


def requests_of(truth: Truth, visitor: Visitor) -> int:
    """What the ledger says at this moment, whoever wrote it."""
    row = truth.execute(
        "SELECT coalesce(sum((amounts->>'requests')::int), 0) FROM usage_records WHERE tenant_id = %s",
        [visitor.tenant_id],
    ).fetchone()
    assert row is not None
    return int(row[0])


# Measuring --------------------------------------------------------------------------------------------


def test_requests_refusals_rows_bytes_and_features_are_measured(acme: Visitor) -> None:
    add_person(acme)
    acme.get("/api/v1/people")
    acme.get("/api/v1/people?sort=nonsense")

    found = total(acme)

    assert (found["requests"], found["refusals"], found["errors"]) == (3, 1, 0)
    assert found["features"] == {"crm": 3}
    assert found["rows"] == 1
    assert found["bytes_in"] == len(b'{"name": "Ada Lovelace"}')
    assert found["bytes_out"] > 100
    assert found["latency_ms"] > 0


def test_one_tenants_usage_is_none_of_anothers(acme: Visitor, globex: Visitor) -> None:
    acme.get("/api/v1/people")

    assert total(acme)["requests"] == 1
    assert total(globex)["requests"] == 0


def test_measuring_sends_nothing_while_a_request_is_served(app: Flask, acme: Visitor) -> None:
    acme.get("/api/v1/people")
    seen: list[str] = []
    engine = app.extensions[DESK].database.engine

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        acme.get("/api/v1/people")
    finally:
        event.remove(engine, "before_cursor_execute", note)

    assert len(seen) == 2  # who asks, and what for
    assert [one for one in seen if "usage" in one] == []


def test_usage_is_written_by_itself_after_a_while(make_app: Callable[..., Flask], acme: Visitor, truth: Truth) -> None:
    app = make_app(usage_flush_s=0.1)

    ask(app, acme)

    wait_until(lambda: requests_of(truth, acme) == 1)


def test_much_usage_is_written_sooner(make_app: Callable[..., Flask], acme: Visitor, truth: Truth) -> None:
    app = make_app(usage_flush_s=300)

    for _ in range(10_000):
        buffer_of(app).add(acme.tenant_id, {"requests": 1})

    wait_until(lambda: requests_of(truth, acme) == 10_000)


def test_batch_that_is_sent_twice_is_kept_once(app: Flask, acme: Visitor, truth: Truth) -> None:
    buffer = buffer_of(app)
    buffer.flush()
    buffer.add(acme.tenant_id, {"requests": 7})
    [batch] = [batch for tenant, batch in buffer._open.items() if tenant == acme.tenant_id]

    buffer._write(acme.tenant_id, batch)
    buffer.flush()

    assert requests_of(truth, acme) == 7
    assert acme.tenant_id not in [tenant_id for tenant_id, _batch in buffer._kept]


def test_nothing_is_lost_while_the_database_is_away(
    make_app: Callable[..., Flask], acme: Visitor, truth: Truth
) -> None:
    app = make_app(usage_flush_s=300)
    buffer = buffer_of(app)
    engine = app.extensions[DESK].database.engine

    def fail(*_arguments: object) -> None:
        raise ConnectionError("away")

    event.listen(engine, "before_cursor_execute", fail)
    buffer.add(acme.tenant_id, {"requests": 2})
    buffer.flush()
    buffer.add(acme.tenant_id, {"requests": 3})
    buffer.flush()
    assert requests_of(truth, acme) == 0
    event.remove(engine, "before_cursor_execute", fail)

    buffer.flush()

    assert requests_of(truth, acme) == 5


def test_tenant_that_is_being_erased_is_given_no_records(app: Flask, acme: Visitor, truth: Truth) -> None:
    buffer_of(app).add(acme.tenant_id, {"requests": 1})
    buffer_of(app).flush()
    assert records(truth, acme) == 1
    truth.execute("UPDATE tenants SET status = 'deleting' WHERE tenant_id = %s", [acme.tenant_id])

    buffer_of(app).add(acme.tenant_id, {"requests": 1})
    buffer_of(app).flush()

    assert records(truth, acme) == 1


def test_ledger_is_never_changed_by_its_tenant(app: Flask, acme: Visitor, truth: Truth) -> None:
    buffer_of(app).add(acme.tenant_id, {"requests": 1})
    buffer_of(app).flush()
    assert records(truth, acme) == 1

    engine = app.extensions[DESK].database.engine
    for forbidden in (
        "UPDATE usage_records SET amounts = '{}'",
        "DELETE FROM usage_records",
        "DELETE FROM usage_rollups",
    ):
        with (
            tenant_scope(acme.tenant_id),
            engine.connect() as connection,
            pytest.raises(Exception, match="permission denied"),
        ):
            connection.exec_driver_sql(forbidden)


# Stopping ---------------------------------------------------------------------------------------------


def ask(app: Flask, visitor: Visitor) -> None:
    headers = {"Authorization": f"Bearer {visitor.access_token}"}
    assert app.test_client(use_cookies=False).get("/api/v1/people", headers=headers).status_code == 200


def wait_until(is_so: Callable[[], bool], *, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def serving(
    make_settings: Callable[..., Settings], acme: Visitor, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(**settings: Any) -> subprocess.Popen[str]:
        told = tmp_path / f"settings-{len(started)}.json"
        told.write_text(json.dumps(plain(make_settings(**settings)), default=str))
        command = [sys.executable, "-m", "tests.app.metering_process", str(told), acme.access_token]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def serve(process: subprocess.Popen[str], times: int) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in range(times):
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "served 200\n"


def test_close_writes_what_is_left(make_app: Callable[..., Flask], acme: Visitor, truth: Truth) -> None:
    app = make_app(usage_flush_s=300)
    ask(app, acme)
    assert requests_of(truth, acme) == 0

    close_app(app)

    assert requests_of(truth, acme) == 1


def test_process_that_is_asked_to_stop_loses_nothing(
    serving: Callable[..., subprocess.Popen[str]], acme: Visitor, truth: Truth
) -> None:
    process = serving(usage_flush_s=300)
    serve(process, 5)
    assert requests_of(truth, acme) == 0

    process.terminate()

    assert process.wait(timeout=20) == 0
    assert requests_of(truth, acme) == 5


def test_process_that_is_killed_loses_no_more_than_since_the_last_writing(
    serving: Callable[..., subprocess.Popen[str]], acme: Visitor, truth: Truth
) -> None:
    process = serving(usage_flush_s=0.5)
    serve(process, 4)
    wait_until(lambda: requests_of(truth, acme) == 4)
    serve(process, 3)

    process.kill()
    process.wait(timeout=20)

    assert 4 <= requests_of(truth, acme) <= 7


# Summing ----------------------------------------------------------------------------------------------


def plant(truth: Truth, visitor: Visitor, *, ago: str, **amounts: int) -> None:
    """Put a record of some time ago into the ledger."""
    truth.execute(
        "INSERT INTO usage_records (tenant_id, id, key, at, amounts) "
        "VALUES (%s, gen_random_uuid(), gen_random_uuid()::text, now() - %s::interval, %s)",
        [visitor.tenant_id, ago, json.dumps(amounts)],
    )


def sums(truth: Truth, visitor: Visitor) -> list[tuple[str, int]]:
    found = truth.execute(
        "SELECT bucket, amount FROM usage_rollups WHERE tenant_id = %s AND meter = 'requests' ORDER BY bucket, amount",
        [visitor.tenant_id],
    )
    return [(str(bucket), int(amount)) for bucket, amount in found]


def roll_up(app: Flask) -> None:
    with app.app_context(), acting_as(JOB):
        run_rollup(app.extensions[DESK].database)


def test_hours_and_days_are_summed_and_summing_again_changes_nothing(app: Flask, acme: Visitor, truth: Truth) -> None:
    for ago, requests in (("49 hours", 1), ("48 hours", 2), ("48 hours", 4)):
        plant(truth, acme, ago=ago, requests=requests)

    roll_up(app)
    first = sums(truth, acme)
    roll_up(app)

    assert sum(amount for bucket, amount in first if bucket == "hour") == 7
    assert sum(amount for bucket, amount in first if bucket == "day") == 7
    assert sums(truth, acme) == first


def test_record_that_comes_late_is_in_the_next_sum(app: Flask, acme: Visitor, truth: Truth) -> None:
    plant(truth, acme, ago="50 hours", requests=1)
    roll_up(app)

    plant(truth, acme, ago="50 hours", requests=10)
    roll_up(app)

    assert sums(truth, acme) == [("day", 11), ("hour", 11)]


def test_what_is_read_is_the_same_before_and_after_summing(app: Flask, acme: Visitor, truth: Truth) -> None:
    buffer_of(app).flush()
    for ago in ("0 hours", "1 hour", "3 hours", "30 hours", "80 hours"):
        plant(truth, acme, ago=ago, requests=5, latency_us=5_000)

    before = [read(app, acme, query) for query in ("timeRange=10d", "timeRange=10d&bucket=hour")]
    roll_up(app)
    after = [read(app, acme, query) for query in ("timeRange=10d", "timeRange=10d&bucket=hour")]
    truth.execute(
        "DELETE FROM usage_records WHERE tenant_id = %s AND at < now() - interval '70 hours'", [acme.tenant_id]
    )

    assert sum(bucket["requests"] for bucket in before[0]) == 25
    assert after == before
    assert sum(bucket["requests"] for bucket in read(app, acme, "timeRange=10d")) == 25


def read(app: Flask, visitor: Visitor, query: str) -> list[dict[str, Any]]:
    """Read as staff, whose requests are nobody's usage."""
    answer = staff_client(app).get(f"/tenants/{visitor.tenant_id}/usage?{query}")
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: list[dict[str, Any]] = answer.get_json()["buckets"]
    return found


def test_stock_is_noted_once_a_day_and_the_greatest_counts(app: Flask, acme: Visitor, truth: Truth) -> None:
    database = app.extensions[DESK].database
    for _ in range(2):
        with app.app_context(), acting_as(JOB):
            stock_of(database, acme.tenant_id, keep_days=90)
    assert records(truth, acme) == 1

    found = total(acme)

    assert (found["members"], found["storage_bytes"], found["cards"]) == (1, 0, 0)


def test_stock_sets_counters_right_and_removes_old_records(app: Flask, acme: Visitor, truth: Truth) -> None:
    assert acme.post("/api/v1/cards", json={"number": "1", "year": 1990, "condition": "mint"}).status_code == 201
    truth.execute("UPDATE quota_counters SET used = 5 WHERE tenant_id = %s AND quota = 'cards'", [acme.tenant_id])
    plant(truth, acme, ago="4 days", requests=1)
    plant(truth, acme, ago="1 day", requests=1)

    with app.app_context(), acting_as(JOB):
        off = stock_of(app.extensions[DESK].database, acme.tenant_id, keep_days=2)

    assert off == {"cards": -4}
    assert requests_of(truth, acme) == 1


def test_night_job_takes_stock_of_every_tenant_also_past_one_that_fails(
    make_app: Callable[..., Flask], acme: Visitor, globex: Visitor, truth: Truth
) -> None:
    app = make_app(usage_keep_days=2)
    plant(truth, globex, ago="4 days", requests=1)

    def count_cards(session: Any) -> int:
        if session.tenant_id == acme.tenant_id:
            raise ZeroDivisionError
        return 3

    register_counter(app, Quota.CARDS, count_cards)
    before = UUID(int=min(acme.tenant_id, globex.tenant_id).int - 1)
    job = Job(1, "usage.take_stock", None, 1, None, app.extensions[DESK].database, app.extensions[DESK].directory, bool)

    with app.app_context(), acting_as(JOB), platform_scope(actor="tests", reason="tests", reads_only=False):
        take_stock.function(job, after=str(before))

    assert records(truth, acme) == 0
    assert records(truth, globex) == 1
    assert requests_of(truth, globex) == 0  # what was older than the setting keeps is gone
    waiting = truth.execute("SELECT count(*) FROM jobs.procrastinate_jobs WHERE task_name = 'usage.take_stock'")
    assert waiting.fetchone() == (1,)


# Reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "30", "0d", "-1d", "1w", "1000d", "d", "30d ", "١d"])
def test_range_that_is_none_is_refused(acme: Visitor, given: str) -> None:
    answer = acme.get("/api/v1/usage", query_string={"timeRange": given})

    assert codes(answer) == (400, "invalid_input")


def test_range_too_long_by_hour_is_refused(acme: Visitor) -> None:
    answer = acme.get("/api/v1/usage?timeRange=32d&bucket=hour")

    assert codes(answer) == (400, "invalid_input")
    assert fields(answer) == ["query.timeRange"]


def test_times_without_usage_are_there_too(acme: Visitor) -> None:
    answer = acme.get("/api/v1/usage?timeRange=3d").get_json()

    assert [bucket["requests"] for bucket in answer["buckets"]] == [0, 0, 0, 0]
    assert answer["total"]["latency_ms"] is None


def test_quotas_tell_what_is_used_and_allowed(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.CARDS, 4)
    assert acme.post("/api/v1/cards", json={"number": "1", "year": 1990, "condition": "mint"}).status_code == 201

    found = {item["quota"]: item for item in acme.get("/api/v1/quotas").get_json()["items"]}

    assert found["cards"] == {"quota": "cards", "used": 1, "limit": 4, "percent": 25.0, "resets_in_s": None}
    assert (found["users"]["used"], found["users"]["limit"]) == (1, 100)
    assert 0 < found["api_calls_day"]["resets_in_s"] <= 86_400


def test_events_are_listed_for_the_tenant_and_for_staff(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.CARDS, 1)
    assert acme.post("/api/v1/cards", json={"number": "1", "year": 1990, "condition": "mint"}).status_code == 201

    mine = acme.get("/api/v1/quotas/events").get_json()["items"]
    staffs = staff_client(app, StaffRole.READ_ONLY).get(f"/tenants/{acme.tenant_id}/quotas/events").get_json()["items"]

    assert sorted(item["percent"] for item in mine) == [80, 100]
    assert staffs == mine


def test_staff_have_counters_counted_again(app: Flask, acme: Visitor, truth: Truth) -> None:
    assert acme.post("/api/v1/cards", json={"number": "1", "year": 1990, "condition": "mint"}).status_code == 201
    truth.execute("UPDATE quota_counters SET used = 9 WHERE tenant_id = %s AND quota = 'cards'", [acme.tenant_id])
    staff = staff_client(app)

    answer = staff.post(f"/tenants/{acme.tenant_id}/quotas/recount", json={"reason": "they complain"})

    assert (answer.status_code, answer.get_json()) == (200, {"off": {"cards": -8}})
    quotas = staff.get(f"/tenants/{acme.tenant_id}/quotas").get_json()["items"]
    assert [item["used"] for item in quotas if item["quota"] == "cards"] == [1]


def test_member_whose_role_does_not_include_it_reads_no_usage(app: Flask, acme: Visitor) -> None:
    assert acme.get("/api/v1/usage").status_code == 200
    with staff_in(app, acme) as session:
        session.connection().exec_driver_sql("UPDATE members SET role = 'member'")
        assert session.get(Tenant, acme.tenant_id) is not None

    for path in ("usage", "quotas", "quotas/events"):
        assert codes(acme.get(f"/api/v1/{path}")) == (403, "forbidden")


def test_run_looks_no_further_back_than_it_is_told(app: Flask, acme: Visitor, truth: Truth) -> None:
    plant(truth, acme, ago="0 hours", requests=1)
    truth.execute(
        "UPDATE usage_records SET written_at = now() - interval '2 days' WHERE tenant_id = %s", [acme.tenant_id]
    )

    with app.app_context(), acting_as(JOB):
        run_rollup(app.extensions[DESK].database, within=timedelta(hours=1))

    assert sums(truth, acme) == []
