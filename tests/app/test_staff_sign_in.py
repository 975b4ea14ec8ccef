"""Platform staff signing in and out, and where their tokens and keys are worth anything."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from app.auth.desk import EXTENSION
from app.staff.permissions import StaffPermission
from tests.app.conftest import PASSWORD, Truth, Visitor, codes, new_email
from tests.app.staffing import add_staff, key_client, staff_client


def test_staff_member_sees_who_she_is(app: Flask) -> None:
    ana = staff_client(app)

    found = ana.get("/auth/me").get_json()

    assert found["email"] == ana.email
    assert found["role"] == "owner"
    assert "staff.manage" in found["permissions"]


def test_key_has_its_own_permissions_and_no_role(app: Flask) -> None:
    program = key_client(app, StaffPermission.TENANTS_READ)

    found = program.get("/auth/me").get_json()

    assert found["role"] is None
    assert found["permissions"] == ["tenants.read"]


def test_token_of_a_tenant_is_refused_on_admin_routes(client: FlaskClient, acme: Visitor) -> None:
    assert acme.get("/api/v1/me").status_code == 200

    assert codes(acme.get("/api/v1/admin/auth/me")) == (401, "not_signed_in")


def test_token_of_staff_is_refused_on_tenant_routes(app: Flask, acme: Visitor) -> None:
    ana = staff_client(app)
    headers = {"Authorization": f"Bearer {ana.token}", "X-Tenant-Slug": acme.slug}
    assert ana.get("/auth/me").status_code == 200

    answer = ana.client.get("/api/v1/people", headers=headers)

    assert answer.status_code == 401


def test_signed_out_token_stops_at_once(app: Flask) -> None:
    ana = staff_client(app)
    assert ana.get("/auth/me").status_code == 200

    assert ana.post("/auth/logout").status_code == 204

    assert codes(ana.get("/auth/me")) == (401, "not_signed_in")


def test_sign_in_that_has_expired_stops(app: Flask, truth: Truth) -> None:
    ana = staff_client(app)
    assert ana.get("/auth/me").status_code == 200

    truth.execute("UPDATE staff_sign_ins SET expires_at = now() WHERE staff_id = %s", [ana.id])

    assert codes(ana.get("/auth/me")) == (401, "not_signed_in")


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer stf_", "Bearer key_00000000_x", "Basic YTpi", "Bearer once_x", "stf_x"],
)
def test_nothing_else_signs_staff_in(app: Flask, client: FlaskClient, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}

    answer = client.get("/api/v1/admin/tenants", headers=headers)

    assert codes(answer) == (401, "not_signed_in")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_cookie_of_a_tenants_page_signs_nobody_in_as_staff(app: Flask, acme: Visitor) -> None:
    browser = app.test_client()
    form = {"email": acme.email, "password": PASSWORD}
    origin = f"http://{acme.slug}.localhost"
    page = browser.get("/sign-in", base_url=origin)
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.get_data(as_text=True))
    assert token is not None
    assert browser.post("/sign-in", base_url=origin, data=form | {"csrf_token": token[1]}).status_code == 303

    assert codes(browser.get("/api/v1/admin/auth/me", base_url=origin)) == (401, "not_signed_in")


@pytest.fixture
def statements(app: Flask) -> Iterator[list[str]]:
    """Every statement sent meanwhile, by both roles."""
    sent: list[str] = []
    database = app.extensions[EXTENSION].database

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        sent.append(statement)

    for engine in (database.engine, database.platform_engine):
        event.listen(engine, "before_cursor_execute", note)
    yield sent
    for engine in (database.engine, database.platform_engine):
        event.remove(engine, "before_cursor_execute", note)


def test_unknown_address_takes_the_same_steps_and_words_as_a_wrong_password(
    app: Flask, client: FlaskClient, statements: list[str], truth: Truth
) -> None:
    _, known = add_staff(app)
    _, disabled = add_staff(app)
    truth.execute("UPDATE staff_accounts SET disabled_at = now() WHERE email = %s", [disabled])
    tries = [(known, "wrong password"), (new_email(), PASSWORD), (disabled, PASSWORD)]

    told, taken = [], []
    for email, password in tries:
        statements.clear()
        answer = client.post("/api/v1/admin/auth/login", json={"email": email, "password": password})
        told.append((codes(answer), answer.get_json()["detail"]))
        taken.append(list(statements))

    assert told[0] == told[1] == told[2]
    assert told[0][0] == (401, "not_signed_in")
    assert taken[0] == taken[1] == taken[2]
    assert len(taken[0]) == 3  # the attempt is counted first


def test_password_is_checked_against_some_hash_for_an_unknown_address_too(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(argon2_time_cost=20, argon2_memory_kib=16_384)
    _, known = add_staff(app)
    client = app.test_client()

    def cpu_s(email: str) -> float:
        before = time.process_time()
        answer = client.post("/api/v1/admin/auth/login", json={"email": email, "password": "wrong password"})
        assert answer.status_code == 401
        return time.process_time() - before

    cpu_s(known)
    of_known, of_unknown = (min(cpu_s(email) for _ in range(3)) for email in (known, new_email()))
    assert of_known > 0.05
    assert 0.5 < of_unknown / of_known < 2
