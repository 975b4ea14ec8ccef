"""Invitations: they expire, count once, and tell nobody who has an account."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.app.conftest import PASSWORD, Truth, Visitor, codes, fields, new_email, visitor_of
from tests.app.staffing import staff_client

ACCEPT = "/api/v1/auth/accept-invitation"
JOIN = "/api/v1/auth/join"
STRONG = "Correct horse battery 9!"


class Postbox:
    """An SMTP server's handler that keeps what it was given."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], str]] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.mails.append((envelope.rcpt_tos, envelope.content.decode()))
        return "250 OK"


@pytest.fixture
def postbox() -> Iterator[tuple[Postbox, int]]:
    box = Postbox()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield box, port
    controller.stop()


def invite(host: Visitor, email: str | None = None, role: str = "member") -> tuple[dict[str, Any], str]:
    """Invite somebody; return the answer and the token that the mail would hold."""
    answer = host.post("/api/v1/invitations", json={"email": email or new_email(), "role": role})
    assert answer.status_code == 201, answer.get_data(as_text=True)
    body = answer.get_json()
    return body, token_in(body["link"])


def token_in(text: str) -> str:
    found = re.search(r"token=([\w-]+)", text)
    assert found is not None
    return found[1]


def accept(client: FlaskClient, token: str, password: str = STRONG) -> TestResponse:
    return client.post(ACCEPT, json={"token": token, "password": password})


def join(host: Visitor, role: str = "member") -> Visitor:
    """Let somebody new become a member, by an invitation."""
    answer = accept(host.client, invite(host, role=role)[1])
    assert answer.status_code == 201, answer.get_data(as_text=True)
    return visitor_of(host.client, answer)


def test_new_account_joins_with_the_invited_role(acme: Visitor, client: FlaskClient) -> None:
    email = new_email()

    answer = accept(client, invite(acme, email, "manager")[1])

    assert answer.status_code == 201
    joined = visitor_of(client, answer)
    assert joined.tenant_id == acme.tenant_id
    me = joined.get("/api/v1/me").get_json()
    assert (me["user"]["email"], me["user"]["role"]) == (email, "manager")


def test_existing_account_joins_with_its_own_password(acme: Visitor, globex: Visitor, client: FlaskClient) -> None:
    token = invite(acme, globex.email)[1]

    assert codes(accept(client, token, "some other password")) == (409, "taken")
    answer = accept(client, token, PASSWORD)

    assert answer.status_code == 201
    me = visitor_of(client, answer).get("/api/v1/me").get_json()
    assert {one["slug"] for one in me["memberships"]} == {acme.slug, globex.slug}


def test_whoever_is_signed_in_joins_without_a_password(acme: Visitor, globex: Visitor) -> None:
    answer = globex.post(JOIN, json={"token": invite(acme, globex.email)[1]})

    assert answer.status_code == 201
    assert answer.get_json()["slug"] == acme.slug


def test_invitation_of_another_address_is_refused_and_stays_open(
    acme: Visitor, globex: Visitor, client: FlaskClient
) -> None:
    token = invite(acme, new_email())[1]

    assert codes(globex.post(JOIN, json={"token": token})) == (404, "invitation_ended")
    assert accept(client, token).status_code == 201


def test_invitation_counts_once(acme: Visitor, client: FlaskClient) -> None:
    token = invite(acme)[1]

    assert accept(client, token).status_code == 201
    assert codes(accept(client, token)) == (404, "invitation_ended")


def test_invitation_accepted_at_once_by_many_makes_one_member(app: Flask, acme: Visitor, truth: Truth) -> None:
    email = new_email()
    token = invite(acme, email)[1]
    barrier = Barrier(4)

    def run(_number: int) -> int:
        barrier.wait()
        return accept(app.test_client(use_cookies=False), token).status_code

    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(run, range(4)))

    assert found[0] == 201
    assert set(found[1:]) <= {404, 409}
    assert truth.execute("SELECT count(*) FROM members WHERE email = %s", [email]).fetchone() == (1,)


@pytest.mark.parametrize("token", ["x", "A" * 43, "\ud83d"])
def test_unknown_token_opens_nothing(client: FlaskClient, token: str) -> None:
    assert accept(client, token).status_code in (400, 404)


def test_expired_invitation_opens_nothing_and_makes_way_for_another(
    acme: Visitor, client: FlaskClient, truth: Truth
) -> None:
    email = new_email()
    token = invite(acme, email)[1]
    truth.execute("UPDATE invitations SET expires_at = now() - interval '1 second' WHERE email = %s", [email])

    assert codes(accept(client, token)) == (404, "invitation_ended")

    assert accept(client, invite(acme, email)[1]).status_code == 201


def test_life_of_an_invitation_is_a_setting(make_app: Callable[..., Flask], acme: Visitor, truth: Truth) -> None:
    host = replace(acme, client=make_app(invitation_ttl_s=60).test_client(use_cookies=False))

    found = invite(host)[0]

    life = "SELECT extract(epoch FROM expires_at - created_at)::int FROM invitations WHERE id = %s"
    row = truth.execute(life, [found["id"]]).fetchone()
    assert row is not None
    assert 55 <= row[0] <= 60


def test_invitation_sent_anew_has_a_new_token_and_the_old_one_is_dead(acme: Visitor, client: FlaskClient) -> None:
    found, old = invite(acme)

    again = acme.post(f"/api/v1/invitations/{found['id']}/resend").get_json()

    assert codes(accept(client, old)) == (404, "invitation_ended")
    assert accept(client, token_in(again["link"])).status_code == 201


def test_revoked_invitation_opens_nothing(acme: Visitor, client: FlaskClient) -> None:
    found, token = invite(acme)

    assert acme.call("DELETE", f"/api/v1/invitations/{found['id']}").status_code == 204

    assert codes(accept(client, token)) == (404, "invitation_ended")
    assert acme.call("DELETE", f"/api/v1/invitations/{found['id']}").status_code == 404
    assert acme.post(f"/api/v1/invitations/{found['id']}/resend").status_code == 404


def test_invitation_of_who_was_removed_or_demoted_since_opens_nothing(acme: Visitor, client: FlaskClient) -> None:
    """Or an admin could leave herself a way back in."""
    removed, demoted = join(acme, "admin"), join(acme, "admin")
    tokens = [invite(removed)[1], invite(demoted, role="admin")[1]]
    ids = [one.get("/api/v1/me").get_json()["user"]["member_id"] for one in (removed, demoted)]

    assert acme.call("DELETE", f"/api/v1/members/{ids[0]}").status_code == 204
    assert acme.call("PATCH", f"/api/v1/members/{ids[1]}", json={"role": "manager"}).status_code == 200

    assert [codes(accept(client, token)) for token in tokens] == [(404, "invitation_ended")] * 2
    assert accept(client, invite(acme)[1]).status_code == 201


def test_only_the_hash_of_a_token_is_kept(acme: Visitor, truth: Truth) -> None:
    found, token = invite(acme)

    row = truth.execute("SELECT token_hash, i::text FROM invitations i WHERE id = %s", [found["id"]]).fetchone()
    entries = truth.execute("SELECT e::text FROM audit_entries e WHERE tenant_id = %s", [acme.tenant_id]).fetchall()

    assert row is not None
    assert len(row[0]) == 32
    assert token not in row[1]
    assert all(token not in str(entry) for entry in entries)


def test_answer_is_the_same_whether_or_not_the_address_has_an_account(acme: Visitor, globex: Visitor) -> None:
    known = invite(acme, globex.email)[0]
    unknown = invite(acme, new_email())[0]

    assert known.keys() == unknown.keys()
    assert (known["role"], known["accepted_at"]) == (unknown["role"], unknown["accepted_at"])


def test_address_is_invited_once_and_members_are_not_invited(acme: Visitor) -> None:
    email = new_email()
    invite(acme, email)

    again = acme.post("/api/v1/invitations", json={"email": email})
    member = acme.post("/api/v1/invitations", json={"email": acme.email})

    assert codes(again) == codes(member) == (409, "taken")
    assert fields(again) == fields(member) == ["email"]


def test_admin_cannot_invite_an_owner(acme: Visitor) -> None:
    admin = join(acme, "admin")

    refused = admin.post("/api/v1/invitations", json={"email": new_email(), "role": "owner"})

    assert codes(refused) == (403, "forbidden")
    assert invite(admin, role="admin")


def test_member_cannot_invite(acme: Visitor) -> None:
    assert codes(join(acme).post("/api/v1/invitations", json={"email": new_email()})) == (403, "forbidden")


def test_weak_password_is_refused_by_the_tenants_policy(acme: Visitor, client: FlaskClient) -> None:
    token = invite(acme)[1]

    assert fields(accept(client, token, "short")) == ["password"]
    assert accept(client, token).status_code == 201


def test_invitation_of_a_foreign_tenant_is_not_there(acme: Visitor, globex: Visitor) -> None:
    """T118"""
    found = invite(acme)[0]
    assert [one["id"] for one in acme.get("/api/v1/invitations").get_json()["items"]] == [found["id"]]

    for method, path in (("DELETE", ""), ("POST", "/resend")):
        assert codes(globex.call(method, f"/api/v1/invitations/{found['id']}{path}")) == (404, "not_found")
    assert globex.get("/api/v1/invitations").get_json()["items"] == []


# Mail -------------------------------------------------------------------------------------------------


def test_invitation_goes_out_by_mail_and_the_inviter_does_not_see_the_link(
    make_app: Callable[..., Flask], acme: Visitor, postbox: tuple[Postbox, int]
) -> None:
    box, port = postbox
    made = make_app(mail_server="127.0.0.1", mail_port=port, mail_tls="none", mail_from="crm@service.test")
    host, email = replace(acme, client=made.test_client(use_cookies=False)), new_email()

    answer = host.post("/api/v1/invitations", json={"email": email})

    assert answer.get_json()["link"] is None
    ((recipients, text),) = box.mails
    assert recipients == [email]
    assert "From: crm@service.test" in text
    plain = text.replace("=\r\n", "").replace("=\n", "").replace("token=3D", "token=")
    assert accept(host.client, token_in(plain)).status_code == 201


def test_without_a_mail_server_nobody_is_invited_in_production(
    make_app: Callable[..., Flask], acme: Visitor, truth: Truth, tmp_path: Path
) -> None:
    """The link would let the inviter make an account for an address that is not hers."""
    host = replace(
        acme, client=make_app(environment="production", storage_url=f"file://{tmp_path}").test_client(use_cookies=False)
    )
    email = new_email()

    refused = host.post("/api/v1/invitations", json={"email": email})

    assert codes(refused) == (503, "mail_unavailable")
    assert truth.execute("SELECT count(*) FROM invitations WHERE email = %s", [email]).fetchone() == (0,)


def test_mail_server_that_is_down_leaves_an_invitation_to_send_anew(
    make_app: Callable[..., Flask], acme: Visitor, postbox: tuple[Postbox, int]
) -> None:
    box, port = postbox
    given = {"mail_server": "127.0.0.1", "mail_tls": "none", "mail_from": "crm@service.test"}
    down = make_app(mail_port=1, **given).test_client(use_cookies=False)
    up = make_app(mail_port=port, **given).test_client(use_cookies=False)

    refused = replace(acme, client=down).post("/api/v1/invitations", json={"email": new_email()})

    assert codes(refused) == (503, "mail_unavailable")
    (kept,) = acme.get("/api/v1/invitations").get_json()["items"]
    assert replace(acme, client=up).post(f"/api/v1/invitations/{kept['id']}/resend").status_code == 200
    assert len(box.mails) == 1


# The first owner --------------------------------------------------------------------------------------


def test_owner_of_a_tenant_that_staff_make_is_invited_by_mail_and_accepts(
    make_app: Callable[..., Flask], postbox: tuple[Postbox, int]
) -> None:
    box, port = postbox
    made = make_app(mail_server="127.0.0.1", mail_port=port, mail_tls="none", mail_from="crm@service.test")
    email = new_email()
    staffer = staff_client(made)

    body = {"name": "Initech", "owner_email": email, "plan": "basic", "reason": "sold"}
    answer = staffer.post("/tenants", json=body)

    assert answer.status_code == 201, answer.get_data(as_text=True)
    staffer.post(f"/tenants/{answer.get_json()['id']}/provision", json={"reason": "sold"})
    ((recipients, text),) = box.mails
    assert recipients == [email]
    plain = text.replace("=\r\n", "").replace("=\n", "").replace("token=3D", "token=")
    accepted = accept(made.test_client(use_cookies=False), token_in(plain))
    assert accepted.get_json()["user"]["role"] == "owner"
