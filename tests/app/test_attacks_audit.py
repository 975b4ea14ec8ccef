"""Attacks that count on leaving no trace: what changes rights, people or life, and says so nowhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask

from app.staff.permissions import StaffRole
from tests.app.conftest import PASSWORD, Truth, Visitor, new_email
from tests.app.staffing import add_staff, staff_client
from tests.app.test_invitations import STRONG, accept, invite
from tests.app.test_members import change, member_id, remove

REASON = {"reason": "an attack"}


def actions(truth: Truth, tenant: Visitor) -> list[str]:
    rows = truth.execute(
        "SELECT action FROM audit_entries WHERE tenant_id = %s ORDER BY at, action", [tenant.tenant_id]
    ).fetchall()
    return [row[0] for row in rows]


def test_first_owner_is_in_the_audit(acme: Visitor, truth: Truth) -> None:
    (entry,) = truth.execute(
        "SELECT actor_label, target_id, after ->> 'role', after ->> 'email' FROM audit_entries"
        " WHERE tenant_id = %s AND action = 'member.registered'",
        [acme.tenant_id],
    ).fetchall()

    assert [str(value) for value in entry] == [acme.email, member_id(acme), "owner", acme.email]


def test_no_secret_is_in_any_audit_or_kept_answer(app: Flask, acme: Visitor, truth: Truth) -> None:
    owner = staff_client(app)
    staff_id, _ = add_staff(app, StaffRole.SUPPORT)
    link = owner.post(f"/staff/{staff_id}/password-link", json=REASON, headers={"Idempotency-Key": "a"}).get_json()
    ends = {"expires_at": "2027-01-01T00:00:00Z"}
    made = owner.post(
        "/api-keys",
        json={"name": "x", "permissions": ["tenants.read"], **ends, **REASON},
        headers={"Idempotency-Key": "b"},
    ).get_json()
    _, token = invite(acme)
    joined = accept(acme.client, token).get_json()
    secret = "whsec-" + "x" * 30
    put = acme.call("PUT", "/api/v1/settings/webhooks.signing_secret", json={"value": secret, "reason": "rotation"})
    assert put.status_code == 200

    said = json.dumps(
        [
            truth.execute(f"SELECT string_agg(t::text, ' ') FROM {table} t").fetchone()
            for table in ("audit_entries", "platform_entries", "kept_answers", "configuration_changes")
        ]
    )
    secrets = [link["link_token"], made["secret"], token, joined["refresh_token"], secret, PASSWORD, STRONG]

    assert [one for one in secrets if one in said] == []
    assert "$argon2" not in said
    assert acme.email in said


def test_every_change_of_a_member_and_of_the_tenant_is_in_its_audit(app: Flask, acme: Visitor, truth: Truth) -> None:
    owner = staff_client(app)
    tenant = f"/tenants/{acme.tenant_id}"
    before = len(actions(truth, acme))
    invitation, token = invite(acme, role="admin")
    acme.post(f"/api/v1/invitations/{invitation['id']}/resend")
    other, _ = invite(acme)
    acme.call("DELETE", f"/api/v1/invitations/{other['id']}")
    _, token = invite(acme, new_email())
    whom = accept(acme.client, token).get_json()["user"]["member_id"]
    change(acme, whom, permissions={"crm.delete": True})
    remove(acme, whom)
    acme.call("PUT", "/api/v1/settings/session.timeout", json={"value": 600})
    acme.call("DELETE", "/api/v1/settings/session.timeout")
    owner.put(f"{tenant}/limits/users", json={"limit": 7, **REASON})
    owner.delete(f"{tenant}/limits/users", query_string=REASON)
    owner.put(f"{tenant}/features/ai_verification", json={"is_included": True, **REASON})
    owner.put(f"{tenant}/config/session.timeout", json={"value": 700, **REASON})
    owner.post(f"{tenant}/migrate", json={"plan": "premium", **REASON})
    owner.post(f"{tenant}/keys/rotate", json=REASON)
    owner.patch(tenant, json={"name": "Acme Two", "slug": f"{acme.slug}-two", **REASON})
    owner.post(f"{tenant}/suspend", json=REASON)
    owner.post(f"{tenant}/resume", json=REASON)

    found = actions(truth, acme)[before:]

    assert sorted(set(found)) == [
        "configuration.changed",
        "configuration.overridden",
        "data_key.rotated",
        "feature.overridden",
        "invitation.revoked",
        "invitation.sent_anew",
        "limit.overridden",
        "limit.restored",
        "member.changed",
        "member.invited",
        "member.joined",
        "member.removed",
        "member.signed_in",
        "plan.changed",
        "tenant.renamed",
        "tenant.slug_changed",
        "tenant.status_changed",
    ]
    assert found.count("configuration.changed") == 2
    assert found.count("tenant.status_changed") == 2


@pytest.mark.parametrize("kind", ["roles", "keys", "links"])
def test_every_change_of_staff_is_in_the_platforms_audit(app: Flask, truth: Truth, kind: str) -> None:
    owner = staff_client(app)
    added = owner.post("/staff", json={"email": new_email(), "role": "support", **REASON}).get_json()
    staff = f"/staff/{added['id']}"

    def entries() -> list[Any]:
        rows = truth.execute(
            "SELECT action FROM platform_entries WHERE actor_id = %s ORDER BY at", [str(owner.id)]
        ).fetchall()
        return [row[0] for row in rows]

    assert entries()[-2:] == ["staff.added", "staff_link.issued"]
    match kind:
        case "roles":
            owner.patch(staff, json={"role": "billing", **REASON})
            owner.post(f"{staff}/disable", json=REASON)
            owner.post(f"{staff}/enable", json=REASON)
            assert entries()[-3:] == ["staff.role_changed", "staff.disabled", "staff.enabled"]
        case "keys":
            wanted = {"name": "x", "permissions": ["tenants.read"], "expires_at": "2027-01-01T00:00:00Z", **REASON}
            made = owner.post("/api-keys", json=wanted).get_json()
            owner.post(f"/api-keys/{made['id']}/revoke", json=REASON)
            assert entries()[-2:] == ["staff_key.made", "staff_key.revoked"]
        case _:
            owner.post(f"{staff}/password-link", json=REASON)
            owner.post("/auth/logout")
            assert entries()[-2:] == ["staff_link.issued", "staff.signed_out"]
