"""Impersonation: for a reason and a time, reading only, in sight of the customer, and never beyond."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jwt
import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from app.audit.actors import Actor, ActorKind, acting_as
from app.auth.desk import Desk
from app.configuration.operations import set_value
from app.staff.permissions import StaffPermission, StaffRole
from tenancy.context import tenant_scope
from tests.app.conftest import Truth, Visitor, add_person, codes, fields
from tests.app.staffing import Staffer, key_client, staff_client
from tests.app.test_audit_chain import desk as desk
from tests.app.test_invitations import join
from tests.app.test_members import change, member_id

REASON = "ticket 4711"


@pytest.fixture
def ana(app: Flask) -> Staffer:
    return staff_client(app, StaffRole.SUPPORT)


def begin(staffer: Staffer, whom: Visitor, **given: Any) -> tuple[Visitor, dict[str, Any]]:
    """Act as somebody; return the visitor that the staff now are."""
    answer = staffer.post(
        f"/tenants/{whom.tenant_id}/impersonations", json={"member_id": member_id(whom), "reason": REASON} | given
    )
    assert answer.status_code == 201, answer.get_data(as_text=True)
    body = answer.get_json()
    return replace(whom, access_token=body["access_token"], refresh_token=""), body


def refused(staffer: Staffer, whom: Visitor, **given: Any) -> tuple[int, str]:
    json = {"member_id": member_id(whom), "reason": REASON} | given
    return codes(staffer.post(f"/tenants/{whom.tenant_id}/impersonations", json=json))


def test_staff_read_what_the_member_reads_and_change_nothing(ana: Staffer, acme: Visitor) -> None:
    person = add_person(acme)

    acting, _ = begin(ana, acme)

    assert acting.get(f"/api/v1/people/{person}").status_code == 200
    assert codes(acting.post("/api/v1/people", json={"name": "Eve"})) == (403, "impersonation")
    assert codes(acting.call("PATCH", f"/api/v1/people/{person}", json={"name": "Eve"})) == (403, "impersonation")
    assert codes(acting.call("DELETE", f"/api/v1/people/{person}")) == (403, "impersonation")
    assert acme.get(f"/api/v1/people/{person}").get_json()["name"] == "Ada Lovelace"


def test_token_says_who_acts(ana: Staffer, acme: Visitor) -> None:
    acting, body = begin(ana, acme)

    claims = jwt.decode(acting.access_token, options={"verify_signature": False})

    assert claims["act"] == {"sub": ana.email}
    assert "refresh_token" not in body
    assert "act" not in jwt.decode(acme.access_token, options={"verify_signature": False})


def test_customer_sees_who_acts_and_why(ana: Staffer, acme: Visitor) -> None:
    acting, body = begin(ana, acme)

    me = acting.get("/api/v1/me").get_json()["impersonation"]
    (listed,) = acme.get("/api/v1/impersonations").get_json()["items"]
    (entry,) = acme.get("/api/v1/audit", query_string={"action": "impersonation.began"}).get_json()["items"]

    assert (me["staff_email"], me["reason"], me["can_write"]) == (ana.email, REASON, False)
    assert (listed["id"], listed["staff_email"], listed["reason"]) == (body["id"], ana.email, REASON)
    assert (entry["actor_label"], entry["reason"], entry["after"]["member"]) == (ana.email, REASON, acme.email)
    assert acme.get("/api/v1/me").get_json()["impersonation"] is None


def test_writing_takes_a_flag_and_a_second_permission_and_is_marked(app: Flask, ana: Staffer, acme: Visitor) -> None:
    acting, _ = begin(ana, acme, can_write=True)

    person = add_person(acting)

    (entry,) = acme.get("/api/v1/audit", query_string={"action": "impersonation.wrote"}).get_json()["items"]
    assert (entry["actor_label"], entry["impersonator"]) == (acme.email, ana.email)
    assert entry["after"] == {"call": "POST crm.create_person"}
    assert acme.get(f"/api/v1/people/{person}").status_code == 200


def test_write_that_fails_leaves_no_mark(ana: Staffer, acme: Visitor) -> None:
    acting, _ = begin(ana, acme, can_write=True)

    assert acting.post("/api/v1/people", json={"name": ""}).status_code == 400

    assert acme.get("/api/v1/audit", query_string={"action": "impersonation.wrote"}).get_json()["items"] == []


def test_members_settings_and_passwords_are_out_of_reach_even_for_writing(ana: Staffer, acme: Visitor) -> None:
    member = join(acme)

    acting, _ = begin(ana, acme, can_write=True)

    assert codes(change(acting, member_id(member), role="owner")) == (403, "forbidden")
    assert codes(acting.post("/api/v1/invitations", json={"email": "x@y.test"})) == (403, "forbidden")
    granted = set(acting.get("/api/v1/me").get_json()["permissions"])
    assert granted.isdisjoint({"members.manage", "settings.manage", "domains.manage"})
    assert acting.call("DELETE", f"/api/v1/impersonations/{uuid7()}").status_code == 403


def test_other_tenants_of_the_person_are_out_of_reach(
    ana: Staffer, register: Callable[..., Visitor], acme: Visitor
) -> None:
    other = register("Elsewhere", acme.email)
    assert acme.post("/api/v1/auth/switch", json={"tenant": other.slug}).status_code == 200

    acting, _ = begin(ana, acme, can_write=True)

    assert codes(acting.post("/api/v1/auth/switch", json={"tenant": other.slug})) == (403, "impersonation")
    assert codes(acting.post("/api/v1/auth/join", json={"token": "x"})) == (403, "impersonation")
    assert acting.get("/api/v1/me").get_json()["memberships"] == []
    page = acting.get("/handover/ticket", base_url=f"http://{acme.slug}.localhost")
    assert page.status_code == 403


def test_customer_ends_it_at_once(ana: Staffer, acme: Visitor) -> None:
    acting, body = begin(ana, acme)
    assert acting.get("/api/v1/people").status_code == 200

    assert acme.call("DELETE", f"/api/v1/impersonations/{body['id']}").status_code == 204

    assert codes(acting.get("/api/v1/people")) == (401, "not_signed_in")
    assert acme.get("/api/v1/impersonations").get_json()["items"] == []
    assert acme.get("/api/v1/people").status_code == 200


def test_staff_end_it_at_once(ana: Staffer, acme: Visitor) -> None:
    acting, body = begin(ana, acme)

    path = f"/tenants/{acme.tenant_id}/impersonations/{body['id']}/stop"
    assert ana.post(path, json={"reason": "done"}).status_code == 204

    assert codes(acting.get("/api/v1/people")) == (401, "not_signed_in")
    assert codes(ana.post(path, json={"reason": "done"})) == (404, "not_found")
    (entry,) = acme.get("/api/v1/audit", query_string={"action": "impersonation.ended"}).get_json()["items"]
    assert (entry["actor_label"], entry["reason"]) == (ana.email, "done")


def test_signing_out_ends_it(ana: Staffer, acme: Visitor) -> None:
    acting, _ = begin(ana, acme)

    assert acting.post("/api/v1/auth/logout").status_code == 204

    assert codes(acting.get("/api/v1/people")) == (401, "not_signed_in")


def test_it_ends_by_itself_also_where_the_sign_in_would_go_on(ana: Staffer, acme: Visitor, truth: Truth) -> None:
    acting, body = begin(ana, acme)
    truth.execute("UPDATE sign_ins SET expires_at = now() + interval '1 day' WHERE tenant_id = %s", [acme.tenant_id])
    assert acting.get("/api/v1/people").status_code == 200

    truth.execute("UPDATE impersonations SET ends_at = now() - interval '1 second' WHERE id = %s", [body["id"]])

    assert codes(acting.get("/api/v1/people")) == (401, "not_signed_in")
    assert acme.get("/api/v1/impersonations").get_json()["items"] == []


def test_using_it_does_not_draw_it_out(ana: Staffer, acme: Visitor, truth: Truth) -> None:
    acting, body = begin(ana, acme, minutes=1)
    ends = "SELECT s.expires_at FROM sign_ins s JOIN impersonations i ON i.sign_in_id = s.id WHERE i.id = %s"
    before = truth.execute(ends, [body["id"]]).fetchone()

    acting.get("/api/v1/people")

    assert truth.execute(ends, [body["id"]]).fetchone() == before


def test_it_ends_with_the_staff_account(ana: Staffer, acme: Visitor, truth: Truth) -> None:
    acting, _ = begin(ana, acme)
    assert acting.get("/api/v1/people").status_code == 200

    truth.execute("UPDATE staff_accounts SET disabled_at = now() WHERE id = %s", [ana.id])

    assert codes(acting.get("/api/v1/people")) == (401, "not_signed_in")


def test_tenant_may_forbid_it(ana: Staffer, acme: Visitor, desk: Desk, app: Flask) -> None:
    owner = Actor(ActorKind.ACCOUNT, "x", acme.email)
    with (
        app.app_context(),
        acting_as(owner),
        tenant_scope(acme.tenant_id),
        desk.database.sessions.begin() as session,
    ):
        set_value(session, "security.impersonation", False)

    assert refused(ana, acme) == (403, "forbidden")


def test_only_one_at_a_time_and_none_inside_another(ana: Staffer, acme: Visitor) -> None:
    acting, _ = begin(ana, acme)

    assert refused(ana, acme) == (409, "impersonating")
    nested = Staffer(ana.client, ana.id, ana.email, acting.access_token)
    json = {"member_id": str(uuid7()), "reason": REASON}
    assert codes(nested.post(f"/tenants/{acme.tenant_id}/impersonations", json=json)) == (401, "not_signed_in")


def test_longest_time_is_a_setting(make_app: Callable[..., Flask], acme: Visitor) -> None:
    short = staff_client(make_app(impersonation_ttl_s=120), StaffRole.SUPPORT)
    json = {"member_id": member_id(acme), "reason": REASON, "minutes": 3}

    answer = short.post(f"/tenants/{acme.tenant_id}/impersonations", json=json)

    assert fields(answer) == ["minutes"]
    begin(short, acme, minutes=2)


@pytest.mark.parametrize("role", [StaffRole.READ_ONLY, StaffRole.BILLING])
def test_role_without_the_permission_acts_as_nobody(app: Flask, acme: Visitor, role: StaffRole) -> None:
    assert refused(staff_client(app, role), acme) == (403, "forbidden")


def test_key_acts_as_nobody(app: Flask, acme: Visitor) -> None:
    program = key_client(app, StaffPermission.IMPERSONATE, StaffPermission.TENANTS_WRITE)

    assert refused(program, acme) == (403, "forbidden")


@pytest.mark.parametrize("reason", ["", "   "])
def test_reason_is_asked_for(ana: Staffer, acme: Visitor, reason: str) -> None:
    assert refused(ana, acme, reason=reason) == (400, "invalid_input")


def test_member_of_another_tenant_is_not_there(ana: Staffer, acme: Visitor, globex: Visitor) -> None:
    assert refused(ana, acme, member_id=member_id(globex)) == (404, "not_found")


def test_impersonation_of_a_foreign_tenant_is_not_there(ana: Staffer, acme: Visitor, globex: Visitor) -> None:
    """T118"""
    _, body = begin(ana, acme)

    assert globex.get("/api/v1/impersonations").get_json()["items"] == []
    assert codes(globex.call("DELETE", f"/api/v1/impersonations/{body['id']}")) == (404, "not_found")


def test_tenant_cannot_make_or_change_an_impersonation(truth: Truth) -> None:
    """The app role reads the table and no more, so that a tenant's own requests never forge one."""
    row = truth.execute(
        "SELECT has_table_privilege('tenancy_app', 'impersonations', 'INSERT'),"
        " has_any_column_privilege('tenancy_app', 'impersonations', 'UPDATE'),"
        " has_table_privilege('tenancy_app', 'impersonations', 'DELETE')"
    ).fetchone()

    assert row == (False, False, False)
