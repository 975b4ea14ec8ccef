"""Security events: what was refused is counted and written in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from app import close_app
from app.audit.security import MOST_KINDS, SecurityEvents
from tests.app.conftest import PASSWORD, Truth, Visitor, codes, new_email

LOGIN = "/api/v1/auth/login"


@pytest.fixture
def events(app: Flask) -> Iterator[SecurityEvents]:
    found: SecurityEvents = app.extensions["security_events"]
    found.flush()
    yield found
    found.flush()


def written(truth: Truth, action: str, detail: str) -> list[tuple[Any, ...]]:
    times = "SELECT (after ->> 'times')::int, actor_kind FROM platform_entries"
    return truth.execute(f"{times} WHERE action = %s AND after ->> 'detail' = %s", [action, detail]).fetchall()


def test_failed_sign_ins_of_one_address_are_one_entry(acme: Visitor, events: SecurityEvents, truth: Truth) -> None:
    for _ in range(3):
        answer = acme.client.post(LOGIN, json={"email": acme.email, "password": "wrong"})
        assert codes(answer) == (401, "not_signed_in")
    assert written(truth, "sign_in.failed", acme.email) == []

    events.flush()

    assert written(truth, "sign_in.failed", acme.email) == [(3, "system")]


def test_password_that_was_tried_is_nowhere(acme: Visitor, events: SecurityEvents, truth: Truth) -> None:
    acme.client.post(LOGIN, json={"email": acme.email, "password": "hunter2-hunter2"})

    events.flush()

    row = truth.execute("SELECT count(*) FROM platform_entries e WHERE e::text LIKE '%%hunter2%%'").fetchone()
    assert row == (0,)
    assert written(truth, "sign_in.failed", acme.email) == [(1, "system")]


def test_sign_in_that_succeeds_is_no_event(acme: Visitor, events: SecurityEvents, truth: Truth) -> None:
    assert acme.client.post(LOGIN, json={"email": acme.email, "password": PASSWORD}).status_code == 200

    events.flush()

    assert written(truth, "sign_in.failed", acme.email) == []


def test_conflicting_references_are_in_the_platforms_audit_and_in_no_tenants(
    acme: Visitor, globex: Visitor, events: SecurityEvents, truth: Truth
) -> None:
    """T096"""
    answer = acme.get("/api/v1/people", headers={"X-Tenant-Slug": globex.slug, "Origin": "http://from.test"})
    assert codes(answer) == (403, "conflicting_references")

    events.flush()

    assert written(truth, "tenant_references.conflicted", "http://from.test")
    count = "SELECT count(*) FROM audit_entries WHERE action = 'tenant_references.conflicted'"
    assert truth.execute(count).fetchone() == (0,)


def test_request_of_another_site_is_in_the_tenants_audit(app: Flask, acme: Visitor, events: SecurityEvents) -> None:
    """T107"""
    browser = app.test_client()
    host = f"http://{acme.slug}.localhost"
    refused = browser.post("/sign-in", base_url=host, headers={"Origin": "http://evil.test"})
    assert refused.status_code == 403

    events.flush()

    (entry,) = acme.get("/api/v1/audit", query_string={"action": "cross_site_request.refused"}).get_json()["items"]
    assert entry["after"]["detail"] == "http://evil.test"


def test_events_are_written_by_themselves_after_a_while(app: Flask, truth: Truth) -> None:
    made = SecurityEvents(app.extensions["auth"].database, flush_s=0.05)
    detail = new_email()

    made.note("sign_in.failed", tenant_id=None, detail=detail)
    timer = made._timer
    assert timer is not None
    timer.join(10)

    assert written(truth, "sign_in.failed", detail) == [(1, "system")]


def test_kinds_without_number_are_counted_as_one(app: Flask, truth: Truth) -> None:
    made = SecurityEvents(app.extensions["auth"].database, flush_s=60)
    action = f"flood.{new_email()}"

    for number in range(MOST_KINDS + 50):
        made.note(action, tenant_id=None, detail=str(number))
    made.flush()

    rows = truth.execute("SELECT count(*) FROM platform_entries WHERE action = %s", [action]).fetchone()
    assert rows == (MOST_KINDS + 1,)
    assert written(truth, action, "of many kinds") == [(50, "system")]


def test_what_is_counted_is_written_when_the_application_closes(make_app: Callable[..., Flask], truth: Truth) -> None:
    made, email = make_app(), new_email()
    made.test_client().post(LOGIN, json={"email": email, "password": "wrong"})
    assert written(truth, "sign_in.failed", email) == []

    close_app(made)

    assert written(truth, "sign_in.failed", email) == [(1, "system")]
