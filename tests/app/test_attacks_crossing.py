"""Attacks across actors and tenants: keys of requests, cursors, invitations and slugs that are somebody else's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from app.staff.permissions import StaffRole
from tests.app.conftest import PASSWORD, Truth, Visitor, add_person, codes, new_email
from tests.app.lives import new_slug
from tests.app.staffing import Staffer, staff_client
from tests.app.test_invitations import accept, invite
from tests.app.test_members import member_id

REASON = {"reason": "an attack"}


def create(staffer: Staffer, key: str, slug: str) -> Any:
    json = {"name": "Initech", "plan": "basic", "slug": slug, **REASON}
    return staffer.post("/tenants", json=json, headers={"Idempotency-Key": key})


def test_idempotency_key_of_one_actor_answers_no_other(app: Flask) -> None:
    ana, bob = staff_client(app), staff_client(app)
    made = create(ana, "guessable", new_slug())

    other = create(bob, "guessable", new_slug())

    assert (made.status_code, other.status_code) == (201, 201)
    assert made.get_json()["id"] != other.get_json()["id"]
    assert "Idempotency-Replayed" not in other.headers


def test_kept_answer_is_not_told_to_who_was_demoted_since(app: Flask) -> None:
    ana, bob = staff_client(app), staff_client(app, StaffRole.SUPPORT)
    slug = new_slug()
    assert create(bob, "k", slug).status_code == 201
    ana.patch(f"/staff/{bob.id}", json={"role": "read_only", **REASON})

    assert codes(create(bob, "k", slug)) == (403, "forbidden")


def test_cursor_of_another_tenants_list_shows_only_ones_own(acme: Visitor, globex: Visitor) -> None:
    theirs = [add_person(globex, name) for name in ("Aa", "Bb", "Cc")]
    mine = {add_person(acme, name) for name in ("Bx", "Cx")}
    query = {"limit": 1, "sort": "name"}
    cursor = globex.get("/api/v1/people", query_string=query).get_json()["next_cursor"]
    assert cursor is not None

    found = acme.get("/api/v1/people", query_string={"sort": "name", "cursor": cursor}).get_json()["items"]

    assert {item["id"] for item in found} <= mine
    assert not {item["id"] for item in found} & set(theirs)


@pytest.mark.parametrize("status", ["suspended", "archived"])
def test_invitation_of_a_closed_tenant_opens_nothing_and_lets_in_again_later(
    app: Flask, acme: Visitor, status: str
) -> None:
    _, token = invite(acme)
    owner = staff_client(app)
    path = f"/tenants/{acme.tenant_id}/status"
    assert owner.put(path, json={"status": status, **REASON}).status_code == 200

    refused = accept(acme.client, token)
    unknown = accept(acme.client, "x" * 43)

    assert codes(refused) == (404, "invitation_ended")
    assert refused.get_json() == unknown.get_json()
    owner.put(path, json={"status": "active", **REASON})
    assert accept(acme.client, token).status_code == 201


def test_two_tenants_invite_one_new_address_at_once(acme: Visitor, globex: Visitor, truth: Truth) -> None:
    """Of two accounts made at one moment one stays, and whoever comes second is not let in by another password."""
    email = new_email()
    tokens = [invite(host, email)[1] for host in (acme, globex)]

    def take(number: int) -> int:
        client = acme.client.application.test_client(use_cookies=False)
        return accept(client, tokens[number], f"Correct horse battery {number}!").status_code

    with ThreadPoolExecutor(2) as threads:
        answers = sorted(threads.map(take, range(2)))

    assert answers == [201, 409]
    assert truth.execute("SELECT count(*) FROM accounts WHERE email = %s", [email]).fetchone() == (1,)
    assert truth.execute("SELECT count(*) FROM members WHERE email = %s", [email]).fetchone() == (1,)


def test_member_who_was_removed_is_not_brought_back_by_her_old_token(acme: Visitor, globex: Visitor) -> None:
    _, token = invite(acme, globex.email)
    joined = accept(acme.client, token, PASSWORD).get_json()
    assert acme.call("DELETE", f"/api/v1/members/{joined['user']['member_id']}").status_code == 204

    assert codes(accept(acme.client, token, PASSWORD)) == (404, "invitation_ended")
    assert codes(globex.post("/api/v1/auth/join", json={"token": token})) == (404, "invitation_ended")
    refresh = acme.client.post("/api/v1/auth/refresh", json={"refresh_token": joined["refresh_token"]})
    assert codes(refresh) == (401, "not_signed_in")


@pytest.mark.parametrize(
    "value",
    [
        {"min_length": 10_000, "upper": True, "lower": True, "number": True, "special": True},
        {"min_length": 129, "upper": False, "lower": False, "number": False, "special": False},
        {"min_length": 0, "upper": False, "lower": False, "number": False, "special": False},
        {"min_length": "12", "upper": 1, "lower": 0, "number": 0, "special": 0},
        None,
    ],
)
def test_policy_that_no_password_could_meet_is_refused(acme: Visitor, value: Any) -> None:
    answer = acme.call("PUT", "/api/v1/settings/security.password_policy", json={"value": value})

    assert codes(answer) == (400, "invalid_input")


@pytest.mark.parametrize("value", [0, -1, 299, 10**12, True, "600", 600.5, None])
def test_timeout_that_would_shut_everybody_out_is_refused(acme: Visitor, value: Any) -> None:
    answer = acme.call("PUT", "/api/v1/settings/session.timeout", json={"value": value})

    assert codes(answer) == (400, "invalid_input")
    assert member_id(acme)


def test_longest_policy_still_lets_somebody_in(acme: Visitor) -> None:
    strict = {"min_length": 128, "upper": True, "lower": True, "number": True, "special": True}
    answer = acme.call("PUT", "/api/v1/settings/security.password_policy", json={"value": strict})
    assert answer.status_code == 200
    _, token = invite(acme)

    assert codes(accept(acme.client, token, "Short 1!")) == (400, "invalid_input")
    assert accept(acme.client, token, "Aa1! " * 26).status_code == 201
    again = acme.client.post("/api/v1/auth/login", json={"email": acme.email, "password": PASSWORD})
    assert again.status_code == 200
