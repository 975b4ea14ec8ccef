"""The Flask extension up to the route: who is let in, as whom, and what the others are told."""

import json
import logging
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import jwt
import pytest
from flask import Blueprint, Flask, Response, request
from flask.testing import FlaskClient
from sqlalchemy.orm import sessionmaker
from werkzeug.test import TestResponse

from tenancy.binding import create_tenant_engine
from tenancy.context import current_scope, tenant_scope
from tenancy.directory import Reference, TenantRecord
from tenancy.errors import ConfigurationError, NoTenantError
from tenancy.flask import Problem, Tenancy, TenantLogFilter, references_conflicted
from tenancy.resolvers import Evidence, Trace, from_jwt, from_subdomain
from tenancy.session import TenantSession, tenant_sessionmaker
from tests.tenancy.directories import ACME, DORMANT, GLOBEX, GONE, ListedDirectory, SilentDirectory
from tests.tenancy.flask_app import make_app, resolvers

SECRET = bytes(32)


@pytest.fixture(scope="module")
def unused() -> sessionmaker[TenantSession]:
    """Sessions on a database that is not there: any statement would be an error."""
    return tenant_sessionmaker(create_tenant_engine("postgresql+psycopg://app@127.0.0.1:1/none"))


@pytest.fixture
def directory() -> ListedDirectory:
    return ListedDirectory(ACME, GLOBEX, DORMANT, GONE, domains={"planning.acme.test": ACME})


@pytest.fixture
def app(unused: Any, directory: ListedDirectory) -> Flask:
    return make_app(unused, directory)[0]


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    yield app.test_client()

    assert app.extensions["tenancy"].leaks() == []
    assert current_scope() is None


def at(host: str) -> dict[str, str]:
    return {"base_url": f"http://{host}/"}


ACME_HOST = at("acme.example.com")


# Let in


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/", at("acme.example.com")),
        ("/", at("ACME.Example.com:443")),
        ("/", at("planning.acme.test")),
        ("/t/acme/", at("example.com")),
        ("/", at("example.com") | {"headers": {"X-Tenant-ID": str(ACME.id)}}),
        ("/", at("example.com") | {"headers": {"X-Tenant-Slug": "acme"}}),
        ("/?tenant=acme", at("example.com")),
    ],
)
def test_every_resolver_leads_a_request_into_its_tenants_scope(
    client: FlaskClient, path: str, options: dict[str, Any]
) -> None:
    answer = client.get(path, **options)

    assert answer.json == {"tenant": "acme", "scope": "0197c1a2-0000-7000-8000-00000000000a"}


def test_urls_keep_the_path_prefix(client: FlaskClient) -> None:
    answer = client.get("/t/acme/links", **at("example.com"))

    assert answer.json == {"people": "/t/acme/people", "static": "/t/acme/static/a.css"}


@pytest.mark.parametrize("path", ["/t/acme", "/t/acme/folder"])
def test_redirects_keep_the_path_prefix(client: FlaskClient, path: str) -> None:
    answer = client.get(path, **at("example.com"))

    assert (answer.status_code, answer.location) == (308, f"http://example.com{path}/")


def test_forwarded_host_counts_behind_a_trusted_proxy_only(unused: Any, directory: ListedDirectory) -> None:
    """T095"""
    sent = at("proxy.example.com") | {"headers": {"X-Forwarded-Host": "acme.example.com"}}
    exposed, _ = make_app(unused, directory)
    behind, _ = make_app(unused, directory, trusted_proxies=1)

    assert exposed.test_client().get("/", **sent).status_code == 404
    assert behind.test_client().get("/", **sent).json == {"tenant": "acme", "scope": str(ACME.id)}


def test_scope_of_the_caller_does_not_reach_into_a_request(client: FlaskClient) -> None:
    with tenant_scope(GLOBEX.id):
        inside = client.get("/health")
        asked = client.get("/", **ACME_HOST)
        scope = current_scope()

    assert inside.json == {"scope": None}
    assert asked.json == {"tenant": "acme", "scope": str(ACME.id)}
    assert scope is not None
    assert scope.tenant == GLOBEX.id


def test_claims_of_a_verified_token_reach_the_route_and_name_the_account(unused: Any, directory: Any) -> None:
    ada = UUID("0197c1a2-0000-7000-8000-0000000000ad")
    token = jwt.encode(
        {"iss": "i", "aud": "a", "iat": int(time.time()), "exp": int(time.time()) + 60, "sub": str(ada),
         "tenant_id": str(ACME.id)},
        SECRET, "HS256", headers={"kid": "k"},
    )  # fmt: skip
    app, tenancy = make_app(
        unused,
        directory,
        resolvers=[from_jwt({"k": ("HS256", SECRET)}, issuer="i", audience="a")],
        account_of=lambda trace: UUID(trace.claims["sub"]) if trace.claims else None,
    )

    @app.get("/me")
    def me() -> dict[str, str]:
        scope = current_scope()
        assert scope is not None
        return {"account": str(scope.account), "sub": (tenancy.trace.claims or {})["sub"]}

    answer = app.test_client().get("/me", headers={"Authorization": f"Bearer {token}"})

    assert answer.json == {"account": str(ada), "sub": str(ada)}
    assert answer.headers["Vary"] == "Authorization"


# Kept out


@pytest.mark.parametrize(
    ("path", "options", "status", "code"),
    [
        ("/", at("nobody.example.com"), 404, "tenant_not_found"),
        ("/", at("gone.example.com"), 404, "tenant_not_found"),
        ("/", at("dormant.example.com"), 404, "tenant_not_found"),
        ("/", at("example.com"), 404, "tenant_not_found"),
        ("/", at("other.test"), 404, "tenant_not_found"),
        ("/", at("a.acme.example.com"), 400, "malformed_reference"),
        ("/", at("42.example.com"), 400, "malformed_reference"),
        ("/t/ACME/", at("example.com"), 400, "malformed_reference"),
        ("/", ACME_HOST | {"headers": [("X-Tenant-ID", str(ACME.id))] * 2}, 400, "malformed_reference"),
        ("/", ACME_HOST | {"headers": {"X-Tenant-ID": "acme"}}, 400, "malformed_reference"),
        ("/?tenant=acme&tenant=acme", ACME_HOST, 400, "malformed_reference"),
        ("/t/globex/", ACME_HOST, 403, "conflicting_references"),
        ("/t/nobody/", ACME_HOST, 403, "conflicting_references"),
        ("/?tenant=globex", ACME_HOST, 403, "conflicting_references"),
        ("/", ACME_HOST | {"headers": {"X-Tenant-ID": str(GLOBEX.id)}}, 403, "conflicting_references"),
    ],
)
def test_request_without_one_open_tenant_is_refused(
    client: FlaskClient, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    """T093, T096, T097"""
    answer = client.get(path, **options)

    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    assert json.loads(answer.data)["code"] == code
    assert answer.headers["Cache-Control"] == "no-store"


def test_query_never_names_the_tenant_of_a_write(client: FlaskClient) -> None:
    """T097"""
    answer = client.post("/?tenant=acme", **at("example.com"))

    assert answer.status_code == 400
    assert json.loads(answer.data)["hint"] == "name the tenant of a write by its host, path, header or token"


def seen(answer: TestResponse) -> tuple[int, bytes, list[tuple[str, str]]]:
    return answer.status_code, answer.data, sorted(answer.headers)


@pytest.mark.parametrize("path", ["/", "/people", "/no-such-page", "/folder"])
@pytest.mark.parametrize("accept", ["application/json", "text/html", "*/*", ""])
def test_unknown_closed_and_suspended_tenants_look_the_same(client: FlaskClient, path: str, accept: str) -> None:
    """T111"""
    answers = [
        seen(client.get(path, headers={"Accept": accept}, **at(f"{name}.example.com")))
        for name in ("nobody", "gone", "dormant")
    ]

    assert answers[0][0] == 404
    assert answers == [answers[0]] * 3


def test_suspension_is_told_to_members_only(unused: Any, directory: ListedDirectory) -> None:
    """T111"""

    def is_member(tenant: TenantRecord, _trace: Trace) -> bool:
        return tenant == DORMANT and request.headers.get("X-Member") == "yes"

    app, _ = make_app(unused, directory, is_member=is_member)
    client = app.test_client()

    member = client.get("/", headers={"X-Member": "yes"}, **at("dormant.example.com"))
    stranger = client.get("/", **at("dormant.example.com"))
    unknown = client.get("/", headers={"X-Member": "yes"}, **at("nobody.example.com"))

    assert (member.status_code, json.loads(member.data)["code"]) == (403, "tenant_suspended")
    assert seen(stranger) == seen(unknown)


def test_bad_token_is_refused_with_a_challenge(unused: Any, directory: ListedDirectory) -> None:
    """T098, T099, T100, T101, T102: whatever `from_jwt` refuses is answered like this."""
    token_resolver = from_jwt({"k": ("HS256", SECRET)}, issuer="i", audience="a")
    app, _ = make_app(unused, directory, resolvers=[token_resolver, from_subdomain("example.com")])

    answer = app.test_client().get("/", headers={"Authorization": "Bearer x.y.z"}, **ACME_HOST)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert directory.lookups == 0


def test_directory_that_cannot_answer_is_unavailable_and_not_unknown(
    unused: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = make_app(unused, SilentDirectory())

    answer = app.test_client().get("/", **ACME_HOST)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert [record.message for record in caplog.records] == ["request.failed"]


def test_conflict_is_a_security_event(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """T096"""
    heard: list[Trace] = []

    def hear(_sender: Flask, trace: Trace) -> None:
        heard.append(trace)

    with references_conflicted.connected_to(hear, app):
        app.test_client().get("/t/globex/", **ACME_HOST)

    (record,) = caplog.records
    assert (record.name, record.message) == ("tenancy.security", "tenancy.references_conflicted")
    assert record.__dict__["evidence"] == {"subdomain": str(ACME.id), "path": str(GLOBEX.id)}
    assert [step.tenant_id for step in heard[0].steps] == [ACME.id, GLOBEX.id]


def test_signed_in_session_of_another_tenant_is_a_conflict(unused: Any, directory: ListedDirectory) -> None:
    """T096"""

    def from_signed_in_session(_request: Any) -> Evidence:
        return Evidence("session", Reference("id", str(GLOBEX.id)))

    app, _ = make_app(unused, directory, resolvers=[*resolvers(), from_signed_in_session])

    assert app.test_client().get("/", **ACME_HOST).status_code == 403


def test_browser_is_answered_with_a_page(client: FlaskClient) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}

    answer = client.get("/", headers=browser | {"X-Tenant-ID": "<script>"}, **ACME_HOST)

    assert (answer.status_code, answer.mimetype) == (400, "text/html")
    assert "<h1>Bad Request</h1>" in answer.text
    assert "script" not in answer.text
    assert answer.headers["Vary"] == "Accept"


def test_error_answers_can_be_drawn_by_the_application(unused: Any, directory: ListedDirectory) -> None:
    def draw(problem: Problem) -> Response:
        return Response(problem.code, problem.status)

    app, _ = make_app(unused, directory, render=draw)

    assert app.test_client().get("/", **at("nobody.example.com")).text == "tenant_not_found"


# Exempt


def test_exempt_route_runs_without_a_tenant_and_without_a_lookup(
    client: FlaskClient, directory: ListedDirectory
) -> None:
    for host in ("example.com", "nobody.example.com", "acme.example.com", "127.0.0.1"):
        assert client.get("/health", **at(host)).json == {"scope": None}

    assert directory.lookups == 0


def test_tenant_in_an_exempt_route_is_an_error_of_the_program(client: FlaskClient) -> None:
    answer = client.get("/health/tenant", **ACME_HOST)

    assert (answer.status_code, json.loads(answer.data)["code"]) == (500, "internal_error")


def test_exempt_endpoints_are_listed_with_their_reasons(app: Flask) -> None:
    assert app.extensions["tenancy"].exempt_endpoints(app) == {
        "health": "asked by the load balancer, which knows no tenant",
        "health_tenant": "shows that an exempt route has no tenant",
        "static": "static files",
    }


def test_endpoint_is_no_static_folder_for_its_name(app: Flask) -> None:
    blueprint = Blueprint("shop", __name__)
    blueprint.get("/shop", endpoint="static")(lambda: "goods")
    app.register_blueprint(blueprint)

    assert app.test_client().get("/shop", **at("example.com")).status_code == 404


@pytest.mark.parametrize("reason", ["", "  ", None, lambda: None])
def test_exemption_needs_a_reason(app: Flask, reason: Any) -> None:
    with pytest.raises(ConfigurationError, match="no reason"):
        app.extensions["tenancy"].exempt(reason)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/health", 405)])
def test_page_that_does_not_exist_is_flasks_own_error_where_no_tenant_is_named(
    client: FlaskClient, method: str, path: str, status: int
) -> None:
    assert client.open(path, method=method, **at("example.com")).status_code == status


# Answers of a tenant


def test_tenant_pages_are_private_and_vary_by_what_names_the_tenant(client: FlaskClient) -> None:
    """T108"""
    answer = client.get("/", **ACME_HOST)

    assert answer.headers["Cache-Control"] == "private"
    assert answer.headers["Vary"] == "Host, X-Tenant-ID, X-Tenant-Slug"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [("public, max-age=60", "public, max-age=60"), ("no-store", "no-store"), ("max-age=5", "max-age=5, private")],
)
def test_choice_of_a_route_about_caching_is_kept(app: Flask, chosen: str, expected: str) -> None:
    app.get("/cached")(lambda: Response("x", headers={"Cache-Control": chosen}))

    assert app.test_client().get("/cached", **ACME_HOST).headers["Cache-Control"] == expected


def test_log_records_carry_the_tenant(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(TenantLogFilter())
    app.get("/log")(lambda: logging.getLogger("test").warning("order.paid") or "x")

    app.test_client().get("/log", **ACME_HOST)
    logging.getLogger("test").warning("outside")

    assert [record.__dict__["tenant_id"] for record in caplog.records] == [str(ACME.id), "-"]


# Single tenant


@pytest.fixture
def single(unused: Any, directory: ListedDirectory) -> FlaskClient:
    return make_app(unused, directory, single_tenant="acme")[0].test_client()


@pytest.mark.parametrize("host", ["example.com", "globex.example.com", "127.0.0.1:8000", "whatever.test"])
def test_single_tenant_is_served_at_every_host(single: FlaskClient, host: str) -> None:
    assert single.get("/", **at(host)).json == {"tenant": "acme", "scope": str(ACME.id)}


def test_single_tenant_mode_serves_no_other(single: FlaskClient) -> None:
    assert single.get("/t/acme/").status_code == 200
    assert single.get("/t/globex/").status_code == 403


def test_single_tenant_mode_needs_no_resolver(unused: Any, directory: ListedDirectory) -> None:
    app, _ = make_app(unused, directory, resolvers=[], single_tenant="acme")

    assert app.test_client().get("/").status_code == 200


@pytest.mark.parametrize("slug", ["", "Acme", "42", "acme\n"])
def test_single_tenant_that_is_no_slug_is_a_configuration_error(
    unused: Any, directory: ListedDirectory, slug: str
) -> None:
    with pytest.raises(ConfigurationError, match="no slug"):
        make_app(unused, directory, single_tenant=slug)


# Set up


def test_extension_that_could_never_name_a_tenant_is_refused(unused: Any, directory: ListedDirectory) -> None:
    with pytest.raises(ConfigurationError, match="ever name a tenant"):
        Tenancy(sessions=unused, directory=directory)


@pytest.mark.parametrize("sessions", [None, sessionmaker(), lambda: None])
def test_sessions_that_are_no_tenant_sessions_are_refused(directory: ListedDirectory, sessions: Any) -> None:
    with pytest.raises(ConfigurationError, match="not bound tenant sessions"):
        make_app(sessions, directory)


def test_second_tenancy_on_an_app_is_refused(app: Flask) -> None:
    with pytest.raises(ConfigurationError, match="already"):
        app.extensions["tenancy"].init_app(app)


def test_tenant_and_session_outside_a_request_are_an_error(app: Flask) -> None:
    tenancy = app.extensions["tenancy"]

    for name in ("tenant", "session", "trace"):
        with pytest.raises(NoTenantError, match="no request is being served"):
            getattr(tenancy, name)
