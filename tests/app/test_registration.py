"""Registering an organisation: one transaction, one tenant, one owner."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event
from uuid_utils.compat import uuid7

from tests.app.conftest import PASSWORD, Truth, Visitor, codes, fields, new_email

PATH = "/api/v1/auth/register-organization"


def registration(**changes: str) -> dict[str, str]:
    given = {"organization_name": "Acme", "admin_email": new_email(), "admin_password": PASSWORD, "plan": "premium"}
    return given | changes


def test_registration_answers_tenant_tokens_and_owner(client: FlaskClient) -> None:
    email = new_email()

    response = client.post(PATH, json=registration(organization_name="Initech GmbH", admin_email=email))

    body = response.get_json()
    assert response.status_code == 201
    assert body["slug"].startswith("initech-gmbh")
    assert body["user"]["email"] == email
    assert body["user"]["role"] == "owner"
    assert set(body) == {
        "tenant_id",
        "slug",
        "access_token",
        "refresh_token",
        "token_type",
        "expires_in_s",
        "user",
    }


def test_registered_tenant_is_served_at_once(register: Callable[..., Visitor]) -> None:
    owner = register("Hooli")

    response = owner.get("/api/v1/me", base_url=f"http://{owner.slug}.localhost")

    assert response.status_code == 200
    assert response.get_json()["tenant"]["slug"] == owner.slug


def test_second_organization_of_one_name_gets_another_slug(register: Callable[..., Visitor]) -> None:
    """T109"""
    first, second = register("Umbrella"), register("Umbrella")

    assert first.slug != second.slug
    assert second.slug.startswith("umbrella-")


def test_reserved_name_gets_a_suffix(register: Callable[..., Visitor]) -> None:
    """T109"""
    assert register("Admin").slug.startswith("admin-")


def test_name_without_latin_letters_gets_a_slug(register: Callable[..., Visitor]) -> None:
    assert register("東京 42").slug.startswith("tenant-42-")


def test_same_address_and_password_founds_a_second_tenant(register: Callable[..., Visitor]) -> None:
    first = register("First")

    second = register("Second", first.email)

    tenants = second.get("/api/v1/me").get_json()["memberships"]
    assert {tenant["slug"] for tenant in tenants} == {first.slug, second.slug}


def test_known_address_with_another_password_is_refused_and_writes_nothing(
    client: FlaskClient, acme: Visitor, truth: Truth
) -> None:
    before = truth.execute("SELECT count(*) FROM tenants").fetchone()

    response = client.post(PATH, json=registration(admin_email=acme.email, admin_password="Another password 1"))

    assert codes(response) == (409, "taken")
    assert fields(response) == ["admin_email"]
    assert truth.execute("SELECT count(*) FROM tenants").fetchone() == before


def test_address_is_one_whatever_its_case(client: FlaskClient, acme: Visitor) -> None:
    shouted = registration(admin_email=acme.email.upper(), admin_password="Another password 1")

    assert codes(client.post(PATH, json=shouted)) == (409, "taken")


def test_registration_takes_fewer_than_25_statements_and_no_ddl(app: Flask, client: FlaskClient) -> None:
    client.post(PATH, json=registration())
    statements: list[str] = []
    transactions: list[object] = []
    engine = app.extensions["auth"].database.engine

    def note_statement(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    def note_begin(connection: object) -> None:
        transactions.append(connection)

    event.listen(engine, "before_cursor_execute", note_statement)
    event.listen(engine, "begin", note_begin)
    try:
        response = client.post(PATH, json=registration(organization_name=f"Org {uuid7().hex}"))
    finally:
        event.remove(engine, "before_cursor_execute", note_statement)
        event.remove(engine, "begin", note_begin)

    # Each transaction begins with BEGIN and three settings, and ends with COMMIT or ROLLBACK.
    assert response.status_code == 201
    assert len(transactions) > 0
    assert len(statements) + 5 * len(transactions) < 25
    assert not [text for text in statements if text.split()[0] in ("CREATE", "ALTER", "GRANT", "DROP")]


def test_password_is_stored_as_an_argon2id_hash_only(acme: Visitor, truth: Truth) -> None:
    row = truth.execute("SELECT password_hash FROM accounts WHERE email = %s", [acme.email]).fetchone()

    assert row is not None
    assert row[0].startswith("$argon2id$")
    assert PASSWORD not in row[0]
