"""What the doctor sees in a put-together application, without a request and without a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from tenancy.binding import create_tenant_engine
from tenancy.directory import SQLDirectory
from tenancy.doctor.configuration import RULES, examine_configuration
from tenancy.doctor.findings import Subject
from tenancy.flask import Tenancy
from tenancy.resolvers import from_custom_domain, from_header, from_query, from_subdomain
from tenancy.session import tenant_sessionmaker
from tests.models import Domain, Tenant

KEY = "Zk3vQ8w1Rr7yT0uXb5cN"
SOUND = {
    "SECRET_KEY": KEY,
    "SESSION_COOKIE_SECURE": True,
    "SESSION_COOKIE_HTTPONLY": True,
    "SESSION_COOKIE_SAMESITE": "Lax",
}
URL = "postgresql+psycopg://tenancy_app@/shop"

MakeApp = Callable[..., Flask]


@pytest.fixture
def make_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeApp]:
    """Put an application together that has nothing to be found, but for what is given."""
    for variable in ("PGHOST", "PGUSER", "PGSSLMODE"):
        monkeypatch.delenv(variable, raising=False)
    engines = []

    def make(
        url: str = URL,
        *,
        resolvers: tuple[Any, ...] = (),
        directory: SQLDirectory | None = None,
        engine: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Flask:
        app = Flask("shop")
        app.config.update(SOUND | settings)
        engines.append(create_tenant_engine(url, **({"hide_parameters": True} | (engine or {}))))
        Tenancy(
            sessions=tenant_sessionmaker(engines[-1]),
            directory=directory or SQLDirectory(Tenant, domains=Domain),
            resolvers=[from_subdomain("example.com"), *resolvers],
        ).init_app(app)
        return app

    yield make
    for one in engines:
        one.dispose()


def told(app: object) -> list[tuple[str, str]]:
    return [(one.rule.id, one.object_name) for one in examine_configuration(Subject(app=app))]


def test_sound_application_has_no_finding(make_app: MakeApp) -> None:
    assert told(make_app()) == []


MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "no key": ({"SECRET_KEY": None}, ("TEN512", "setting SECRET_KEY")),
    "short key": ({"SECRET_KEY": "k3vQ8w1Rr7yT0u"}, ("TEN502", "setting SECRET_KEY")),
    "key of an example": ({"SECRET_KEY": "change-me-please-1234567"}, ("TEN502", "setting SECRET_KEY")),
    "key of one letter": ({"SECRET_KEY": b"a" * 40}, ("TEN502", "setting SECRET_KEY")),
    "cookie for all": ({"SESSION_COOKIE_DOMAIN": "example.com"}, ("TEN503", "setting SESSION_COOKIE_DOMAIN")),
    "cookie in the clear": ({"SESSION_COOKIE_SECURE": False}, ("TEN504", "setting SESSION_COOKIE_SECURE")),
    "cookie for scripts": ({"SESSION_COOKIE_HTTPONLY": False}, ("TEN504", "setting SESSION_COOKIE_HTTPONLY")),
    "cookie across sites": ({"SESSION_COOKIE_SAMESITE": None}, ("TEN504", "setting SESSION_COOKIE_SAMESITE")),
    "header": ({"resolvers": (from_header(),)}, ("TEN505", "resolver from_header")),
    "query": ({"resolvers": (from_query(),)}, ("TEN505", "resolver from_query")),
    "statements logged": ({"engine": {"echo": True}}, ("TEN508", "engine")),
    "values in errors": ({"engine": {"hide_parameters": False}}, ("TEN508", "engine")),
    "platform's login": ({"url": "postgresql+psycopg://tenancy_platform@/shop"}, ("TEN509", "engine")),
    "superuser's login": ({"url": "postgresql+psycopg://postgres@/shop"}, ("TEN509", "engine")),
    "network in the clear": ({"url": "postgresql+psycopg://tenancy_app@db.example.com/shop"}, ("TEN510", "engine")),
    "encryption preferred": (
        {"url": "postgresql+psycopg://tenancy_app@db.example.com/shop?sslmode=prefer"},
        ("TEN510", "engine"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_yields_its_finding(make_app: MakeApp, name: str) -> None:
    given, expected = MISTAKES[name]

    assert told(make_app(**given)) == [expected]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://tenancy_app@localhost/shop",
        "postgresql+psycopg://tenancy_app@127.0.0.1/shop",
        "postgresql+psycopg://tenancy_app@/shop?host=/run/postgresql",
        "postgresql+psycopg://tenancy_app@db.example.com/shop?sslmode=verify-full",
        "postgresql+psycopg://tenancy_app@db.example.com/shop?sslmode=require",
    ],
)
def test_connection_that_nobody_can_listen_to_is_no_finding(make_app: MakeApp, url: str) -> None:
    assert told(make_app(url)) == []


def test_encryption_by_the_environment_counts(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")

    assert told(make_app("postgresql+psycopg://tenancy_app@db.example.com/shop")) == []


def test_custom_domains_without_their_model_are_found(make_app: MakeApp) -> None:
    with_model = make_app(resolvers=(from_custom_domain(),))
    without = make_app(resolvers=(from_custom_domain(),), directory=SQLDirectory(Tenant))

    assert told(with_model) == []
    assert told(without) == [("TEN506", "directory")]


def test_long_floor_of_the_directory_is_found(make_app: MakeApp) -> None:
    assert told(make_app(directory=SQLDirectory(Tenant, floor_ttl_s=60))) == [("TEN507", "directory")]


def test_debug_mode_is_found(make_app: MakeApp) -> None:
    app = make_app()
    app.debug = True

    assert told(app) == [("TEN511", "app")]


def test_application_without_the_extension_is_found() -> None:
    app = Flask("shop")
    app.config.update(SOUND)

    assert told(app) == [("TEN501", "app")]


def test_cookie_of_a_test_application_may_go_unencrypted(make_app: MakeApp) -> None:
    assert told(make_app(TESTING=True, SESSION_COOKIE_SECURE=False)) == []


def test_finding_never_shows_the_secret(make_app: MakeApp) -> None:
    app = make_app("postgresql+psycopg://postgres:hunter2@db.example.com/shop", SECRET_KEY="hunter2")

    text = str([(one.what, one.remedy, one.object_name) for one in examine_configuration(Subject(app=app))])

    assert "TEN502" in str(told(app))
    assert "hunter2" not in text


def test_engine_is_looked_at_without_an_application() -> None:
    engine = create_tenant_engine("postgresql+psycopg://tenancy_migrator@/shop", hide_parameters=True)

    found = [one.rule.id for one in examine_configuration(Subject(app_engine=engine))]

    assert found == ["TEN001", "TEN509"]


def test_every_rule_is_provoked() -> None:
    provoked = {rule for _, (rule, _) in MISTAKES.values()} | {"TEN501", "TEN506", "TEN507", "TEN511"}

    assert provoked == {rule.id for rule in RULES}
