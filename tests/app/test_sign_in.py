"""Signing in, refreshing, switching and signing out by tokens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.auth.desk import Desk
from app.auth.tokens import AccessTokens, Subject
from tenancy.directory import TenantRecord
from tests.app.conftest import KEYS, PASSWORD, Truth, Visitor, codes, new_email, visitor_of

LOGIN = "/api/v1/auth/login"
REFRESH = "/api/v1/auth/refresh"
ME = "/api/v1/me"


def log_in(client: FlaskClient, email: str, password: str = PASSWORD, **more: str) -> TestResponse:
    return client.post(LOGIN, json={"email": email, "password": password, **more})


def refreshed(client: FlaskClient, token: str, **options: str) -> TestResponse:
    return client.post(REFRESH, json={"refresh_token": token}, **options)


# Signing in -------------------------------------------------------------------------------------------


def test_member_of_one_tenant_signs_in_without_naming_it(client: FlaskClient, acme: Visitor) -> None:
    response = log_in(client, acme.email)

    assert response.status_code == 200
    assert visitor_of(client, response).get(ME).get_json()["tenant"]["slug"] == acme.slug


def test_wrong_password_and_unknown_address_answer_alike(client: FlaskClient, acme: Visitor) -> None:
    wrong = log_in(client, acme.email, "wrong password")
    unknown = log_in(client, new_email())

    assert codes(wrong) == (401, "not_signed_in")
    assert wrong.get_json() == unknown.get_json()


def test_unknown_address_costs_a_password_check_too(app: Flask, client: FlaskClient) -> None:
    desk: Desk = app.extensions["auth"]

    assert desk.passwords.check(None, PASSWORD) is False
    assert desk.passwords.check(desk.passwords.hash(PASSWORD), PASSWORD) is True


def test_member_of_several_tenants_is_asked_to_choose_among_her_own(
    client: FlaskClient, register: Callable[..., Visitor], globex: Visitor
) -> None:
    first = register("First")
    second = register("Second", first.email)

    asked = log_in(client, first.email)
    chosen = log_in(client, first.email, tenant=second.slug)

    assert codes(asked) == (409, "choose_tenant")
    assert {tenant["slug"] for tenant in asked.get_json()["tenants"]} == {first.slug, second.slug}
    assert globex.slug not in asked.get_data(as_text=True)
    assert chosen.get_json()["slug"] == second.slug


def test_sign_in_at_a_tenants_address_is_to_that_tenant(client: FlaskClient, register: Callable[..., Visitor]) -> None:
    first = register("First")
    second = register("Second", first.email)

    response = client.post(
        LOGIN, json={"email": first.email, "password": PASSWORD}, base_url=f"http://{second.slug}.localhost"
    )

    assert response.get_json()["slug"] == second.slug


def test_sign_in_at_one_tenants_address_to_another_is_a_conflict(
    client: FlaskClient, acme: Visitor, globex: Visitor
) -> None:
    response = client.post(
        LOGIN,
        json={"email": acme.email, "password": PASSWORD, "tenant": acme.slug},
        base_url=f"http://{globex.slug}.localhost",
    )

    assert codes(response) == (403, "conflicting_references")


def test_foreign_and_unknown_tenant_answer_alike_at_sign_in(
    client: FlaskClient, acme: Visitor, globex: Visitor
) -> None:
    foreign = log_in(client, acme.email, tenant=globex.slug)
    unknown = log_in(client, acme.email, tenant="nobody-at-all")

    assert codes(foreign) == (403, "forbidden")
    assert foreign.get_json() == unknown.get_json()


def test_password_hash_is_renewed_when_its_cost_changed(
    make_app: Callable[..., Flask], acme: Visitor, truth: Truth
) -> None:
    stronger = make_app(argon2_time_cost=2).test_client()

    log_in(stronger, acme.email)

    row = truth.execute("SELECT password_hash FROM accounts WHERE email = %s", [acme.email]).fetchone()
    assert row is not None
    assert ",t=2," in row[0]
    assert log_in(stronger, acme.email).status_code == 200


# Access tokens ----------------------------------------------------------------------------------------


def test_me_names_the_account_the_tenant_and_the_permissions(acme: Visitor) -> None:
    body = acme.get(ME).get_json()

    assert body["user"]["email"] == acme.email
    assert body["user"]["role"] == "owner"
    assert body["tenant"] == {
        "tenant_id": str(acme.tenant_id),
        "slug": acme.slug,
        "name": "Acme",
        "role": "owner",
    }
    assert {"crm.delete", "members.manage", "settings.manage"} <= set(body["permissions"])


def test_access_token_carries_the_agreed_claims_and_key_id(acme: Visitor) -> None:
    header = jwt.get_unverified_header(acme.access_token)
    claims = jwt.decode(acme.access_token, options={"verify_signature": False})

    assert header["kid"] == "dev"
    assert header["alg"] == "HS256"
    assert claims.keys() == {"iss", "aud", "sub", "iat", "exp", "jti", "sid", "tenant_id", "tenant_slug"}
    assert claims["exp"] - claims["iat"] == 900


def test_token_of_one_tenant_at_anothers_address_is_a_conflict(acme: Visitor, globex: Visitor) -> None:
    """T096"""
    assert acme.get(ME, base_url=f"http://{acme.slug}.localhost").status_code == 200

    response = acme.get(ME, base_url=f"http://{globex.slug}.localhost")

    assert codes(response) == (403, "conflicting_references")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "Bearer", "\u00e9.e.e"])
def test_malformed_token_is_unauthorized(client: FlaskClient, token: str) -> None:
    response = client.get(ME, headers={"Authorization": f"Bearer {token}"})

    assert codes(response) == (401, "invalid_token")
    assert "WWW-Authenticate" in response.headers


def test_expired_token_is_unauthorized(app: Flask, client: FlaskClient, acme: Visitor) -> None:
    """T101"""
    tokens: AccessTokens = app.extensions["auth"].access_tokens
    subject = tokens.read(acme.access_token)
    tenant = TenantRecord(acme.tenant_id, acme.slug, "Acme", "active")

    old = tokens.issue(subject, tenant, at=datetime.now(UTC) - timedelta(hours=1))

    assert codes(client.get(ME, headers={"Authorization": f"Bearer {old}"})) == (401, "invalid_token")


def test_well_signed_token_of_an_account_that_is_no_member_opens_nothing(
    app: Flask, client: FlaskClient, acme: Visitor, globex: Visitor
) -> None:
    tokens: AccessTokens = app.extensions["auth"].access_tokens
    hers = tokens.read(acme.access_token)
    elsewhere = Subject(account_id=hers.account_id, tenant_id=globex.tenant_id, sign_in_id=hers.sign_in_id)
    forged = tokens.issue(elsewhere, TenantRecord(globex.tenant_id, globex.slug, "Globex", "active"))

    response = client.get(ME, headers={"Authorization": f"Bearer {forged}"})

    assert codes(response) == (401, "not_signed_in")


def test_removed_member_is_out_at_once(acme: Visitor, truth: Truth) -> None:
    assert acme.get(ME).status_code == 200

    truth.execute("DELETE FROM members WHERE tenant_id = %s", [acme.tenant_id])

    assert codes(acme.get(ME)) == (401, "not_signed_in")


def test_other_schemes_than_bearer_are_told_so(client: FlaskClient, acme: Visitor) -> None:
    response = client.get(ME, headers={"Authorization": "Basic eDp5"}, base_url=f"http://{acme.slug}.localhost")

    assert codes(response) == (401, "not_signed_in")


def test_old_key_verifies_while_the_new_one_signs(make_app: Callable[..., Flask], acme: Visitor) -> None:
    rotated = make_app(jwt_keys=KEYS | {"next": "n" * 48}, jwt_signing_kid="next").test_client()

    old_token = rotated.get(ME, headers={"Authorization": f"Bearer {acme.access_token}"})
    fresh = log_in(rotated, acme.email).get_json()["access_token"]
    assert old_token.status_code == 200
    assert jwt.get_unverified_header(fresh)["kid"] == "next"


# Refreshing -------------------------------------------------------------------------------------------


def test_refresh_gives_a_new_pair_that_works(client: FlaskClient, acme: Visitor) -> None:
    renewed = visitor_of(client, refreshed(client, acme.refresh_token))

    assert renewed.refresh_token != acme.refresh_token
    assert renewed.get(ME).status_code == 200


def test_refresh_token_used_twice_ends_the_whole_sign_in(client: FlaskClient, acme: Visitor) -> None:
    """T104"""
    renewed = visitor_of(client, refreshed(client, acme.refresh_token))

    again = refreshed(client, acme.refresh_token)

    assert codes(again) == (401, "not_signed_in")
    assert codes(refreshed(client, renewed.refresh_token)) == (401, "not_signed_in")
    assert codes(renewed.get(ME)) == (401, "not_signed_in")


def test_refresh_token_brought_to_another_tenant_ends_the_sign_in(
    client: FlaskClient, acme: Visitor, globex: Visitor
) -> None:
    """T104"""
    elsewhere = refreshed(client, acme.refresh_token, base_url=f"http://{globex.slug}.localhost")

    assert codes(elsewhere) == (401, "not_signed_in")
    assert codes(refreshed(client, acme.refresh_token)) == (401, "not_signed_in")


def test_unknown_refresh_token_answers_like_a_used_one(client: FlaskClient, acme: Visitor) -> None:
    refreshed(client, acme.refresh_token)

    used = refreshed(client, acme.refresh_token)
    unknown = refreshed(client, "never-issued")

    assert used.get_json() == unknown.get_json()


def test_expired_refresh_token_is_refused(client: FlaskClient, acme: Visitor, truth: Truth) -> None:
    truth.execute("UPDATE refresh_tokens SET expires_at = now() WHERE tenant_id = %s", [acme.tenant_id])

    assert codes(refreshed(client, acme.refresh_token)) == (401, "not_signed_in")


def test_only_the_hash_of_a_refresh_token_is_stored(acme: Visitor, truth: Truth) -> None:
    row = truth.execute("SELECT token_hash FROM refresh_tokens WHERE tenant_id = %s", [acme.tenant_id]).fetchone()

    assert row is not None
    assert len(row[0]) == 32
    assert acme.refresh_token.encode() not in row[0]


def test_sign_in_does_not_outlive_its_longest_life(make_app: Callable[..., Flask], acme: Visitor, truth: Truth) -> None:
    short = make_app(sign_in_ttl_s=60, refresh_token_ttl_s=3600).test_client()

    sign_in_id = jwt.decode(log_in(short, acme.email).get_json()["access_token"], options={"verify_signature": False})

    row = truth.execute(
        "SELECT t.expires_at <= s.expires_at, s.expires_at < now() + interval '61 seconds'"
        " FROM refresh_tokens t JOIN sign_ins s ON s.id = t.sign_in_id WHERE s.id = %s",
        [UUID(sign_in_id["sid"])],
    ).fetchone()
    assert row == (True, True)


# Signing out, switching -------------------------------------------------------------------------------


def test_sign_out_ends_access_and_refresh_at_once(client: FlaskClient, acme: Visitor) -> None:
    assert acme.post("/api/v1/auth/logout").status_code == 204

    assert codes(acme.get(ME)) == (401, "not_signed_in")
    assert codes(refreshed(client, acme.refresh_token)) == (401, "not_signed_in")


def test_sign_out_leaves_other_sign_ins_alone(client: FlaskClient, acme: Visitor) -> None:
    other = visitor_of(client, log_in(client, acme.email))

    acme.post("/api/v1/auth/logout")

    assert other.get(ME).status_code == 200


def test_switch_signs_in_to_another_of_her_tenants(client: FlaskClient, register: Callable[..., Visitor]) -> None:
    first = register("First")
    second = register("Second", first.email)

    response = first.post("/api/v1/auth/switch", json={"tenant": second.slug})

    assert response.get_json()["tenant_id"] == str(second.tenant_id)
    assert visitor_of(client, response).get(ME).get_json()["tenant"]["slug"] == second.slug
    assert first.get(ME).status_code == 200


def test_switch_to_a_foreign_tenant_answers_like_one_to_none(acme: Visitor, globex: Visitor) -> None:
    foreign = acme.post("/api/v1/auth/switch", json={"tenant": globex.slug})
    unknown = acme.post("/api/v1/auth/switch", json={"tenant": str(uuid4())})

    assert codes(foreign) == (403, "forbidden")
    assert foreign.get_json() == unknown.get_json()


def test_suspended_tenant_is_told_to_its_own_members_only(
    client: FlaskClient, acme: Visitor, globex: Visitor, truth: Truth
) -> None:
    """T111, T112"""
    assert acme.get(ME).status_code == 200
    truth.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = %s", [acme.tenant_id])
    wait_until(lambda: acme.get(ME).status_code == 403)

    own = acme.get(ME)
    stranger = client.get(ME, base_url=f"http://{acme.slug}.localhost")
    unknown = client.get(ME, base_url="http://nobody-at-all.localhost")

    assert codes(own) == (403, "tenant_suspended")
    assert codes(stranger) == (404, "tenant_not_found")
    assert stranger.get_json() == unknown.get_json()
    assert codes(log_in(client, acme.email)) == (403, "forbidden")
    assert codes(refreshed(client, acme.refresh_token)) == (401, "not_signed_in")


def wait_until(holds: Callable[[], bool], *, within_s: float = 1.0) -> None:
    """Suspension reaches every process within a second."""
    end = datetime.now(UTC) + timedelta(seconds=within_s)
    while not holds():
        assert datetime.now(UTC) < end
