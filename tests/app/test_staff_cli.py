"""The command line of staff, and what a server without staff prints when it starts."""

from __future__ import annotations

import re

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskClient

from app.staff.cli import greet_first_owner
from app.staff.permissions import StaffPermission
from tests.app.conftest import PASSWORD, Truth, codes, new_email
from tests.app.staffing import Staffer, add_staff, key_client, staff_client

REASON = ("--reason", "for a test")


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=["staff", *arguments])


def printed_token(text: str) -> str:
    found = re.search(r"once_[\w-]{43}", text)
    assert found, text
    return found[0]


def test_person_made_here_signs_in_by_the_printed_link(app: Flask, client: FlaskClient) -> None:
    email = new_email()

    result = run(app, "create", email, "--role", "support", *REASON)

    assert result.exit_code == 0, result.output
    body = {"token": printed_token(result.output), "password": PASSWORD}
    assert client.post("/api/v1/admin/auth/set-password", json=body).status_code == 200
    login = client.post("/api/v1/admin/auth/login", json={"email": email, "password": PASSWORD})
    assert login.status_code == 200


def test_reset_link_voids_the_one_before(app: Flask, client: FlaskClient) -> None:
    _, email = add_staff(app)
    old = printed_token(run(app, "reset-link", email, *REASON).output)

    new = printed_token(run(app, "reset-link", email, *REASON).output)

    path = "/api/v1/admin/auth/set-password"
    assert codes(client.post(path, json={"token": old, "password": PASSWORD})) == (403, "link_spent")
    assert client.post(path, json={"token": new, "password": PASSWORD}).status_code == 200


def test_person_disabled_here_is_out_at_once(app: Flask) -> None:
    staff_client(app)
    bob = staff_client(app)
    assert bob.get("/auth/me").status_code == 200

    assert run(app, "disable", bob.email, *REASON).exit_code == 0

    assert codes(bob.get("/auth/me")) == (401, "not_signed_in")


def test_last_owner_is_kept_here_too(app: Flask, truth: Truth) -> None:
    truth.execute("UPDATE staff_accounts SET disabled_at = now() WHERE disabled_at IS NULL")
    ana = staff_client(app)

    result = run(app, "disable", ana.email, *REASON)

    assert result.exit_code == 1
    assert "last owner" in result.output
    assert ana.get("/auth/me").status_code == 200


def test_key_made_here_counts_until_it_is_revoked_here(app: Flask) -> None:
    ana = staff_client(app)
    made = run(app, "key", "create", ana.email, "--name", "report", "--may", "tenants.read", "--days", "30", *REASON)
    assert made.exit_code == 0, made.output
    secret = made.output.splitlines()[0]
    program = Staffer(ana.client, ana.id, ana.email, secret)
    assert program.get("/auth/me").get_json()["permissions"] == ["tenants.read"]

    assert run(app, "key", "revoke", secret[:12], *REASON).exit_code == 0

    assert codes(program.get("/auth/me")) == (401, "not_signed_in")


def test_lists_show_no_secret(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    program = key_client(app, StaffPermission.TENANTS_READ)

    people, keys = run(app, "list").output, run(app, "key", "list").output

    assert program.email in people
    assert program.token[:12] in keys
    assert program.token[12:] not in keys


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "no address", "--role", "support", *REASON), "is no e-mail address"),
        (("create", "a@b.test", "--role", "king", *REASON), "'king' is not one of"),
        (("create", "a@b.test", "--role", "support"), "Missing option '--reason'"),
        (("disable", "nobody@people.test", *REASON), "no such person"),
        (("key", "revoke", "key_00000000", *REASON), "no such key"),
        (("key", "create", "a@b.test", "--name", "x", "--may", "tenants.read", "--days", "999", *REASON), "999"),
    ],
)
def test_mistake_is_told_and_changes_nothing(app: Flask, arguments: tuple[str, ...], told: str) -> None:
    result = run(app, *arguments)

    assert result.exit_code in (1, 2)
    assert told in result.output


def test_server_without_staff_prints_how_its_first_owner_is_made(app: Flask, client: FlaskClient, truth: Truth) -> None:
    truth.execute("TRUNCATE staff_accounts CASCADE")

    told = greet_first_owner(app, base="http://localhost:5000")

    assert told is not None
    assert "http://localhost:5000/api/v1/admin/auth/first-owner" in told
    body = {"token": printed_token(told), "email": new_email(), "password": PASSWORD}
    assert client.post("/api/v1/admin/auth/first-owner", json=body).status_code == 201
    assert greet_first_owner(app, base="http://localhost:5000") is None
    assert run(app, "first-owner").exit_code == 1
