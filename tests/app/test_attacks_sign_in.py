"""Attacks around signing in: what is told, what is kept, and what a password of staff must be."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.app.conftest import PASSWORD, Truth, Visitor, codes, fields, new_email
from tests.app.staffing import add_staff, staff_client

REASON = {"reason": "an attack"}


@pytest.mark.parametrize("weak", ["password", "Sh0rt&fine!"])
def test_password_of_staff_has_twelve_characters(app: Flask, client: FlaskClient, weak: str) -> None:
    """Whoever guesses it runs the service; tenants ask for as much of their members."""
    owner = staff_client(app)
    staff_id, email = add_staff(app)
    token = owner.post(f"/staff/{staff_id}/password-link", json=REASON).get_json()["link_token"]

    refused = client.post("/api/v1/admin/auth/set-password", json={"token": token, "password": weak})

    assert codes(refused) == (400, "invalid_input")
    assert fields(refused) == ["password"]
    strong = {"token": token, "password": "Correct horse battery 2"}
    assert client.post("/api/v1/admin/auth/set-password", json=strong).status_code == 200
    login = {"email": email, "password": "Correct horse battery 2"}
    assert client.post("/api/v1/admin/auth/login", json=login).status_code == 200


def test_password_typed_into_the_wrong_field_is_not_kept(app: Flask, acme: Visitor, truth: Truth) -> None:
    """Failed sign-ins are written to the audit for good, with the address that was tried."""
    mine, events = new_email(), app.extensions["security_events"]
    slip = "My s3cret passphrase!"
    login = "/api/v1/admin/auth/login"
    acme.client.post(login, json={"email": mine, "password": "x"})
    acme.client.post(login, json={"email": slip, "password": PASSWORD})
    acme.client.post("/api/v1/auth/login", json={"email": slip, "password": PASSWORD})

    events.flush()

    def kept(text: str) -> Any:
        row = truth.execute(
            "SELECT (SELECT count(*) FROM platform_entries p WHERE p::text LIKE %(it)s)"
            " + (SELECT count(*) FROM audit_entries a WHERE a::text LIKE %(it)s)",
            {"it": f"%{text}%"},
        ).fetchone()
        return row and row[0]

    assert kept(mine) == 1
    assert kept("s3cret passphrase") == 0
