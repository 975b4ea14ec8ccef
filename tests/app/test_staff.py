"""The staff themselves: the first owner, roles, being disabled, and one-time links."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.audit.actors import acting_as
from app.auth.desk import EXTENSION
from app.staff import links
from app.staff.permissions import MATRIX, StaffPermission, StaffRole
from tests.app.conftest import PASSWORD, Truth, codes, fields, new_email
from tests.app.staffing import SETUP, Staffer, add_staff, key_client, staff_client
from tests.conftest import Database

NEW_PASSWORD = "a wholly different one"
REASON = {"reason": "joins the team"}


@pytest.fixture
def ana(app: Flask) -> Staffer:
    return staff_client(app)


@pytest.fixture
def alone(truth: Truth) -> None:
    """Nobody of the staff is there but whom the test makes: earlier tests' owners are put out of the way."""
    truth.execute("UPDATE staff_accounts SET disabled_at = now() WHERE disabled_at IS NULL")


@pytest.fixture
def nobody(truth: Truth) -> None:
    truth.execute("TRUNCATE staff_accounts CASCADE")


def log_in(client: FlaskClient, email: str, password: str = PASSWORD) -> TestResponse:
    return client.post("/api/v1/admin/auth/login", json={"email": email, "password": password})


def first_owner_link(app: Flask) -> str | None:
    with app.app_context(), acting_as(SETUP):
        return links.issue_first_owner_link(app.extensions[EXTENSION])


def become_owner(client: FlaskClient, token: str, email: str) -> TestResponse:
    body = {"token": token, "email": email, "password": PASSWORD}
    return client.post("/api/v1/admin/auth/first-owner", json=body)


# The first owner --------------------------------------------------------------------------------------


def test_link_makes_the_first_owner_once(app: Flask, client: FlaskClient, nobody: None) -> None:
    token, email = first_owner_link(app), new_email()
    assert token is not None
    assert codes(log_in(client, email)) == (401, "not_signed_in")

    assert become_owner(client, token, email).get_json()["role"] == "owner"

    assert log_in(client, email).status_code == 200
    assert codes(become_owner(client, token, new_email())) == (403, "link_spent")


def test_no_link_is_given_once_there_is_staff(app: Flask, ana: Staffer) -> None:
    assert ana.get("/auth/me").status_code == 200

    assert first_owner_link(app) is None


def test_new_link_voids_the_one_before(app: Flask, client: FlaskClient, nobody: None) -> None:
    old, new = first_owner_link(app), first_owner_link(app)
    assert old is not None
    assert new is not None

    assert codes(become_owner(client, old, new_email())) == (403, "link_spent")
    assert become_owner(client, new, new_email()).status_code == 201


def test_expired_link_makes_no_owner(app: Flask, client: FlaskClient, nobody: None, truth: Truth) -> None:
    token = first_owner_link(app)
    assert token is not None

    truth.execute("UPDATE staff_links SET expires_at = now()")

    assert codes(become_owner(client, token, new_email())) == (403, "link_spent")


def test_link_from_before_there_was_staff_makes_no_second_owner(app: Flask, client: FlaskClient, nobody: None) -> None:
    token = first_owner_link(app)
    assert token is not None
    add_staff(app)

    assert codes(become_owner(client, token, new_email())) == (403, "link_spent")


def test_of_many_uses_of_a_link_at_once_one_makes_an_owner(app: Flask, nobody: None, truth: Truth) -> None:
    token = first_owner_link(app)
    assert token is not None
    answers: list[int] = []

    def use() -> None:
        answers.append(become_owner(app.test_client(), token, new_email()).status_code)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(answers) == [201] + [403] * 7
    assert truth.execute("SELECT count(*) FROM staff_accounts").fetchone() == (1,)


@pytest.mark.parametrize("password", ["", "short", None])
def test_link_is_not_used_up_by_a_password_that_is_refused(
    app: Flask, client: FlaskClient, nobody: None, password: str | None
) -> None:
    token = first_owner_link(app)
    assert token is not None
    body = {"token": token, "email": new_email(), "password": password}

    assert fields(client.post("/api/v1/admin/auth/first-owner", json=body)) == ["password"]

    assert become_owner(client, token, new_email()).status_code == 201


# Adding somebody, and passwords -----------------------------------------------------------------------


def test_added_person_signs_in_by_the_password_she_sets(ana: Staffer, client: FlaskClient) -> None:
    email = new_email()
    added = ana.post("/staff", json={"email": email, "role": "support", **REASON}).get_json()
    assert codes(log_in(client, email)) == (401, "not_signed_in")

    answer = client.post(
        "/api/v1/admin/auth/set-password", json={"token": added["link_token"], "password": NEW_PASSWORD}
    )

    assert answer.status_code == 200
    assert log_in(client, email, NEW_PASSWORD).status_code == 200
    again = client.post("/api/v1/admin/auth/set-password", json={"token": added["link_token"], "password": PASSWORD})
    assert codes(again) == (403, "link_spent")


def test_setting_a_password_ends_the_sign_ins(app: Flask, ana: Staffer) -> None:
    bob = staff_client(app, StaffRole.SUPPORT)
    link = ana.post(f"/staff/{bob.id}/password-link", json=REASON).get_json()["link_token"]
    assert bob.get("/auth/me").status_code == 200

    bob.client.post("/api/v1/admin/auth/set-password", json={"token": link, "password": NEW_PASSWORD})

    assert codes(bob.get("/auth/me")) == (401, "not_signed_in")
    assert codes(log_in(bob.client, bob.email)) == (401, "not_signed_in")
    assert log_in(bob.client, bob.email, NEW_PASSWORD).status_code == 200


def test_link_that_sets_a_password_makes_no_owner(app: Flask, ana: Staffer, client: FlaskClient, alone: None) -> None:
    bob_id, _ = add_staff(app)
    with app.app_context(), acting_as(SETUP):
        token = links.issue_password_link(app.extensions[EXTENSION], bob_id, reason="for a test")

    assert codes(become_owner(client, token, new_email())) == (403, "link_spent")


def test_address_of_somebody_of_the_staff_is_taken(ana: Staffer) -> None:
    answer = ana.post("/staff", json={"email": ana.email.upper(), "role": "support", **REASON})

    assert codes(answer) == (409, "taken")
    assert fields(answer) == ["email"]


# Roles, and being disabled ----------------------------------------------------------------------------


def test_disabled_person_is_out_at_once_and_back_by_a_new_sign_in(app: Flask, ana: Staffer) -> None:
    bob = staff_client(app, StaffRole.SUPPORT)
    assert bob.get("/auth/me").status_code == 200

    assert ana.post(f"/staff/{bob.id}/disable", json=REASON).get_json()["disabled_at"] is not None

    assert codes(bob.get("/auth/me")) == (401, "not_signed_in")
    assert codes(log_in(bob.client, bob.email)) == (401, "not_signed_in")
    assert ana.post(f"/staff/{bob.id}/enable", json=REASON).get_json()["disabled_at"] is None
    assert codes(bob.get("/auth/me")) == (401, "not_signed_in")
    assert log_in(bob.client, bob.email).status_code == 200


def test_another_role_counts_at_once(app: Flask, ana: Staffer) -> None:
    bob = staff_client(app, StaffRole.SUPPORT)
    assert "tenants.write" in bob.get("/auth/me").get_json()["permissions"]

    ana.patch(f"/staff/{bob.id}", json={"role": "read_only", **REASON})

    found = bob.get("/auth/me").get_json()
    assert found["role"] == "read_only"
    assert "tenants.write" not in found["permissions"]


def test_last_owner_is_neither_disabled_nor_demoted(app: Flask, alone: None) -> None:
    ana = staff_client(app)

    disabled = ana.post(f"/staff/{ana.id}/disable", json=REASON)
    demoted = ana.patch(f"/staff/{ana.id}", json={"role": "support", **REASON})

    assert codes(disabled) == codes(demoted) == (409, "last_owner")
    assert ana.get("/auth/me").get_json()["role"] == "owner"


def test_owner_beside_another_can_be_demoted(app: Flask, alone: None) -> None:
    ana, bob = staff_client(app), staff_client(app)

    answer = ana.patch(f"/staff/{bob.id}", json={"role": "support", **REASON})

    assert answer.get_json()["role"] == "support"


def wait_for_locks(truth: Truth, number: int) -> None:
    """Return when so many sessions of the platform wait for a lock."""
    until = time.monotonic() + 10
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenancy_platform' AND wait_event_type = 'Lock'"
    while truth.execute(waiting).fetchone() != (number,):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_owner_who_leaves_while_the_other_is_being_disabled_is_kept(
    app: Flask, alone: None, truth: Truth, database: Database
) -> None:
    ana, bob = staff_client(app), staff_client(app)
    answers: list[TestResponse] = []
    leaving = threading.Thread(target=lambda: answers.append(ana.post(f"/staff/{ana.id}/disable", json=REASON)))

    with database.connect("postgres") as other:
        other.execute("UPDATE staff_accounts SET disabled_at = now() WHERE id = %s", [bob.id])
        leaving.start()
        wait_for_locks(truth, 1)
        other.commit()
    leaving.join(30)

    assert codes(answers[0]) == (409, "last_owner")
    assert ana.get("/auth/me").status_code == 200


def test_of_two_uses_of_a_password_link_at_once_one_counts(
    app: Flask, ana: Staffer, truth: Truth, database: Database
) -> None:
    link = ana.post(f"/staff/{ana.id}/password-link", json=REASON).get_json()["link_token"]
    answers: list[int] = []

    def use(password: str) -> None:
        body = {"token": link, "password": password}
        answers.append(app.test_client().post("/api/v1/admin/auth/set-password", json=body).status_code)

    threads = [threading.Thread(target=use, args=(f"{number} {NEW_PASSWORD}",)) for number in range(2)]
    with database.connect("postgres") as other:
        other.execute("SELECT FROM staff_links WHERE staff_id = %s FOR UPDATE", [ana.id])
        for thread in threads:
            thread.start()
        wait_for_locks(truth, 2)
        other.commit()
    for thread in threads:
        thread.join(30)

    assert sorted(answers) == [200, 403]


@pytest.mark.parametrize("role", [StaffRole.SUPPORT, StaffRole.BILLING, StaffRole.READ_ONLY])
def test_staff_is_managed_by_owners_only(app: Flask, role: StaffRole) -> None:
    staffer = staff_client(app, role)
    assert staffer.get("/auth/me").status_code == 200

    assert codes(staffer.get("/staff")) == (403, "forbidden")
    assert codes(staffer.post("/staff", json={"email": new_email(), "role": role, **REASON})) == (403, "forbidden")
    assert codes(staffer.patch(f"/staff/{staffer.id}", json={"role": "owner", **REASON})) == (403, "forbidden")


def test_key_adds_nobody_and_gives_no_role(app: Flask) -> None:
    """Whoever it let in would stay when the key has ended."""
    program = key_client(app, StaffPermission.STAFF_MANAGE, *MATRIX[StaffRole.READ_ONLY])
    colleague = staff_client(app, StaffRole.SUPPORT)

    added = program.post("/staff", json={"email": new_email(), "role": "read_only", **REASON})
    given = program.patch(f"/staff/{colleague.id}", json={"role": "read_only", **REASON})

    assert [codes(added), codes(given)] == [(403, "forbidden")] * 2
    assert program.post(f"/staff/{colleague.id}/disable", json=REASON).status_code == 200


def test_staff_is_listed_page_by_page(app: Flask, ana: Staffer) -> None:
    staff_client(app, StaffRole.SUPPORT)

    first = ana.get("/staff", query_string={"limit": 1}).get_json()
    second = ana.get("/staff", query_string={"limit": 1, "cursor": first["next_cursor"]}).get_json()

    assert first["items"][0]["email"] < second["items"][0]["email"]
    assert "password_hash" not in first["items"][0]


@pytest.mark.parametrize("path", ["", "/disable", "/enable", "/password-link"])
def test_unknown_person_is_not_found(ana: Staffer, path: str) -> None:
    body: dict[str, Any] = REASON if path else REASON | {"role": "support"}

    answer = ana.call("POST" if path else "PATCH", f"/staff/{uuid4()}{path}", json=body)

    assert codes(answer) == (404, "not_found")


def test_changes_of_the_staff_are_audited(app: Flask, ana: Staffer, truth: Truth) -> None:
    bob = staff_client(app, StaffRole.SUPPORT)

    ana.patch(f"/staff/{bob.id}", json={"role": "billing", "reason": "moves to accounting"})
    ana.post(f"/staff/{bob.id}/disable", json={"reason": "has left"})

    found = truth.execute(
        "SELECT action, actor_label, reason FROM platform_entries "
        "WHERE target_id = %s AND actor_label = %s ORDER BY at",
        [bob.id, ana.email],
    ).fetchall()
    assert found == [
        ("staff.role_changed", ana.email, "moves to accounting"),
        ("staff.disabled", ana.email, "has left"),
    ]


# What is stored ---------------------------------------------------------------------------------------


def test_no_secret_is_stored(app: Flask, ana: Staffer, truth: Truth) -> None:
    program = key_client(app, StaffPermission.TENANTS_READ)
    bob = ana.post("/staff", json={"email": new_email(), "role": "support", **REASON}).get_json()
    assert program.get("/auth/me").status_code == 200

    stored = [
        str(row)
        for table in ("staff_accounts", "staff_sign_ins", "staff_keys", "staff_links", "platform_entries")
        for row in truth.execute(f"SELECT * FROM {table}")
    ]

    assert any(ana.email in row for row in stored)
    for secret in (ana.token, program.token, bob["link_token"], PASSWORD):
        assert not any(secret in row for row in stored)


@pytest.mark.parametrize("table", ["staff_accounts", "staff_sign_ins", "staff_keys", "staff_links", "kept_answers"])
def test_app_role_reaches_no_table_of_the_staff(database: Database, ana: Staffer, table: str) -> None:
    with (
        database.connect("tenancy_app") as connection,
        pytest.raises(Exception, match=f"permission denied for table {table}"),
    ):
        connection.execute(f"SELECT * FROM {table}")  # type: ignore[call-overload]


# Settings ---------------------------------------------------------------------------------------------


def test_life_of_a_sign_in_is_a_setting(make_app: Callable[..., Flask], truth: Truth) -> None:
    ana = staff_client(make_app(staff_sign_in_ttl_s=120))

    left = truth.execute(
        "SELECT extract(epoch FROM expires_at - created_at) FROM staff_sign_ins WHERE staff_id = %s", [ana.id]
    ).fetchone()

    assert left is not None
    assert 119 < left[0] < 121


def test_life_of_a_link_is_a_setting(make_app: Callable[..., Flask], truth: Truth) -> None:
    ana = staff_client(make_app(staff_link_ttl_s=90))

    ana.post(f"/staff/{ana.id}/password-link", json=REASON)

    left = truth.execute(
        "SELECT extract(epoch FROM expires_at - created_at) FROM staff_links WHERE staff_id = %s", [ana.id]
    ).fetchone()
    assert left is not None
    assert 89 < left[0] < 91
