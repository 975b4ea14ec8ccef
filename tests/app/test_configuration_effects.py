"""Each key of the configuration changes what happens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.configuration.keys import PASSWORD_POLICY, RATE_LIMIT, UPLOAD_MAX_SIZE, PasswordPolicy
from app.configuration.operations import check_new_password, setting_of
from app.errors import InvalidInputError
from app.plans.terms import TermKind
from tenancy.context import tenant_scope
from tests.app.conftest import Truth, Visitor, codes, fields, new_email
from tests.app.entitled import give
from tests.app.test_configuration import POLICY, SETTINGS, TIMEOUT, put
from tests.app.test_sign_in import log_in, wait_until

REGISTER = "/api/v1/auth/register-organization"
ME = "/api/v1/me"


# security.password_policy -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "password", "lacking"),
    [
        ("basic", "Short1x", ""),  # refused by the field itself: 8 is the least of any policy
        ("basic", "lowercase1", "needs an upper-case letter"),
        ("basic", "UPPERCASE1", "needs a lower-case letter"),
        ("basic", "NoDigitsHere", "needs a digit"),
        ("premium", "Enough12", "needs at least 10 characters, a character that is no letter and no digit"),
        ("premium", "Enough1234", "needs a character that is no letter and no digit"),
        ("enterprise", "Enough-1234", "needs at least 12 characters"),
    ],
)
def test_registration_asks_for_the_password_of_the_plan(
    client: FlaskClient, truth: Truth, plan: str, password: str, lacking: str
) -> None:
    email = new_email()
    given = {"organization_name": "Acme", "admin_email": email, "admin_password": password, "plan": plan}

    response = client.post(REGISTER, json=given)

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == ["admin_password"]
    assert lacking in response.get_json()["errors"][0]["message"]
    assert truth.execute("SELECT count(*) FROM accounts WHERE email = %s", [email]).fetchone() == (0,)


@pytest.mark.parametrize(
    ("plan", "password"), [("basic", "Enough12"), ("premium", "Enough-123"), ("enterprise", "Enough-12345")]
)
def test_registration_takes_the_least_password_of_the_plan(client: FlaskClient, plan: str, password: str) -> None:
    given = {"organization_name": "Acme", "admin_email": new_email(), "admin_password": password, "plan": plan}

    assert client.post(REGISTER, json=given).status_code == 201


def test_weak_password_is_refused_alike_for_known_and_unknown_addresses(client: FlaskClient, acme: Visitor) -> None:
    def refusal(email: str) -> object:
        given = {"organization_name": "Acme", "admin_email": email, "admin_password": "lowercase1"}
        response = client.post(REGISTER, json=given)
        return response.status_code, response.get_json()

    assert refusal(acme.email) == refusal(new_email())


def test_stricter_policy_of_the_tenant_counts_for_its_new_passwords(app: Flask, acme: Visitor) -> None:
    put(acme, POLICY, {"min_length": 20, "upper": True, "lower": True, "number": True, "special": False})
    database = app.extensions["auth"].database

    with app.app_context(), tenant_scope(acme.tenant_id), database.sessions() as session:
        check_new_password(session, "Twenty-characters-0k", field="password")
        with pytest.raises(InvalidInputError) as refused:
            check_new_password(session, "Nineteen-characters", field="password")

    assert [error.message for error in refused.value.errors] == ["needs at least 20 characters, a digit"]


def test_letters_of_any_script_count() -> None:
    policy = PasswordPolicy(min_length=8, upper=True, lower=True, number=True, special=True)

    assert policy.lacking("ÄÖÜäöü9 ") == []
    assert policy.lacking("中文密码中文密码") == [
        "an upper-case letter",
        "a lower-case letter",
        "a digit",
        "a character that is no letter and no digit",
    ]


# session.timeout --------------------------------------------------------------------------------------


def ends_at(truth: Truth, visitor: Visitor) -> datetime:
    row = truth.execute("SELECT max(expires_at) FROM sign_ins WHERE tenant_id = %s", [visitor.tenant_id]).fetchone()
    assert row is not None
    assert isinstance(row[0], datetime)
    return row[0]


def age(truth: Truth, visitor: Visitor, left: timedelta) -> None:
    """Let the visitor's sign-in end so soon, as if it had not been used for a while."""
    truth.execute(
        "UPDATE sign_ins SET expires_at = now() + %s, created_at = now() - interval '1 day' WHERE tenant_id = %s",
        [left, visitor.tenant_id],
    )


def is_in(found: datetime, seconds: float) -> bool:
    return abs((found - datetime.now(UTC)).total_seconds() - seconds) < 30


def test_sign_in_ends_after_the_timeout_of_the_plan(register: Callable[..., Visitor], truth: Truth) -> None:
    assert is_in(ends_at(truth, register("Acme", plan="basic")), 3_600)
    assert is_in(ends_at(truth, register("Globex", plan="enterprise")), 14_400)


def test_next_sign_in_has_the_timeout_that_the_tenant_set(client: FlaskClient, acme: Visitor, truth: Truth) -> None:
    put(acme, TIMEOUT, 300)
    truth.execute("DELETE FROM sign_ins WHERE tenant_id = %s", [acme.tenant_id])
    wait_until(lambda: log_in(client, acme.email).status_code == 200 and is_in(ends_at(truth, acme), 300))


def test_sign_in_that_was_not_used_in_time_is_over_for_token_and_refresh(
    client: FlaskClient, acme: Visitor, truth: Truth
) -> None:
    assert acme.get(ME).status_code == 200

    age(truth, acme, timedelta(seconds=-1))

    assert codes(acme.get(ME)) == (401, "not_signed_in")
    refreshed = client.post("/api/v1/auth/refresh", json={"refresh_token": acme.refresh_token})
    assert codes(refreshed) == (401, "not_signed_in")


def test_use_in_the_second_half_carries_the_sign_in_on(acme: Visitor, truth: Truth) -> None:
    age(truth, acme, timedelta(minutes=20))

    assert acme.get(ME).status_code == 200

    assert is_in(ends_at(truth, acme), 3_600)


def test_use_in_the_first_half_writes_nothing(acme: Visitor, truth: Truth) -> None:
    age(truth, acme, timedelta(minutes=40))

    assert acme.get(ME).status_code == 200

    assert is_in(ends_at(truth, acme), 2_400)


def test_refreshing_carries_the_sign_in_on(client: FlaskClient, acme: Visitor, truth: Truth) -> None:
    age(truth, acme, timedelta(minutes=40))

    response = client.post("/api/v1/auth/refresh", json={"refresh_token": acme.refresh_token})

    assert response.status_code == 200
    assert is_in(ends_at(truth, acme), 3_600)


def test_no_use_carries_a_sign_in_beyond_its_longest_life(
    make_app: Callable[..., Flask], acme: Visitor, truth: Truth
) -> None:
    shortly = make_app(sign_in_ttl_s=86_400 + 600)  # a day has passed since, says `age`
    age(truth, acme, timedelta(minutes=5))

    response = shortly.test_client().get(ME, headers={"Authorization": f"Bearer {acme.access_token}"})

    assert response.status_code == 200
    assert is_in(ends_at(truth, acme), 600)


# file_upload.max_size and api.rate_limit --------------------------------------------------------------


def test_upload_size_and_rate_are_what_was_granted_or_less(app: Flask, acme: Visitor) -> None:
    put(acme, f"{SETTINGS}/file_upload.max_size", 5_000_000)
    give(app, acme, TermKind.CONFIGURATION, "api.rate_limit", 2_500)
    database = app.extensions["auth"].database

    def found() -> tuple[object, ...]:
        with app.app_context(), tenant_scope(acme.tenant_id), database.sessions() as session:
            return setting_of(session, UPLOAD_MAX_SIZE), setting_of(session, RATE_LIMIT)

    wait_until(lambda: found() == (5_000_000, 2_500))


def test_keys_without_a_word_from_plan_staff_or_tenant_have_closed_defaults() -> None:
    assert UPLOAD_MAX_SIZE.default == 1_048_576
    assert PASSWORD_POLICY.default.min_length == 12
