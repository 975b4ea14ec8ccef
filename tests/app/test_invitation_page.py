"""The page of an invitation: a new account, an account there is, and one same answer to whatever opens nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.app.conftest import PASSWORD, Truth, Visitor, new_email
from tests.app.test_invitations import STRONG, invite
from tests.app.test_pages import Window, open_window

__all__ = ["open_window"]  # a fixture, shared with the tests of the other pages


@pytest.fixture
def door(open_window: Callable[[str], Window], acme: Visitor) -> Window:
    """A browser at Acme's host, whose owner nobody has signed in."""
    return open_window(f"{acme.slug}.localhost")


def page_of(token: str) -> str:
    return f"/invitation?token={token}"


def words(answer: TestResponse) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.get_data(as_text=True)))


def test_page_shows_the_tenant_the_role_and_what_a_password_needs(door: Window, acme: Visitor) -> None:
    _, token = invite(acme, "ada@people.test", role="manager")

    answer = door.get(page_of(token))

    assert answer.status_code == 200
    assert "You are invited as manager" in words(answer)
    assert 'value="ada@people.test"' in answer.get_data(as_text=True)
    assert "It needs at least 8 characters" in words(answer)
    assert answer.headers["Cache-Control"] == "private, no-store"


def test_new_account_is_made_and_lands_in_the_tenant(door: Window, acme: Visitor) -> None:
    email = new_email()
    _, token = invite(acme, email, role="manager")

    answer = door.send(page_of(token), password=STRONG)

    assert (answer.status_code, answer.location) == (303, "/people")
    assert email in words(door.get("/people"))
    members = acme.get("/api/v1/members").get_json()["items"]
    assert {member["email"]: member["role"] for member in members}[email] == "manager"


def test_account_there_is_signs_in_with_its_own_password(door: Window, acme: Visitor, globex: Visitor) -> None:
    _, token = invite(acme, globex.email)
    shown = words(door.get(page_of(token)))

    refused = door.send(page_of(token), password="not the password")
    answer = door.send(page_of(token), password=PASSWORD)

    assert "This address has an account already" in shown
    assert "It needs" not in shown
    assert refused.status_code == 401
    assert "This is not the password of your account." in words(refused)
    assert (answer.status_code, answer.location) == (303, "/people")
    assert globex.email in words(door.get("/people"))


@pytest.mark.parametrize(("password", "said"), [("short", "at least 8 characters"), ("", "Fill this in.")])
def test_password_that_will_not_do_leaves_the_invitation_open(
    door: Window, acme: Visitor, password: str, said: str
) -> None:
    _, token = invite(acme)

    refused = door.send(page_of(token), password=password)

    assert refused.status_code == 400
    assert words(refused).count(said) == 1
    assert password == "" or password not in refused.get_data(as_text=True)
    assert door.send(page_of(token), password=STRONG).status_code == 303


def test_member_already_is_sent_to_sign_in(door: Window, acme: Visitor, truth: Truth) -> None:
    invited, token = invite(acme)
    truth.execute("UPDATE invitations SET email = %s WHERE id = %s", [acme.email, invited["id"]])

    answer = door.send(page_of(token), password=PASSWORD)

    assert (answer.status_code, answer.location) == (303, "/sign-in")
    assert "You are a member already" in words(door.get("/sign-in"))


def test_whatever_opens_nothing_gets_one_same_page(
    app: Flask, door: Window, acme: Visitor, globex: Visitor, truth: Truth
) -> None:
    """T118"""
    tokens = {name: invite(acme) for name in ("used", "expired", "revoked", "replaced")}
    assert door.send(page_of(tokens["used"][1]), password=STRONG).status_code == 303
    truth.execute("UPDATE invitations SET expires_at = now() WHERE id = %s", [tokens["expired"][0]["id"]])
    assert acme.call("DELETE", f"/api/v1/invitations/{tokens['revoked'][0]['id']}").status_code == 204
    acme.post(f"/api/v1/invitations/{tokens['replaced'][0]['id']}/resend")
    _, foreign = invite(globex)
    assert Window(app.test_client(), f"{globex.slug}.localhost").get(page_of(foreign)).status_code == 200

    stranger = Window(app.test_client(), f"{acme.slug}.localhost")
    given = [*(token for _, token in tokens.values()), foreign, "", "x", "x" * 500, "%00"]
    answers = [stranger.get(page_of(token)) for token in given]

    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.get_data() for answer in answers}) == 1
    assert "This invitation no longer counts" in words(answers[0])


def test_foreign_token_is_refused_where_it_is_sent(app: Flask, door: Window, acme: Visitor, globex: Visitor) -> None:
    """T118"""
    _, own = invite(acme)
    _, foreign = invite(globex)
    form = re.search(r'name="csrf_token" value="([^"]+)"', door.get(page_of(own)).get_data(as_text=True))
    assert form is not None

    data = {"password": STRONG, "csrf_token": form[1]}
    answer = door._client.post(page_of(foreign), base_url=door._origin, data=data)

    assert answer.status_code == 404
    theirs = Window(app.test_client(), f"{globex.slug}.localhost")
    assert theirs.send(page_of(foreign), password=STRONG).status_code == 303


def test_form_of_another_site_is_refused(app: Flask, acme: Visitor) -> None:
    """T107"""
    _, token = invite(acme)
    browser = app.test_client()
    host = f"http://{acme.slug}.localhost"

    foreign = browser.post(
        page_of(token), base_url=host, headers={"Origin": "http://evil.test"}, data={"password": STRONG}
    )
    without = browser.post(page_of(token), base_url=host, data={"password": STRONG})

    assert foreign.status_code == 403
    assert without.status_code in (400, 403)
    assert replace(acme).get("/api/v1/members").get_json()["items"][0]["email"] == acme.email
    assert len(acme.get("/api/v1/members").get_json()["items"]) == 1


def test_invitation_to_a_suspended_tenant_opens_nothing(door: Window, acme: Visitor, truth: Truth) -> None:
    _, token = invite(acme)
    assert door.get(page_of(token)).status_code == 200

    truth.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = %s", [acme.tenant_id])

    assert door.get(page_of(token)).status_code in (403, 404)
