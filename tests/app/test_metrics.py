"""Metrics: what happened is counted, nobody outside can add a label, and nobody reads them without the token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError
from sqlalchemy import text
from werkzeug.test import TestResponse

from app.auth.access import anyone
from app.config import Settings
from app.db import session
from tests.app.conftest import PASSWORD, Truth, Visitor, codes, new_email, visitor_of

TOKEN = "t" * 32
Labels = tuple[tuple[str, str], ...]


@pytest.fixture
def measured(make_app: Callable[..., Flask]) -> Flask:
    return make_app(metrics_token=TOKEN)


def scrape(client: FlaskClient, token: str = TOKEN) -> TestResponse:
    return client.get("/metrics", headers={"Authorization": f"Bearer {token}"})


def samples(client: FlaskClient) -> dict[tuple[str, Labels], float]:
    """Every sample of one scrape, by its name and labels."""
    answer = scrape(client)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.get_data(as_text=True))
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def value(client: FlaskClient, name: str, **labels: str) -> float:
    """The sum of the samples with these labels among theirs."""
    return sum(
        number
        for (found, theirs), number in samples(client).items()
        if found == name and labels.items() <= dict(theirs).items()
    )


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def owner_of(app: Flask) -> Visitor:
    client = app.test_client(use_cookies=False)
    given = {"organization_name": "Acme", "admin_email": new_email(), "admin_password": PASSWORD, "plan": "basic"}
    return visitor_of(client, client.post("/api/v1/auth/register-organization", json=given))


# The way in -------------------------------------------------------------------------------------------


def test_without_a_token_in_the_settings_there_is_no_endpoint(app: Flask) -> None:
    assert app.test_client().get("/metrics").status_code == 404
    assert scrape(app.test_client()).status_code == 401  # taken for a token of a tenant's, as anywhere


@pytest.mark.parametrize("sent", ["", "wrong", TOKEN[:-1], TOKEN + "x", "\xe9"])
def test_whoever_has_not_the_token_reads_nothing(measured: Flask, sent: str) -> None:
    answer = scrape(measured.test_client(), sent)

    assert codes(answer) == (401, "not_signed_in")
    assert "crm_requests" not in answer.get_data(as_text=True)


def test_short_token_is_refused_at_the_start(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(Exception, match="APP_METRICS_TOKEN") as refused:
        make_settings(metrics_token="short")

    assert not isinstance(refused.value, ValidationError)


# What is counted --------------------------------------------------------------------------------------


def test_requests_are_counted_and_timed_by_route_method_status_and_plan(measured: Flask) -> None:
    acme = owner_of(measured)
    for _ in range(3):
        acme.get("/api/v1/people")

    route = {"route": "/api/v1/people", "method": "GET"}
    assert value(acme.client, "crm_requests_total", **route, status="2xx", plan="basic") == 3
    assert value(acme.client, "crm_request_seconds_count", **route) == 3
    assert value(acme.client, "crm_resolutions_total", outcome="found") == 3


def test_refusals_are_counted_by_their_code_and_resolutions_by_their_outcome(measured: Flask) -> None:
    acme = owner_of(measured)
    client = acme.client

    client.get("/api/v1/people", headers={"X-Tenant-Slug": "nobody-has-this"})
    client.get("/api/v1/people", headers={"X-Tenant-Slug": acme.slug})
    client.get("/api/v1/people", headers={"X-Tenant-Slug": "not a slug"})
    acme.get("/api/v1/people/01900000-0000-7000-8000-000000000000")

    assert value(client, "crm_refusals_total", status="404", code="tenant_not_found") == 1
    assert value(client, "crm_refusals_total", status="404", code="not_found") == 1
    assert value(client, "crm_refusals_total", status="401", code="not_signed_in") == 1
    assert value(client, "crm_resolutions_total", outcome="tenant_not_found") == 1
    assert value(client, "crm_resolutions_total", outcome="malformed_reference") == 1


def test_budget_that_refuses_is_counted(make_app: Callable[..., Flask]) -> None:
    app = make_app(metrics_token=TOKEN, tenant_concurrency=1, tenant_wait_s=0, tenant_waiting=0)
    entered, leave = threading.Event(), threading.Event()

    @app.get("/api/v1/slow")
    @anyone(reason="a test")
    def slow() -> str:
        session().execute(text("SELECT 1"))
        entered.set()
        leave.wait(20)
        return ""

    acme = owner_of(app)
    holder = threading.Thread(target=acme.get, args=("/api/v1/slow",))
    holder.start()
    entered.wait(20)
    refused = acme.get("/api/v1/people")
    in_use = value(acme.client, "crm_pool_connections", role="app", state="in_use")
    leave.set()
    holder.join()

    assert codes(refused) == (429, "tenant_busy")
    assert value(acme.client, "crm_refusals_total", status="429", code="tenant_busy") == 1
    assert in_use == 1
    assert value(acme.client, "crm_pool_connections", role="app", state="in_use") == 0


def test_directory_is_asked_once_for_what_it_remembers(measured: Flask) -> None:
    acme = owner_of(measured)
    acme.get("/api/v1/people")
    until(lambda: measured.extensions["auth"].directory.is_listening)
    acme.get("/api/v1/people")
    before = value(acme.client, "crm_directory_lookups_total")
    for _ in range(5):
        acme.get("/api/v1/people")

    assert before > 0
    assert value(acme.client, "crm_directory_lookups_total") == before


def test_unwrapped_keys_are_counted(measured: Flask) -> None:
    acme = owner_of(measured)
    answer = acme.call("PUT", "/api/v1/settings/webhooks.signing_secret", json={"value": "s" * 30})

    assert answer.status_code == 200, answer.get_data(as_text=True)
    keyring = measured.extensions["keyring"]
    assert value(acme.client, "crm_key_unwraps_total") == keyring.unwraps


def test_jobs_are_counted_by_state_and_the_queue_by_its_lag(measured: Flask, truth: Truth) -> None:
    acme = owner_of(measured)
    truth.execute(
        "INSERT INTO jobs.procrastinate_jobs (tenant, queue_name, task_name, args, scheduled_at)"
        " VALUES (%s, 'default', 'files.tidy', '{}', now() - interval '1 hour')",
        [acme.tenant_id],
    )

    waiting = value(acme.client, "crm_jobs", state="waiting")
    lag_s = value(acme.client, "crm_job_lag_seconds")
    truth.execute("DELETE FROM jobs.procrastinate_jobs WHERE tenant = %s", [acme.tenant_id])

    assert waiting >= 1
    assert lag_s >= 3_600


# What is no label -------------------------------------------------------------------------------------


def test_a_thousand_tenants_and_hostile_requests_add_no_label(measured: Flask, truth: Truth) -> None:
    client = measured.test_client(use_cookies=False)
    acme = owner_of(measured)
    made = truth.execute(
        "INSERT INTO tenants (tenant_id, slug, name, status, plan, plan_version)"
        " SELECT uuidv7(), 'm-' || replace(uuidv7()::text, '-', ''), 'Many', 'active', plan, plan_version"
        " FROM tenants, generate_series(1, 1000) WHERE tenant_id = %s RETURNING slug",
        [acme.tenant_id],
    ).fetchall()

    def visit(slug: str, hostile: str) -> None:
        host = {"X-Tenant-Slug": slug}
        client.get("/api/v1/people", headers=host)
        if not hostile.endswith("7"):
            return
        client.get(f"/nothing/{hostile}", headers={"Host": f"{hostile}.example.com"})
        client.open("/api/v1/people", method="".join(c for c in hostile if c.isalpha()).upper(), headers=host)
        client.get(f"/api/v1/people/{hostile}", headers={"X-Tenant-Slug": hostile})

    visit(made[0][0], "first7")
    scrape(client)
    before = samples(client)
    for number, (slug,) in enumerate(made[1:]):
        visit(slug, f"x{number}")

    after = samples(client)
    assert len(made) == 1_000
    assert after.keys() == before.keys()
    assert sum(number for (name, _), number in after.items() if name == "crm_requests_total") > 1_290
    assert acme.slug not in str(after)
    assert str(acme.tenant_id) not in str(after)


# Many processes ---------------------------------------------------------------------------------------

PROCESS = """
import json, sys
from app import close_app, create_app
from app.config import development_settings
app = create_app(development_settings(**json.loads(sys.argv[1])))
client = app.test_client()
for _ in range(int(sys.argv[2])):
    client.get("/health/live")
if sys.argv[3] == "scrape":
    answer = client.get("/metrics", headers={"Authorization": "Bearer " + "t" * 32})
    print(answer.get_data(as_text=True))
close_app(app)
"""


def test_processes_that_share_a_folder_are_counted_together(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings()
    given = json.dumps(
        {
            "database_url": settings.database_url.get_secret_value(),
            "platform_database_url": settings.platform_database_url.get_secret_value(),
            "metrics_token": TOKEN,
            "log_level": "ERROR",
        }
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    for times, what in (("3", "leave"), ("4", "scrape")):
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, given, times, what],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )

    lines = [line for line in done.stdout.splitlines() if line.startswith("crm_requests_total")]
    assert [line.rpartition(" ")[2] for line in lines if "/health/live" in line] == ["7.0"]
