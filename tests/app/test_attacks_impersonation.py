"""Attacks by impersonation: what outlives the right to it."""

from __future__ import annotations

from flask import Flask

from app.staff.permissions import StaffRole
from tests.app.conftest import Truth, Visitor, codes
from tests.app.staffing import staff_client
from tests.app.test_impersonation import begin
from tests.app.test_members import member_id

REASON = {"reason": "an attack"}


def test_impersonation_ends_with_the_role_that_allowed_it(app: Flask, acme: Visitor) -> None:
    support, owner = staff_client(app, StaffRole.SUPPORT), staff_client(app)
    acting, _ = begin(support, acme)
    assert acting.get("/api/v1/people").status_code == 200

    assert owner.patch(f"/staff/{support.id}", json={"role": "billing", **REASON}).status_code == 200

    assert codes(acting.get("/api/v1/people")) == (401, "not_signed_in")
    assert codes(acting.get("/api/v1/me")) == (401, "not_signed_in")


def test_impersonation_ends_when_the_tenant_forbids_it(app: Flask, acme: Visitor) -> None:
    acting, _ = begin(staff_client(app, StaffRole.SUPPORT), acme)
    assert acting.get("/api/v1/people").status_code == 200

    assert acme.call("PUT", "/api/v1/settings/security.impersonation", json={"value": False}).status_code == 200

    assert codes(acting.get("/api/v1/people")) == (401, "not_signed_in")


def test_token_of_an_impersonation_is_kept_nowhere(app: Flask, acme: Visitor, truth: Truth) -> None:
    """Sent with an idempotency key, its answer must not be kept to be answered again."""
    support = staff_client(app, StaffRole.SUPPORT)
    headers = {"Idempotency-Key": "once"}
    path, json = f"/tenants/{acme.tenant_id}/impersonations", {"member_id": member_id(acme), **REASON}

    token = support.post(path, json=json, headers=headers).get_json()["access_token"]

    kept = truth.execute("SELECT body::text FROM kept_answers WHERE actor_id = %s", [str(support.id)]).fetchall()
    assert kept == [(None,)]
    assert token not in str(kept)
    assert codes(support.post(path, json=json, headers=headers)) == (409, "idempotency_done")
