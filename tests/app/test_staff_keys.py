"""API keys: what they reach, and when they stop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from app.staff.permissions import StaffPermission, StaffRole
from tests.app.conftest import Truth, codes, fields
from tests.app.staffing import Staffer, key_client, staff_client

REASON = {"reason": "the nightly report"}


@pytest.fixture
def ana(app: Flask) -> Staffer:
    return staff_client(app)


def in_days(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def make(staffer: Staffer, *permissions: str, **given: Any) -> Any:
    body = {"name": "report", "permissions": list(permissions), "expires_at": in_days(30), **REASON}
    return staffer.post("/api-keys", json=body | given)


def program_of(ana: Staffer, made: dict[str, Any]) -> Staffer:
    return Staffer(ana.client, ana.id, ana.email, made["secret"])


def test_made_key_reaches_what_it_was_made_for_and_no_further(ana: Staffer) -> None:
    made = make(ana, "tenants.read").get_json()
    program = program_of(ana, made)

    assert program.get("/tenants").status_code == 200
    assert codes(program.post("/tenants", json={"name": "No", "plan": "basic", **REASON})) == (403, "forbidden")
    assert codes(program.get("/api-keys")) == (403, "forbidden")


def test_secret_is_shown_once_and_its_prefix_ever_after(ana: Staffer) -> None:
    made = make(ana, "tenants.read").get_json()

    shown = ana.get(f"/api-keys/{made['id']}").get_json()

    assert made["secret"].startswith(shown["prefix"])
    assert len(made["secret"]) >= len(shown["prefix"]) + 43
    assert "secret" not in shown
    assert "key_hash" not in shown


def test_revoked_key_stops_at_once(ana: Staffer) -> None:
    made = make(ana, "tenants.read").get_json()
    program = program_of(ana, made)
    assert program.get("/tenants").status_code == 200

    assert ana.post(f"/api-keys/{made['id']}/revoke", json=REASON).get_json()["revoked_at"] is not None

    assert codes(program.get("/tenants")) == (401, "not_signed_in")
    listed = [key["id"] for key in ana.get("/api-keys", query_string={"limit": 200}).get_json()["items"]]
    assert made["id"] not in listed
    everything = ana.get("/api-keys", query_string={"limit": 200, "include_revoked": "true"}).get_json()["items"]
    assert made["id"] in [key["id"] for key in everything]


def test_expired_key_stops(app: Flask, truth: Truth) -> None:
    program = key_client(app, StaffPermission.TENANTS_READ)
    assert program.get("/tenants").status_code == 200

    truth.execute("UPDATE staff_keys SET expires_at = now() WHERE staff_id = %s", [program.id])

    assert codes(program.get("/tenants")) == (401, "not_signed_in")


def test_key_stops_with_who_answers_for_it(app: Flask, ana: Staffer) -> None:
    program = key_client(app, StaffPermission.TENANTS_READ)
    assert program.get("/tenants").status_code == 200

    ana.post(f"/staff/{program.id}/disable", json=REASON)

    assert codes(program.get("/tenants")) == (401, "not_signed_in")


def test_key_is_narrowed_with_who_answers_for_it(app: Flask, ana: Staffer) -> None:
    program = key_client(app, StaffPermission.TENANTS_READ, StaffPermission.TENANTS_DELETE)
    assert program.get("/auth/me").get_json()["permissions"] == ["tenants.delete", "tenants.read"]

    ana.patch(f"/staff/{program.id}", json={"role": StaffRole.READ_ONLY, **REASON})

    assert program.get("/auth/me").get_json()["permissions"] == ["tenants.read"]


def test_key_makes_no_key(app: Flask) -> None:
    program = key_client(app, StaffPermission.STAFF_MANAGE, StaffPermission.TENANTS_READ)

    assert program.get("/api-keys").status_code == 200
    assert codes(make(program, "tenants.read")) == (403, "forbidden")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"expires_at": in_days(-1)}, "expires_at"),
        ({"expires_at": in_days(400)}, "expires_at"),
        ({"expires_at": "2031-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": None}, "expires_at"),
        ({"permissions": []}, "permissions"),
        ({"permissions": ["everything"]}, "permissions.0"),
        ({"name": " "}, "name"),
        ({"reason": ""}, "reason"),
    ],
)
def test_key_that_cannot_be_made_names_the_field(ana: Staffer, given: dict[str, Any], field: str) -> None:
    answer = make(ana, "tenants.read", **given)

    assert codes(answer) == (400, "invalid_input")
    assert fields(answer) == [field]


def test_use_of_a_key_is_kept_coarsely(app: Flask, truth: Truth) -> None:
    program = key_client(app, StaffPermission.TENANTS_READ)
    last_used = "SELECT last_used_at FROM staff_keys WHERE staff_id = %s"
    assert truth.execute(last_used, [program.id]).fetchone() == (None,)

    program.get("/auth/me")
    first = truth.execute(last_used, [program.id]).fetchone()
    program.get("/auth/me")
    second = truth.execute(last_used, [program.id]).fetchone()
    truth.execute(
        "UPDATE staff_keys SET last_used_at = last_used_at - interval '11 minutes' WHERE staff_id = %s", [program.id]
    )
    program.get("/auth/me")
    third = truth.execute(last_used, [program.id]).fetchone()

    assert first is not None
    assert first[0] is not None
    assert first == second
    assert third is not None
    assert third[0] > first[0]


def test_key_has_no_sign_in_to_end(app: Flask) -> None:
    program = key_client(app, StaffPermission.TENANTS_READ)

    assert codes(program.post("/auth/logout")) == (403, "forbidden")
    assert program.get("/auth/me").status_code == 200


def test_unknown_key_is_not_found(ana: Staffer) -> None:
    assert codes(ana.get(f"/api-keys/{uuid4()}")) == (404, "not_found")
    assert codes(ana.post(f"/api-keys/{uuid4()}/revoke", json=REASON)) == (404, "not_found")


def test_what_a_key_did_names_the_key_and_who_answers_for_it(app: Flask, acme: Any, truth: Truth) -> None:
    program = key_client(app, StaffPermission.TENANTS_READ, StaffPermission.TENANTS_WRITE)

    assert program.post(f"/tenants/{acme.tenant_id}/suspend", json=REASON).status_code == 200

    prefix = program.token[:12]
    found = truth.execute(
        "SELECT actor_kind, actor_label FROM audit_entries WHERE tenant_id = %s AND reason = %s",
        [acme.tenant_id, REASON["reason"]],
    ).fetchall()
    assert found == [("key", f"{prefix} ({program.email})")]
