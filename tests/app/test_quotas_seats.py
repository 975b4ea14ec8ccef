"""Seats and bytes: taken by whoever is invited and whatever is stored, and given back with them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from PIL import Image

from app.plans.terms import Quota, TermKind
from tests.app.conftest import PASSWORD, Truth, Visitor, codes, new_email
from tests.app.entitled import give
from tests.app.staffing import staff_client


def used(visitor: Visitor, quota: Quota) -> int:
    items = visitor.get("/api/v1/quotas").get_json()["items"]
    [found] = [item["used"] for item in items if item["quota"] == quota]
    return int(found)


def invite(visitor: Visitor, email: str | None = None) -> Any:
    return visitor.post("/api/v1/invitations", json={"email": email or new_email(), "role": "member"})


def accept(app: Flask, link: str) -> Any:
    token = link.partition("token=")[2]
    body = {"token": token, "password": PASSWORD}
    return app.test_client(use_cookies=False).post("/api/v1/auth/accept-invitation", json=body)


# People -----------------------------------------------------------------------------------------------


def test_invitation_takes_a_seat_and_is_refused_where_none_is_left(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.USERS, 2)

    assert invite(acme).status_code == 201
    refused = invite(acme)

    assert codes(refused) == (403, "quota_exceeded")
    assert (refused.get_json()["quota"], refused.get_json()["used"]) == ("users", 2)
    assert used(acme, Quota.USERS) == 2


def test_revoked_invitation_gives_its_seat_back(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.USERS, 2)
    invitation = invite(acme).get_json()["id"]

    assert acme.call("DELETE", f"/api/v1/invitations/{invitation}").status_code == 204

    assert used(acme, Quota.USERS) == 1
    assert invite(acme).status_code == 201


def test_expired_invitation_gives_its_seat_to_the_next(app: Flask, acme: Visitor, truth: Truth) -> None:
    give(app, acme, TermKind.LIMIT, Quota.USERS, 2)
    assert invite(acme).status_code == 201
    truth.execute("UPDATE invitations SET expires_at = now() - interval '1 s' WHERE tenant_id = %s", [acme.tenant_id])

    assert invite(acme).status_code == 201

    assert used(acme, Quota.USERS) == 2


def test_accepting_takes_no_second_seat_and_a_removed_member_leaves_hers(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.USERS, 2)
    link = invite(acme).get_json()["link"]

    assert accept(app, link).status_code == 201
    assert used(acme, Quota.USERS) == 2

    [member] = [one for one in acme.get("/api/v1/members").get_json()["items"] if one["role"] == "member"]
    assert acme.call("DELETE", f"/api/v1/members/{member['id']}").status_code == 204
    assert used(acme, Quota.USERS) == 1


def test_invitation_is_not_accepted_where_fewer_are_allowed_by_now(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.USERS, 2)
    link = invite(acme).get_json()["link"]
    give(app, acme, TermKind.LIMIT, Quota.USERS, 1)

    assert codes(accept(app, link)) == (403, "quota_exceeded")
    assert len(acme.get("/api/v1/members").get_json()["items"]) == 1

    give(app, acme, TermKind.LIMIT, Quota.USERS, 2)
    assert accept(app, link).status_code == 201


# Bytes ------------------------------------------------------------------------------------------------


def picture(side: int = 8) -> bytes:
    content = io.BytesIO()
    Image.new("L", (side, side)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def card_of(acme: Visitor) -> Callable[[], str]:
    def make() -> str:
        answer = acme.post("/api/v1/cards", json={"number": "1", "year": 1990, "condition": "mint"})
        return str(answer.get_json()["id"])

    return make


def put(visitor: Visitor, card: str, content: bytes) -> Any:
    return visitor.call("PUT", f"/api/v1/cards/{card}/image", data=content, headers={"Content-Type": "image/png"})


def test_picture_that_does_not_fit_is_refused_and_leaves_nothing_behind(
    app: Flask, acme: Visitor, card_of: Callable[[], str], truth: Truth
) -> None:
    content = picture()
    give(app, acme, TermKind.LIMIT, Quota.STORAGE_BYTES, len(content) + 10)
    first, second = card_of(), card_of()
    assert put(acme, first, content).status_code == 200

    refused = put(acme, second, content)

    assert codes(refused) == (403, "quota_exceeded")
    assert used(acme, Quota.STORAGE_BYTES) == len(content)
    assert acme.get(f"/api/v1/cards/{second}/image").status_code == 404
    rows = truth.execute("SELECT count(*) FROM files WHERE tenant_id = %s", [acme.tenant_id]).fetchone()
    assert rows == (1,)


def test_removed_picture_and_deleted_card_give_their_bytes_back(acme: Visitor, card_of: Callable[[], str]) -> None:
    first, second = card_of(), card_of()
    for card in (first, second):
        assert put(acme, card, picture()).status_code == 200
    assert used(acme, Quota.STORAGE_BYTES) == 2 * len(picture())

    assert acme.call("DELETE", f"/api/v1/cards/{first}/image").status_code == 204
    assert used(acme, Quota.STORAGE_BYTES) == len(picture())

    assert acme.call("DELETE", f"/api/v1/cards/{second}").status_code == 204
    assert used(acme, Quota.STORAGE_BYTES) == 0


def test_picture_in_place_of_another_counts_once(acme: Visitor, card_of: Callable[[], str]) -> None:
    card = card_of()
    assert put(acme, card, picture(8)).status_code == 200

    assert put(acme, card, picture(64)).status_code == 200

    assert used(acme, Quota.STORAGE_BYTES) == len(picture(64))


# Before a change of plan ------------------------------------------------------------------------------


def test_downgrade_counts_people_invitations_cards_and_bytes(
    app: Flask, register: Callable[..., Visitor], truth: Truth
) -> None:
    acme = register("Big", plan="premium", password="Correct horse battery 1!")
    assert invite(acme).status_code == 201
    card = acme.post("/api/v1/cards", json={"number": "1", "year": 1990, "condition": "mint"}).get_json()["id"]
    assert put(acme, card, picture()).status_code == 200

    rehearsal = staff_client(app).get(f"/tenants/{acme.tenant_id}/migrate?plan=basic").get_json()

    found = {one["quota"]: one["used"] for one in rehearsal["limits"]}
    assert (found["users"], found["cards"], found["storage_bytes"]) == (2, 1, len(picture()))
    assert found["api_calls_day"] is None
