"""Health: what is wrong is named, with a reason and what to do; a part that hangs holds nobody up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from obstore.store import MemoryStore
from pydantic import SecretStr
from sqlalchemy import Column, Integer, MetaData, Table

from app import close_app, create_app
from app.auth.access import anyone
from app.config import Settings
from app.files.storage import Files
from app.models import Base
from app.observability.health import health_of
from app.observability.probes import Prober, State
from app.observability.readiness import Parts, Readiness
from app.observability.windows import Windows
from tenancy.namespaces import TenantStorage
from tests.app.conftest import PASSWORD, Truth, Visitor, codes, new_email, visitor_of
from tests.app.staffing import staff_client

NOWHERE = "postgresql+psycopg://somebody:hunter22@127.0.0.1:1/nowhere"
ACME, GLOBEX = UUID(int=1), UUID(int=2)


def part(body: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in body["checks"] if one["name"] == name]
    return dict(found)


@pytest.fixture
def cut_off(make_settings: Callable[..., Settings]) -> Iterator[Callable[[str], Flask]]:
    """Make an application one of whose URLs leads nowhere."""
    made: list[Flask] = []

    def make(setting: str) -> Flask:
        made.append(create_app(make_settings().model_copy(update={setting: SecretStr(NOWHERE)})))
        return made[-1]

    yield make
    for one in made:
        close_app(one)


def owner_of(app: Flask) -> Visitor:
    client = app.test_client(use_cookies=False)
    given = {"organization_name": "Acme", "admin_email": new_email(), "admin_password": PASSWORD, "plan": "basic"}
    return visitor_of(client, client.post("/api/v1/auth/register-organization", json=given))


# The process ------------------------------------------------------------------------------------------


def test_process_is_ready_when_every_part_stands(app: Flask) -> None:
    answer = app.test_client().get("/health/ready")

    assert answer.status_code == 200, answer.get_json()
    assert [(one["name"], one["state"]) for one in answer.get_json()["checks"]] == [
        ("database", "ok"),
        ("platform", "ok"),
        ("migrations", "ok"),
        ("listener", "ok"),
    ]
    assert answer.headers["Cache-Control"] == "no-store"


def test_process_lives_without_its_database_and_is_not_ready(cut_off: Callable[[str], Flask]) -> None:
    client = cut_off("database_url").test_client()

    live, ready = client.get("/health/live"), client.get("/health/ready")

    assert (live.status_code, live.get_json()) == (200, {"state": "ok"})
    assert ready.status_code == 503
    assert part(ready.get_json(), "database")["state"] == "down"
    assert part(ready.get_json(), "platform")["state"] == "ok"
    assert "APP_DATABASE_URL" in part(ready.get_json(), "database")["fix"]


@pytest.mark.parametrize("setting", ["database_url", "platform_database_url"])
def test_answer_of_a_probe_has_no_secret(cut_off: Callable[[str], Flask], setting: str) -> None:
    answer = cut_off(setting).test_client().get("/health/ready")

    assert answer.status_code == 503
    for secret in ("hunter22", "somebody", "127.0.0.1", "nowhere"):
        assert secret not in answer.get_data(as_text=True)


def test_platform_that_cannot_sign_in_is_named(cut_off: Callable[[str], Flask]) -> None:
    answer = cut_off("platform_database_url").test_client().get("/health/ready")

    down = [one["name"] for one in answer.get_json()["checks"] if one["state"] == "down"]
    assert (answer.status_code, down) == (503, ["platform"])


def test_listener_that_hears_nothing_is_named_and_requests_still_come(cut_off: Callable[[str], Flask]) -> None:
    answer = cut_off("listen_database_url").test_client().get("/health/ready")

    assert (answer.status_code, answer.get_json()["state"]) == (200, "degraded")
    assert part(answer.get_json(), "listener")["state"] == "degraded"
    assert "APP_LISTEN_DATABASE_URL" in part(answer.get_json(), "listener")["fix"]


def test_database_behind_this_release_is_named(app: Flask, make_settings: Callable[..., Settings]) -> None:
    desk, ahead = app.extensions["auth"], MetaData()
    for table in Base.metadata.tables.values():
        table.to_metadata(ahead)
    Table("of_the_next_release", ahead, Column("id", Integer, primary_key=True))
    url = make_settings().platform_database_url.get_secret_value()
    prober = Prober(timeout_s=5)

    checks = Readiness(Parts(desk.database.engine, url, desk.directory, ahead), prober).checks()

    prober.close()
    found = {one.name: one for one in checks}
    assert found["database"].state is State.OK
    assert found["migrations"].state is State.DOWN
    assert "of_the_next_release.id" in found["migrations"].reason


def test_probes_in_a_row_ask_the_database_once(app: Flask, truth: Truth) -> None:
    client = app.test_client()
    first = [client.get("/health/ready").get_json() for _ in range(20)]

    assert all(one == first[0] for one in first)  # the times taken, too


# A tenant ---------------------------------------------------------------------------------------------


def test_healthy_tenant_is_told_so(acme: Visitor) -> None:
    body = acme.get("/api/v1/health").get_json()

    assert [(one["name"], one["state"]) for one in body["checks"]] == [
        ("database", "ok"),
        ("cache", "ok"),
        ("storage", "ok"),
        ("queue", "ok"),
        ("requests", "ok"),
    ]
    assert body["state"] == "ok"


def test_staff_see_the_health_of_a_tenant_and_none_of_a_stranger(app: Flask, acme: Visitor) -> None:
    staff = staff_client(app)

    found = staff.get(f"/tenants/{acme.tenant_id}/health")
    nobody = staff.get(f"/tenants/{UUID(int=7)}/health")

    assert (found.status_code, found.get_json()["state"]) == (200, "ok")
    assert codes(nobody) == (404, "not_found")


def test_cache_that_is_away_is_named_to_staff_and_only_hinted_at_to_the_tenant(make_app: Callable[..., Flask]) -> None:
    app = make_app(cache_url="redis://127.0.0.1:1/0")
    acme = owner_of(app)

    told = part(acme.get("/api/v1/health").get_json(), "cache")
    seen = part(staff_client(app).get(f"/tenants/{acme.tenant_id}/health").get_json(), "cache")

    assert (told["state"], seen["state"]) == ("down", "down")
    assert "APP_CACHE_URL" in seen["fix"]
    assert "APP_CACHE_URL" not in told["fix"]


class HangingStore(MemoryStore):
    """A storage that takes requests and does not answer them, until it is let go."""

    let_go = threading.Event()

    def list(self, *_: Any, **__: Any) -> Any:
        self.let_go.wait(30)
        return iter(())


@pytest.fixture
def hanging(make_app: Callable[..., Flask]) -> Iterator[Flask]:
    app = make_app(health_timeout_s=0.3)
    HangingStore.let_go.clear()
    store = HangingStore()
    app.extensions["files"] = Files(store, TenantStorage(store), 1_000)
    yield app
    HangingStore.let_go.set()


def test_storage_that_hangs_is_down_in_time_and_the_rest_is_told(hanging: Flask) -> None:
    acme = owner_of(hanging)
    began_at = time.monotonic()

    body = acme.get("/api/v1/health").get_json()

    assert time.monotonic() - began_at < 3
    assert (part(body, "storage")["state"], part(body, "database")["state"]) == ("down", "ok")
    assert part(body, "storage")["reason"] == "No answer within 0.3 s."
    assert body["state"] == "down"


def add_job(truth: Truth, tenant_id: UUID, status: str, *, minutes_ago: int = 0) -> None:
    truth.execute(
        "INSERT INTO jobs.procrastinate_jobs (tenant, queue_name, task_name, args, status, scheduled_at)"
        " VALUES (%s, 'default', 'files.tidy', '{}', %s, now() - make_interval(mins => %s))",
        [tenant_id, status, minutes_ago],
    )


def test_failed_jobs_are_named_with_where_to_look(app: Flask, acme: Visitor, truth: Truth) -> None:
    add_job(truth, acme.tenant_id, "failed")

    queue = part(staff_client(app).get(f"/tenants/{acme.tenant_id}/health").get_json(), "queue")

    assert (queue["state"], queue["reason"]) == ("degraded", "1 jobs have failed.")
    followed = staff_client(app).call("GET", queue["link"].removeprefix("/api/v1/admin"))
    assert [one["state"] for one in followed.get_json()["items"]] == ["failed"]


def test_jobs_without_a_worker_are_down_and_with_one_that_is_slow_degraded(
    app: Flask, acme: Visitor, globex: Visitor, truth: Truth
) -> None:
    add_job(truth, acme.tenant_id, "todo", minutes_ago=10)
    add_job(truth, globex.tenant_id, "todo", minutes_ago=10)
    truth.execute("DELETE FROM jobs.procrastinate_workers")

    alone = part(acme.get("/api/v1/health").get_json(), "queue")
    truth.execute("INSERT INTO jobs.procrastinate_workers DEFAULT VALUES")
    slow = part(globex.get("/api/v1/health").get_json(), "queue")
    truth.execute("DELETE FROM jobs.procrastinate_workers")
    truth.execute("DELETE FROM jobs.procrastinate_jobs WHERE tenant IN (%s, %s)", [acme.tenant_id, globex.tenant_id])

    assert (alone["state"], alone["reason"]) == ("down", "1 jobs wait, and no worker is alive.")
    assert (slow["state"], slow["reason"]) == ("degraded", "1 jobs wait, the first for 10 minutes.")


def test_jobs_of_another_tenant_make_nobody_ill(acme: Visitor, globex: Visitor, truth: Truth) -> None:
    add_job(truth, globex.tenant_id, "failed")
    add_job(truth, globex.tenant_id, "todo", minutes_ago=10)
    truth.execute("DELETE FROM jobs.procrastinate_workers")
    theirs = part(globex.get("/api/v1/health").get_json(), "queue")
    ours = part(acme.get("/api/v1/health").get_json(), "queue")
    truth.execute("DELETE FROM jobs.procrastinate_jobs WHERE tenant = %s", [globex.tenant_id])

    assert (theirs["state"], ours["state"]) == ("down", "ok")


def test_failing_requests_of_one_tenant_show_in_its_health_only(make_app: Callable[..., Flask]) -> None:
    app = make_app()

    @app.get("/api/v1/fails")
    @anyone(reason="a test")
    def fails() -> str:
        raise RuntimeError("oven")

    acme, globex = owner_of(app), owner_of(app)
    for _ in range(30):
        acme.get("/api/v1/fails")

    ill, well = acme.get("/api/v1/health").get_json(), globex.get("/api/v1/health").get_json()

    assert (part(ill, "requests")["state"], part(ill, "requests")["reason"]) == ("down", "100% of 30 requests failed.")
    assert (ill["window"]["errors"], ill["window"]["uptime"], well["window"]["errors"]) == (30, 0.0, 0)
    assert part(well, "requests")["state"] == "ok"


def test_member_without_the_permission_is_refused(app: Flask, acme: Visitor, truth: Truth) -> None:
    truth.execute("UPDATE members SET role = 'member' WHERE tenant_id = %s", [acme.tenant_id])

    assert codes(acme.get("/api/v1/health")) == (403, "forbidden")


# The windows ------------------------------------------------------------------------------------------


def test_window_counts_one_tenant_and_rounds_its_slowest_up() -> None:
    windows = Windows()
    for took_ms in [4.0] * 18 + [40.0] * 2:
        windows.note(ACME, is_error=took_ms == 40.0, took_ms=took_ms)
    windows.note(GLOBEX, is_error=True, took_ms=9_000.0)

    found = windows.of(ACME)

    assert (found.requests, found.errors, found.error_rate) == (20, 2, 0.1)
    assert (found.p95_ms, found.mean_ms, found.uptime) == (50.0, 7.6, 1.0)


def test_window_of_a_tenant_that_asked_nothing_claims_nothing() -> None:
    found = Windows().of(ACME)

    assert (found.requests, found.error_rate, found.uptime, found.p95_ms) == (0, None, None, None)


def test_windows_of_many_tenants_stay_within_their_bound() -> None:
    windows = Windows(most_tenants=3)
    for number in range(50):
        windows.note(UUID(int=number), is_error=False, took_ms=1.0)

    assert [windows.of(UUID(int=number)).requests for number in (46, 47, 48, 49)] == [0, 1, 1, 1]


def test_setting_bounds_the_patience_of_probes(make_app: Callable[..., Flask]) -> None:
    assert health_of(make_app(health_timeout_s=0.7))._prober.timeout_s == 0.7
