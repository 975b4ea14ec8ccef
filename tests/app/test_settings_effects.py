"""Each setting changes what the application does."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import jwt
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.config import RESOLVERS, Settings
from tenancy.context import tenant_scope
from tests.app.conftest import PASSWORD, Truth, Visitor, codes
from tests.app.test_sign_in import log_in, wait_until
from tests.conftest import ROLES, Database

ME = "/api/v1/me"
SHOWN_ELSEWHERE = {
    "environment": "test_cookies",
    "secret_key": "test_cookies",
    "argon2_time_cost": "test_sign_in",
    "sign_in_ttl_s": "test_sign_in",
    "jwt_keys": "test_sign_in",
    "jwt_signing_kid": "test_sign_in",
    "master_keys": "test_keys",
    "master_keys_file": "test_keys",
    "data_key_ttl_s": "test_keys",
    "rate_limit_url": "test_limits",
    "rate_limit_fallback": "test_limits",
    "sign_in_attempts": "test_limits",
    "usage_flush_s": "test_usage",
    "usage_keep_days": "test_usage",
    "database_url": "every test: nothing would answer",
    "staff_sign_in_ttl_s": "test_staff",
    "staff_link_ttl_s": "test_staff",
    "log_level": "test_logs",
    "log_format": "test_logs",
    "health_timeout_s": "test_health",
    "sql_comments": "test_logs_statements",
    "metrics_token": "test_metrics",
    "otel_endpoint": "test_logs_traces",
    "tenant_counts_ttl_s": "test_admin_tenants",
    "audit_keep_days": "test_audit_cli",
    "invitation_ttl_s": "test_invitations",
    "impersonation_ttl_s": "test_impersonation",
    "mail_server": "test_invitations",
    "mail_port": "test_invitations",
    "mail_tls": "test_invitations",
    "mail_from": "test_invitations",
    "mail_username": "test_mail",
    "mail_password": "test_mail",
    "mail_timeout_s": "test_mail",
    "storage_url": "test_files",
    "max_upload_bytes": "test_cards_images",
    "cache_url": "test_files",
    "deletion_grace_days": "test_lifecycle",
    "domain_recheck_h": "test_domains",
    "domain_failures": "test_domains",
    "job_concurrency": "test_queue_turns",
    "job_tenant_concurrency": "test_queue_turns",
    "job_stalled_after_s": "test_queue_worker",
    "job_stop_timeout_s": "test_queue_worker",
}


def claims_of(app: Flask, visitor: Visitor) -> dict[str, object]:
    token = log_in(app.test_client(), visitor.email).get_json()["access_token"]
    found: dict[str, object] = jwt.decode(token, options={"verify_signature": False})
    return found


def test_base_domain_is_where_subdomains_are_looked_for(make_app: Callable[..., Flask], acme: Visitor) -> None:
    client = make_app(base_domain="crm.example", resolvers=("subdomain",)).test_client()

    assert codes(client.get(ME, base_url=f"http://{acme.slug}.crm.example"))[0] == 401
    assert codes(client.get(ME, base_url=f"http://{acme.slug}.localhost"))[0] == 404


@pytest.mark.parametrize("name", ["subdomain", "path", "header", "query", "jwt"])
def test_resolver_that_is_not_named_is_off(make_app: Callable[..., Flask], acme: Visitor, name: str) -> None:
    requests = {
        "subdomain": {"path": ME, "base_url": f"http://{acme.slug}.localhost"},
        "path": {"path": f"/t/{acme.slug}{ME}"},
        "header": {"path": ME, "headers": {"X-Tenant-Slug": acme.slug}},
        "query": {"path": f"{ME}?tenant={acme.slug}"},
        "jwt": {"path": ME, "headers": {"Authorization": f"Bearer {acme.access_token}"}},
    }
    expected = 200 if name == "jwt" else 401
    on, off = make_app(), make_app(resolvers=tuple(other for other in RESOLVERS if other != name))

    assert on.test_client().get(**requests[name]).status_code == expected
    assert off.test_client().get(**requests[name]).status_code == 404


def test_custom_domain_resolver_serves_verified_domains_only(
    make_app: Callable[..., Flask], acme: Visitor, truth: Truth
) -> None:
    """T110"""
    insert = "INSERT INTO domains (tenant_id, id, domain, verified_at) VALUES (%s, gen_random_uuid(), %s, %s)"
    truth.execute(insert, [acme.tenant_id, f"{acme.slug}.example.net", datetime.now(UTC)])
    truth.execute(insert, [acme.tenant_id, f"{acme.slug}.example.org", None])
    client = make_app().test_client()

    assert codes(client.get(ME, base_url=f"http://{acme.slug}.example.net"))[0] == 401
    assert codes(client.get(ME, base_url=f"http://{acme.slug}.example.org"))[0] == 404


def test_forwarded_host_counts_behind_trusted_proxies_only(make_app: Callable[..., Flask], acme: Visitor) -> None:
    """T095"""
    headers = {"X-Forwarded-Host": f"{acme.slug}.localhost"}

    direct = make_app().test_client().get(ME, headers=headers)
    proxied = make_app(trusted_proxies=1).test_client().get(ME, headers=headers)

    assert codes(direct)[0] == 404
    assert codes(proxied)[0] == 401


def test_single_tenant_is_served_without_being_named(make_app: Callable[..., Flask], acme: Visitor) -> None:
    client = make_app(single_tenant=acme.slug).test_client()

    assert client.get(ME, headers={"Authorization": f"Bearer {acme.access_token}"}).status_code == 200
    assert codes(client.get(ME)) == (401, "not_signed_in")


def test_issuer_and_audience_are_signed_and_checked(make_app: Callable[..., Flask], acme: Visitor) -> None:
    """T101"""
    other = make_app(jwt_issuer="other-issuer", jwt_audience="other-audience")

    claims = claims_of(other, acme)

    assert (claims["iss"], claims["aud"]) == ("other-issuer", "other-audience")
    for setting in ({"jwt_issuer": "other-issuer"}, {"jwt_audience": "other-audience"}):
        refused = make_app(**setting).test_client().get(ME, headers={"Authorization": f"Bearer {acme.access_token}"})
        assert codes(refused) == (401, "invalid_token")


def test_access_token_lives_as_long_as_set(make_app: Callable[..., Flask], acme: Visitor) -> None:
    claims = claims_of(make_app(access_token_ttl_s=120), acme)

    assert int(str(claims["exp"])) - int(str(claims["iat"])) == 120


def test_refresh_token_lives_as_long_as_set(make_app: Callable[..., Flask], acme: Visitor, truth: Truth) -> None:
    sign_in_id = claims_of(make_app(refresh_token_ttl_s=60), acme)["sid"]

    row = truth.execute(
        "SELECT expires_at < now() + interval '61 seconds' FROM refresh_tokens WHERE sign_in_id = %s", [sign_in_id]
    ).fetchone()
    assert row == (True,)


@pytest.mark.parametrize(
    ("setting", "shown"), [({"argon2_memory_kib": 64}, "m=64,"), ({"argon2_parallelism": 2}, ",p=2$")]
)
def test_password_cost_is_as_set(make_app: Callable[..., Flask], setting: dict[str, int], shown: str) -> None:
    desk = make_app(**({"argon2_memory_kib": 32} | setting)).extensions["auth"]

    assert shown in desk.passwords.hash(PASSWORD)


def test_body_may_be_as_large_as_set(make_app: Callable[..., Flask]) -> None:
    client = make_app(max_body_bytes=1024).test_client()

    response = client.post("/api/v1/auth/login", json={"email": "a@b.test", "password": "x" * 2000})

    assert codes(response)[0] == 413


def test_one_connection_is_enough_for_every_request(
    make_app: Callable[..., Flask], register: Callable[..., Visitor]
) -> None:
    first = register("First")
    second = register("Second", first.email)
    narrow = make_app(database_pool_size=1).test_client()
    headers = {"Authorization": f"Bearer {first.access_token}"}

    answers = [
        narrow.get(ME, headers=headers),
        narrow.post("/api/v1/auth/switch", headers=headers, json={"tenant": second.slug}),
        narrow.post("/api/v1/people", headers=headers, json={"name": "Ada"}),
        narrow.get("/api/v1/people", headers=headers),
        log_in(narrow, first.email, tenant=second.slug),
        narrow.post("/api/v1/auth/refresh", json={"refresh_token": first.refresh_token}),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 201, 200, 200, 200]


def test_request_beyond_the_connections_set_is_told_to_come_again(
    make_app: Callable[..., Flask], acme: Visitor
) -> None:
    app = make_app(database_pool_size=1)
    client, headers = app.test_client(), {"Authorization": f"Bearer {acme.access_token}"}
    assert client.get(ME, headers=headers).status_code == 200

    with app.extensions["auth"].database.engine.connect():
        answer = client.get(ME, headers=headers)

    assert codes(answer) == (503, "busy")


# Work budgets -----------------------------------------------------------------------------------------


PEOPLE = "/api/v1/people"


def app_and_answer(
    make_app: Callable[..., Flask], visitor: Visitor, **given: object
) -> tuple[Flask, Callable[[], TestResponse]]:
    """An application that has served the visitor once, and how it answers when asked for her people."""
    app = make_app(**given)
    client, headers = app.test_client(), {"Authorization": f"Bearer {visitor.access_token}"}
    assert client.get(PEOPLE, headers=headers).status_code == 200
    return app, lambda: client.get(PEOPLE, headers=headers)


@pytest.mark.parametrize(("bound", "expected"), [(1, 429), (2, 200), (0, 200)])
def test_tenant_has_as_many_transactions_open_as_set(
    make_app: Callable[..., Flask], acme: Visitor, bound: int, expected: int
) -> None:
    app, ask = app_and_answer(make_app, acme, tenant_concurrency=bound, tenant_wait_s=0)

    with tenant_scope(acme.tenant_id), app.extensions["auth"].database.sessions() as session:
        session.connection()
        answer = ask()

    assert answer.status_code == expected
    assert ask().status_code == 200


def test_request_beyond_the_bound_waits_as_long_as_set(make_app: Callable[..., Flask], acme: Visitor) -> None:
    app, ask = app_and_answer(make_app, acme, tenant_concurrency=1, tenant_wait_s=0.3)

    with tenant_scope(acme.tenant_id), app.extensions["auth"].database.sessions() as session:
        session.connection()
        started = time.monotonic()
        answer = ask()
        waited_s = time.monotonic() - started

    assert codes(answer) == (429, "tenant_busy")
    assert answer.headers["Retry-After"] == "1"
    assert 0.3 <= waited_s < 3


@pytest.mark.parametrize(("bound", "expected"), [(0, 429), (1, 200)])
def test_as_many_requests_wait_as_set(make_app: Callable[..., Flask], acme: Visitor, bound: int, expected: int) -> None:
    app, ask = app_and_answer(make_app, acme, tenant_concurrency=1, tenant_wait_s=5, tenant_waiting=bound)

    with ThreadPoolExecutor() as threads:
        with tenant_scope(acme.tenant_id), app.extensions["auth"].database.sessions() as session:
            session.connection()
            answer = threads.submit(ask)
            time.sleep(0.3)

        assert answer.result(timeout=10).status_code == expected


@pytest.mark.parametrize(("share", "expected"), [(0.5, 429), (1.0, 200)])
def test_place_rests_for_the_share_set(
    make_app: Callable[..., Flask], acme: Visitor, share: float, expected: int
) -> None:
    app, ask = app_and_answer(make_app, acme, tenant_concurrency=1, tenant_wait_s=0.2, tenant_share=share)

    with tenant_scope(acme.tenant_id), app.extensions["auth"].database.sessions() as session:
        session.connection()
        time.sleep(0.8)

    assert ask().status_code == expected


@pytest.mark.parametrize("setting", ["tenant_statement_timeout_s", "tenant_lock_timeout_s"])
def test_statement_that_takes_longer_than_set_is_stopped(
    make_app: Callable[..., Flask], acme: Visitor, truth: Truth, setting: str
) -> None:
    _, ask = app_and_answer(make_app, acme, **{setting: 0.2})

    with truth.transaction():
        truth.execute("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        answer = ask()
        waited_s = time.monotonic() - started

    assert codes(answer) == (503, "busy")
    assert waited_s < 3
    assert ask().status_code == 200


def test_platform_url_is_that_of_the_platform_engine(make_app: Callable[..., Flask], database: Database) -> None:
    found = make_app().extensions["auth"].database.platform_engine

    assert found.url.username == ROLES.platform


def test_listener_takes_its_own_url(make_app: Callable[..., Flask], database: Database, acme: Visitor) -> None:
    heard, deaf = make_app(), make_app(listen_database_url="postgresql+psycopg://nobody@127.0.0.1:1/none")

    for app in (heard, deaf):
        app.test_client().get(ME, headers={"X-Tenant-Slug": acme.slug})

    wait_until(lambda: heard.extensions["auth"].directory.is_listening)
    assert deaf.extensions["auth"].directory.is_listening is False


def test_every_setting_is_shown_to_matter() -> None:
    shown = set(SHOWN_ELSEWHERE) | {
        "base_domain",
        "resolvers",
        "trusted_proxies",
        "single_tenant",
        "jwt_issuer",
        "jwt_audience",
        "access_token_ttl_s",
        "refresh_token_ttl_s",
        "argon2_memory_kib",
        "argon2_parallelism",
        "max_body_bytes",
        "platform_database_url",
        "listen_database_url",
        "database_pool_size",
        "tenant_concurrency",
        "tenant_wait_s",
        "tenant_waiting",
        "tenant_share",
        "tenant_statement_timeout_s",
        "tenant_lock_timeout_s",
    }

    assert shown == set(Settings.model_fields)
