"""Attacks from among the staff: roles and keys that reach for more than they hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from app.staff.permissions import StaffPermission, StaffRole
from tests.app.conftest import Truth, Visitor, codes, new_email
from tests.app.staffing import add_staff, key_client, staff_client

REASON = {"reason": "an attack"}


def test_key_sets_nobodys_password(app: Flask) -> None:
    """A link to an owner's password would make any key that manages staff an owner."""
    program = key_client(app, StaffPermission.STAFF_MANAGE)
    owner, _ = add_staff(app)

    assert codes(program.post(f"/staff/{owner}/password-link", json=REASON)) == (403, "forbidden")
    assert staff_client(app).post(f"/staff/{owner}/password-link", json=REASON).status_code == 201


def test_key_lets_nobody_in_again_who_reaches_further(app: Flask) -> None:
    program, ana = key_client(app, StaffPermission.STAFF_MANAGE), staff_client(app)
    owner, _ = add_staff(app)
    assert ana.post(f"/staff/{owner}/disable", json=REASON).status_code == 200

    assert codes(program.post(f"/staff/{owner}/enable", json=REASON)) == (403, "forbidden")
    assert ana.post(f"/staff/{owner}/enable", json=REASON).status_code == 200


def test_key_makes_no_key_that_outlives_it(app: Flask) -> None:
    program = key_client(app, StaffPermission.STAFF_MANAGE, life=timedelta(hours=1))

    def make(life: timedelta) -> Any:
        ends = (datetime.now(UTC) + life).isoformat()
        wanted = {"name": "child", "permissions": ["staff.manage"], "expires_at": ends, **REASON}
        return program.post("/api-keys", json=wanted)

    assert codes(make(timedelta(days=300))) == (403, "forbidden")
    assert codes(make(timedelta(minutes=5))) == (403, "forbidden")


@pytest.mark.parametrize("role", [StaffRole.SUPPORT, StaffRole.BILLING, StaffRole.READ_ONLY])
def test_role_reaches_no_key_no_colleague_and_no_deletion(app: Flask, acme: Visitor, role: StaffRole) -> None:
    staffer = staff_client(app, role)
    tenant = f"/tenants/{acme.tenant_id}"

    answers = [
        staffer.post(f"{tenant}/keys/rotate", json=REASON),
        staffer.post(f"{tenant}/keys/shred", json={"slug": acme.slug, **REASON}),
        staffer.patch(f"/staff/{staffer.id}", json={"role": "owner", **REASON}),
        staffer.post(f"/staff/{staffer.id}/password-link", json=REASON),
        staffer.post("/staff", json={"email": new_email(), "role": "read_only", **REASON}),
        staffer.delete(tenant, query_string=REASON),
        staffer.put(f"{tenant}/status", json={"status": "deleting", **REASON}),
    ]

    assert {codes(answer) for answer in answers} == {(403, "forbidden")}


def test_only_who_may_delete_takes_a_deletion_back(app: Flask, acme: Visitor) -> None:
    """By every road: to be active again is where a deletion that is scheduled can be undone to."""
    support, owner = staff_client(app, StaffRole.SUPPORT), staff_client(app)
    tenant = f"/tenants/{acme.tenant_id}"
    assert owner.delete(tenant, query_string=REASON).status_code == 202

    assert codes(support.post(f"{tenant}/cancel-deletion", json=REASON)) == (403, "forbidden")
    assert codes(support.put(f"{tenant}/status", json={"status": "active", **REASON})) == (403, "forbidden")
    assert codes(support.post(f"{tenant}/resume", json=REASON)) == (403, "forbidden")
    bulk = {"filter": {"ids": [str(acme.tenant_id)]}, "status": "active"}
    token = support.post("/tenants/bulk/preview", json=bulk).get_json()["token"]
    assert codes(support.post("/tenants/bulk", json={**bulk, "token": token, **REASON})) == (403, "forbidden")

    assert owner.get(tenant).get_json()["status"] == "deleting"
    assert owner.post(f"{tenant}/cancel-deletion", json=REASON).get_json()["status"] == "active"


def test_run_that_was_taken_out_is_started_again_only_by_who_may_delete(
    app: Flask, acme: Visitor, truth: Truth
) -> None:
    """It may be about to delete: to cancel it was how an owner took that back."""
    support, owner = staff_client(app, StaffRole.SUPPORT), staff_client(app)
    bulk = {"filter": {"ids": [str(acme.tenant_id)]}, "status": "deleting"}
    token = owner.post("/tenants/bulk/preview", json=bulk).get_json()["token"]
    assert owner.post("/tenants/bulk", json={**bulk, "token": token, **REASON}).status_code == 202
    row = truth.execute(
        "SELECT max(id) FROM jobs.procrastinate_jobs WHERE task_name = 'tenants.carry_on_run'"
    ).fetchone()
    job = f"/jobs/{row and row[0]}"
    assert owner.post(f"{job}/cancel", json=REASON).get_json()["state"] == "cancelled"

    assert codes(support.post(f"{job}/retry", json=REASON)) == (403, "forbidden")

    assert owner.get(job).get_json()["state"] == "cancelled"
    assert owner.post(f"{job}/retry", json=REASON).get_json()["state"] == "waiting"
    assert owner.post(f"{job}/cancel", json=REASON).status_code == 200
