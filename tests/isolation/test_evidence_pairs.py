"""T096, T111: requests that name two tenants, in every pair of ways; and tenants that a stranger may not tell apart."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import jwt
import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from sqlalchemy import Engine, event
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.directory import Reference, SQLDirectory
from tenancy.flask import references_conflicted
from tenancy.resolvers import Evidence, from_jwt
from tenancy.session import tenant_sessionmaker
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Domain, Tenant
from tests.tenancy.flask_app import make_app, resolvers

SECRET = bytes(32)
WAYS = ("host", "path", "id header", "slug header", "query", "token", "session")


def from_session(_request: Any) -> Evidence | None:
    """What an application adds that keeps the tenant of a sign-in in Flask's signed cookie."""
    tenant = session.get("tenant_id")
    return Evidence("session", Reference("id", tenant)) if tenant else None


@pytest.fixture(scope="module")
def engine(database: Database) -> Iterator[Engine]:
    made = create_tenant_engine(database.url(ROLES.app))
    yield made
    made.dispose()


@pytest.fixture
def statements(engine: Engine) -> Iterator[list[str]]:
    """Everything that the application sends, but for the lookups of its directory."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


@pytest.fixture(scope="module")
def directory(engine: Engine) -> Iterator[SQLDirectory]:
    made = SQLDirectory(Tenant, domains=Domain, floor_ttl_s=60.0, negative_ttl_s=60.0)
    made.bind(engine)
    yield made
    made.close()


@pytest.fixture(scope="module")
def app(engine: Engine, directory: SQLDirectory) -> Flask:
    tokens = from_jwt({"k": ("HS256", SECRET)}, issuer="i", audience="a")
    made, _ = make_app(tenant_sessionmaker(engine), directory, resolvers=[tokens, *resolvers(), from_session])
    made.secret_key = "k" * 32
    return made


def named(app: Flask, way: str, tenant: SomeTenant, request: dict[str, Any]) -> None:
    """Let a request name a tenant in one more way."""
    headers = request.setdefault("headers", {})
    match way:
        case "host":
            request["base_url"] = f"http://{tenant.slug}.example.com/"
        case "path":
            request["path"] = f"/t/{tenant.slug}{request['path']}"
        case "id header":
            headers["X-Tenant-ID"] = str(tenant.id)
        case "slug header":
            headers["X-Tenant-Slug"] = tenant.slug
        case "query":
            request["query_string"] = {"tenant": tenant.slug}
        case "token":
            now = int(time.time())
            claims = {"iss": "i", "aud": "a", "iat": now, "exp": now + 60, "tenant_id": str(tenant.id)}
            headers["Authorization"] = f"Bearer {jwt.encode(claims, SECRET, 'HS256', headers={'kid': 'k'})}"
        case "session":
            serializer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
            headers["Cookie"] = f"session={serializer.dumps({'tenant_id': str(tenant.id)})}"


def asked(app: Flask, *evidence: tuple[str, SomeTenant]) -> Any:
    request: dict[str, Any] = {"path": "/people", "base_url": "http://example.com/"}
    for way, tenant in evidence:
        named(app, way, tenant, request)
    return app.test_client(use_cookies=False).get(**request)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_alone_names_the_tenant(app: Flask, acme: SomeTenant, person_of: Callable[..., Any], way: str) -> None:
    person_of(acme, "Ada")

    answer = asked(app, (way, acme))

    assert (answer.status_code, answer.json) == (200, ["Ada"])


@pytest.mark.parametrize(("first", "second"), list(permutations(WAYS, 2)))
def test_every_pair_that_disagrees_is_refused_before_any_statement(
    app: Flask,
    acme: SomeTenant,
    globex: SomeTenant,
    statements: list[str],
    caplog: pytest.LogCaptureFixture,
    first: str,
    second: str,
) -> None:
    """T096"""
    agreed = asked(app, (first, acme), (second, acme))
    read = [statement for statement in statements if "people" in statement]
    statements.clear()
    heard: list[Any] = []

    with (
        references_conflicted.connected_to(lambda _app, trace: heard.append(trace), app),
        caplog.at_level(logging.WARNING, "tenancy.security"),
    ):
        answer = asked(app, (first, acme), (second, globex))

    assert (agreed.status_code, len(read)) == (200, 1)
    assert (answer.status_code, answer.json["code"]) == (403, "conflicting_references")
    assert [statement for statement in statements if "tenancy.tenant_by_" not in statement] == []
    (record,) = caplog.records
    assert record.message == "tenancy.references_conflicted"
    assert set(record.__dict__["evidence"].values()) == {str(acme.id), str(globex.id)}
    assert {step.tenant_id for step in heard[0].steps} == {acme.id, globex.id}
    assert acme.slug not in answer.text
    assert globex.slug not in answer.text


# What a stranger can tell


@pytest.fixture
def refused_hosts(make_tenant: Callable[..., SomeTenant]) -> dict[str, str]:
    """Hosts at which nobody is served, by the reason."""
    closed = ("suspended", "pending", "archived", "deleting", "deleted")
    hosts = {status: f"{make_tenant('x', status=status).slug}.example.com" for status in closed}
    return hosts | {"unknown": f"nobody-{uuid7().hex[-8:]}.example.com"}


def get(client: FlaskClient, host: str) -> Any:
    return client.get("/people", base_url=f"http://{host}/")


def test_tenants_that_are_not_served_cost_the_same_statements(
    app: Flask, directory: SQLDirectory, refused_hosts: dict[str, str], statements: list[str], acme: SomeTenant
) -> None:
    """T111: the same lookup when it is not remembered, and nothing when it is."""
    client = app.test_client()
    assert get(client, f"{acme.slug}.example.com").status_code == 200

    cold: dict[str, list[str]] = {}
    warm: dict[str, list[str]] = {}
    for reason, host in refused_hosts.items():
        for counted in (cold, warm):
            statements.clear()
            get(client, host)
            counted[reason] = list(statements)

    assert len(cold["unknown"]) == 1
    assert [reason for reason, sent in cold.items() if sent != cold["unknown"]] == []
    assert [reason for reason, sent in warm.items() if sent] == []


def test_tenants_that_are_not_served_are_answered_alike(app: Flask, refused_hosts: dict[str, str]) -> None:
    """T111"""
    answers = {reason: get(app.test_client(), host) for reason, host in refused_hosts.items()}

    seen = {(answer.status_code, answer.text, str(sorted(answer.headers))) for answer in answers.values()}
    assert {status for status, _, _ in seen} == {404}
    assert len(seen) == 1


@pytest.mark.parametrize("remembered", [True, False])
def test_tenants_that_are_not_served_take_about_as_long(
    app: Flask, directory: SQLDirectory, refused_hosts: dict[str, str], remembered: bool
) -> None:
    """T111: medians, taken in turns; the counts above are the sharper proof."""
    client = app.test_client()
    took: dict[str, list[float]] = {reason: [] for reason in refused_hosts}

    for _ in range(60):
        for reason, host in refused_hosts.items():
            if not remembered:
                directory._memory.forget_all()
            started = time.perf_counter()
            get(client, host)
            took[reason].append(time.perf_counter() - started)

    medians = {reason: statistics.median(times) for reason, times in took.items()}
    unknown = medians.pop("unknown")
    assert {reason: 0.5 < median / unknown < 2.0 for reason, median in medians.items()} == dict.fromkeys(medians, True)
