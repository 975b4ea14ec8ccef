"""Platform staff signing in and out, and where their tokens and keys are worth anything."""

from __future__ import annotations

from flask import Flask
from flask.testing import FlaskClient

from app.staff.permissions import StaffPermission
from tests.app.conftest import Visitor, codes
from tests.app.staffing import key_client, staff_client


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
