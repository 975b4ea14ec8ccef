"""Staff send the first owner's invitation anew, and nobody else's."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.staff.permissions import StaffPermission, StaffRole
from tests.app.conftest import Truth, Visitor, codes, new_email, visitor_of
from tests.app.staffing import Staffer, key_client, staff_client
from tests.app.test_invitations import accept, invite, token_in

RESEND = "/tenants/{}/owner-invitation"


@pytest.fixture
def staffer(app: Flask) -> Staffer:
    return staff_client(app)


@pytest.fixture
def pending(staffer: Staffer) -> tuple[str, str]:
    """A tenant that staff made, open, whose first owner has not answered: its id and her address."""
    email = new_email()
    given = {"name": f"Org {uuid4().hex}", "plan": "basic", "reason": "new customer", "owner_email": email}
    made = staffer.post("/tenants", json=given).get_json()
    opened = staffer.post(f"/tenants/{made['id']}/provision", json={"reason": "new customer"})
    assert opened.get_json()["status"] == "active", opened.get_data(as_text=True)
    return made["id"], email


def test_owners_invitation_is_sent_anew_and_opens_the_tenant(
    staffer: Staffer, pending: tuple[str, str], client: FlaskClient, truth: Truth
) -> None:
    tenant, email = pending

    answer = staffer.post(RESEND.format(tenant), json={"reason": "she lost it"})

    assert answer.status_code == 200, answer.get_data(as_text=True)
    body = answer.get_json()
    assert (body["email"], body["role"]) == (email, "owner")
    assert visitor_of(client, accept(client, token_in(body["link"]))).tenant_id == UUID(tenant)
    said = "SELECT actor_kind, actor_label, reason FROM audit_entries WHERE tenant_id = %s AND action = %s"
    assert truth.execute(said, [tenant, "invitation.sent_anew"]).fetchall() == [("staff", staffer.email, "she lost it")]


def test_earlier_link_is_dead(staffer: Staffer, pending: tuple[str, str], client: FlaskClient) -> None:
    links = [staffer.post(RESEND.format(pending[0]), json={"reason": "lost"}).get_json()["link"] for _ in range(2)]

    assert codes(accept(client, token_in(links[0]))) == (404, "invitation_ended")
    assert accept(client, token_in(links[1])).status_code == 201


def test_one_that_has_run_out_is_sent_anew(
    staffer: Staffer, pending: tuple[str, str], client: FlaskClient, truth: Truth
) -> None:
    truth.execute("UPDATE invitations SET expires_at = now() - interval '1 day' WHERE tenant_id = %s", [pending[0]])

    link = staffer.post(RESEND.format(pending[0]), json={"reason": "too late"}).get_json()["link"]

    assert accept(client, token_in(link)).status_code == 201


def test_accepted_owner_and_members_invitations_are_not_sent(staffer: Staffer, acme: Visitor, truth: Truth) -> None:
    invited, _ = invite(acme, role="owner")
    before = truth.execute("SELECT token_hash FROM invitations WHERE id = %s", [invited["id"]]).fetchone()

    answer = staffer.post(RESEND.format(acme.tenant_id), json={"reason": "no"})

    assert codes(answer) == (409, "no_owner_invited")
    assert truth.execute("SELECT token_hash FROM invitations WHERE id = %s", [invited["id"]]).fetchone() == before


def test_it_takes_a_reason_the_right_and_a_tenant(app: Flask, staffer: Staffer, pending: tuple[str, str]) -> None:
    reader, program = staff_client(app, StaffRole.READ_ONLY), key_client(app, StaffPermission.TENANTS_READ)

    assert staffer.post(RESEND.format(pending[0]), json={}).status_code == 400
    assert codes(reader.post(RESEND.format(pending[0]), json={"reason": "x"})) == (403, "forbidden")
    assert codes(program.post(RESEND.format(pending[0]), json={"reason": "x"})) == (403, "forbidden")
    assert codes(staffer.post(RESEND.format(uuid4()), json={"reason": "x"})) == (404, "not_found")
