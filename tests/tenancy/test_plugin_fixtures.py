"""The fixtures an application's own tests get, and clients at each tenant's address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import request

from tenancy.embedded import Server
from tenancy.errors import ConfigurationError
from tenancy.pytest_plugin.clients import Address, Clients, TenantClient, address_of, routes_of
from tenancy.resolvers import for_single_tenant, from_header, from_path, from_query, from_subdomain
from tenancy.testing.routes import Route
from tenancy.testing.world import OWNER, SeededTenant
from tests.tenancy.directories import ACME, GLOBEX, ListedDirectory
from tests.tenancy.flask_app import make_app
from tests.tenancy.plugin_runs import Stranger

A, B = (SeededTenant(known.id, known.slug) for known in (ACME, GLOBEX))

OWN_TESTS = """
import psycopg
import pytest
from tenancy import current_tenant, tenant_scope


def test_scope_of_the_test_stays_out_of_the_code_under_test(tenancy_clients, tenancy_world):
    a, b = tenancy_world.tenants
    with tenant_scope(a.id):
        names = tenancy_clients.b.get("/customers").get_json().values()
        assert current_tenant() == a.id
    assert len(names) > 1
    assert all(b.slug in name for name in names)


def test_clients_are_found_by_tenant(tenancy_clients, tenancy_world):
    a, b = tenancy_world.tenants
    assert (tenancy_clients[a], tenancy_clients[b]) == (tenancy_clients.a, tenancy_clients.b)


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_finds_the_rows_as_they_were_seeded(tenancy_clients, turn):
    before = tenancy_clients.a.get("/customers").get_json()
    for customer in before:
        assert tenancy_clients.a.delete(f"/customers/{customer}").status_code == 204
    assert len(before) > 1
    assert tenancy_clients.a.get("/customers").get_json() == {}


def test_urls_are_those_of_the_roles(tenancy_database):
    url = tenancy_database.url(tenancy_database.roles.app).replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT session_user").fetchone() == ("shop_app",)


def test_server_answers(tenancy_server):
    with tenancy_server.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_that_leaves_a_scope_open(tenancy_world):
    test_that_leaves_a_scope_open.kept = tenant_scope(tenancy_world.tenants[0].id)
    test_that_leaves_a_scope_open.kept.__enter__()


def test_after_it():
    pass
"""


def test_fixtures_serve_an_applications_own_tests(tmp_path: Path, server: Server) -> None:
    stranger = Stranger(tmp_path / "stranger", server)
    stranger.write("test_own.py", OWN_TESTS)

    finished = stranger.run("-q", "test_own.py")

    assert "7 passed, 2 errors" in finished.output, finished.output
    assert "this test left a scope open: tenant UUID(" in finished.output
    assert "an earlier test left its scope open: tenant UUID(" in finished.output


def test_generated_tests_find_the_rows_although_other_tests_changed_them(tmp_path: Path, server: Server) -> None:
    stranger = Stranger(tmp_path / "stranger", server)
    stranger.write(
        "test_own.py",
        "def test_own(tenancy_clients):\n"
        "    for customer in tenancy_clients.a.get('/customers').get_json():\n"
        "        tenancy_clients.a.delete(f'/customers/{customer}')\n",
    )

    finished = stranger.run("-q", "-k", "test_own or (customers and select_orm)")

    assert (finished.code, "6 passed" in finished.output) == (0, True), finished.output


def test_suite_runs_from_the_metadata_alone(tmp_path: Path, server: Server) -> None:
    stranger = Stranger(tmp_path / "stranger", server, "tenancy_metadata = shop:Base.metadata", "tenancy_roles = shop")

    finished = stranger.run("-q", "-k", "not controls")

    assert finished.code == 0, finished.output
    assert finished.report["routes"] == []
    assert {cell["table"] for cell in finished.report["cells"]} == {"customers", "orders", "tenants"}


@pytest.mark.parametrize(
    ("resolver", "address"),
    [
        (from_subdomain("example.com"), Address(base_url="http://isolation-owner.example.com")),
        (from_path("/t/<slug>"), Address(prefix="/t/isolation-owner")),
        (from_header(), Address(headers={"X-Tenant-ID": "aaaaaaaa-0000-7000-8000-000000000001"})),
        (from_query("org"), Address(query={"org": "isolation-owner"})),
    ],
)
def test_address_follows_from_the_resolver(resolver: Any, address: Address) -> None:
    assert address_of([lambda _request: None, resolver, from_query()], OWNER) == address


def test_application_of_a_single_tenant_has_no_second_address() -> None:
    with pytest.raises(ConfigurationError, match="serves a single tenant"):
        address_of(for_single_tenant("acme", []), A)


@pytest.fixture
def client_of(sessions: Any) -> Callable[..., TenantClient]:
    directory = ListedDirectory(ACME, GLOBEX)

    def make(tenant: SeededTenant, **options: Any) -> TenantClient:
        app, tenancy = make_app(sessions, directory, **options)
        client = TenantClient(app, app.response_class)
        client.tenant, client.address = tenant, address_of(tenancy.chain.resolvers, tenant)
        return client

    return make


@pytest.mark.parametrize(
    "resolver", [from_subdomain("example.com"), from_path("/t/<slug>"), from_header(), from_query()]
)
def test_client_is_served_as_its_own_tenant(client_of: Callable[..., TenantClient], resolver: Any) -> None:
    for tenant in (A, B):
        answer = client_of(tenant, resolvers=[resolver]).get("/")

        assert (answer.status_code, answer.json and answer.json["tenant"]) == (200, tenant.slug)


def test_client_sends_its_headers_with_every_request(client_of: Callable[..., TenantClient]) -> None:
    client = client_of(A)
    client.application.get("/who")(lambda: request.headers["X-Who"])
    client.headers["X-Who"] = "ada"

    assert client.get("/who").text == "ada"
    assert client.get("/who", headers={"X-Who": "eve"}).text == "eve"


def test_clients_have_no_third_tenant(client_of: Callable[..., TenantClient]) -> None:
    clients = Clients(client_of(A), client_of(B))

    with pytest.raises(KeyError):
        clients[OWNER]


def test_routes_are_each_rule_with_each_method(sessions: Any) -> None:
    app, _ = make_app(sessions, ListedDirectory())
    app.route("/a/<b>/<int:c>", methods=["PUT", "GET"])(odd)

    routes = [route for route in routes_of(app) if route.endpoint in ("odd", "health")]

    assert routes == [
        Route("/a/<b>/<int:c>", "GET", "odd", ("b", "c")),
        Route("/a/<b>/<int:c>", "PUT", "odd", ("b", "c")),
        Route("/health", "GET", "health", exempt="asked by the load balancer, which knows no tenant"),
    ]


def odd(b: str, c: int) -> str:
    return b * c
