"""Clients of the two tenants: each addressed at its own tenant, as the application's resolvers would have it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tenancy.context import outside_any_scope
from tenancy.errors import ConfigurationError
from tenancy.flask import Tenancy
from tenancy.resolvers import PathPrefix, Resolver
from tenancy.resolvers.evidence import HeaderPair, QueryParameter, Setting, Subdomain
from tenancy.testing.answers import Answer
from tenancy.testing.routes import Route
from tenancy.testing.sweep import Ask, Visitor
from tenancy.testing.world import SeededTenant, World


@dataclass
class Address:
    """How a request names its tenant: by host, by the start of the path, by headers, or by the query of a read."""

    base_url: str = "http://localhost"
    prefix: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)


def address_of(resolvers: Iterable[Resolver], tenant: SeededTenant) -> Address:
    """Return the address by the first resolver one can be derived from; a bare one when there is none.

    Raises: ConfigurationError - the application serves one tenant only.
    """
    for resolver in resolvers:
        match resolver:
            case Subdomain():
                return Address(base_url=f"http://{tenant.slug}.{resolver.base_domain}")
            case PathPrefix():
                return Address(prefix=resolver.before + tenant.slug)
            case HeaderPair():
                return Address(headers={resolver.id_header: str(tenant.id)})
            case QueryParameter():
                return Address(query={resolver.name: tenant.slug})
            case Setting():
                raise ConfigurationError(
                    "the application serves a single tenant, and the proof takes two",
                    hint="leave single_tenant out of the application that `tenancy_app` makes",
                )
    return Address()


class TenantClient(FlaskClient):
    """Flask's test client at one tenant's address. Paths are those of the application, without a tenant's prefix.

    headers: sent with every request; a sign-in may add to them.
    """

    tenant: SeededTenant
    address: Address

    @property
    def headers(self) -> dict[str, str]:
        return self.address.headers

    def open(self, *args: Any, **options: Any) -> TestResponse:
        if args and not isinstance(args[0], str):  # a request that is complete, such as one redirected
            return super().open(*args, **options)
        path = args[0] if args else options.pop("path", "/")
        options.setdefault("base_url", self.address.base_url)
        options["headers"] = {**self.headers, **dict(options.get("headers") or {})}
        if self.address.query and options.get("method", "GET") in ("GET", "HEAD", "OPTIONS"):
            options["query_string"] = {**self.address.query, **(options.get("query_string") or {})}
        return super().open(self.address.prefix + path, *args[1:], **options)


def open_client(config: pytest.Config, app: Flask, world: World, tenant: SeededTenant) -> TenantClient:
    """Make a client at the tenant's address, signed in if the tests say how."""
    tenancy: Tenancy = app.extensions["tenancy"]
    own = app.test_client_class or FlaskClient
    kind = TenantClient if own is FlaskClient else type("TenantClient", (TenantClient, own), {})
    client = cast("TenantClient", kind(app, app.response_class, use_cookies=True))
    client.tenant = tenant
    client.address = address_of(tenancy.chain.resolvers, tenant)
    with outside_any_scope():
        config.hook.pytest_tenancy_sign_in(client=client, tenant=tenant, rows=rows_of(world, tenant))
    return client


def rows_of(world: World, tenant: SeededTenant) -> dict[str, list[dict[str, Any]]]:
    """Return the tenant's seeded rows, by table."""
    return {table: by_tenant.get(tenant.id, []) for table, by_tenant in world.rows.items()}


class Clients:
    """The clients of the two tenants: `a` of the first, `b` of the second, or by tenant: `clients[tenant]`."""

    def __init__(self, a: TenantClient, b: TenantClient) -> None:
        self.a = a
        self.b = b

    def __getitem__(self, tenant: SeededTenant) -> TenantClient:
        return {self.a.tenant.id: self.a, self.b.tenant.id: self.b}[tenant.id]


def routes_of(app: Flask) -> list[Route]:
    """Return every rule of the URL map with each of its methods, in an order that never changes."""
    tenancy: Tenancy = app.extensions["tenancy"]
    exempt = tenancy.exempt_endpoints(app)
    return sorted(
        Route(
            rule=rule.rule,
            method=method,
            endpoint=rule.endpoint,
            parameters=tuple(
                sorted(rule.arguments - set(rule.defaults or ()), key=lambda name: _place(rule.rule, name))
            ),
            exempt=exempt.get(rule.endpoint, ""),
        )
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.build_only
    )


def _place(rule: str, name: str) -> int:
    return max(rule.find(f":{name}>"), rule.find(f"<{name}>"))


def visitor(client: TenantClient) -> Visitor:
    """Return what sends a sweep's requests through this client."""

    def send(ask: Ask) -> Answer:
        app = client.application
        options: dict[str, Any] = {"method": ask.route.method, "query_string": dict(ask.body.query)}
        if ask.body.json is not None:
            options["json"] = ask.body.json
        if ask.body.form is not None:
            options["data"] = dict(ask.body.form)
        if ask.body.content is not None:
            options |= {"data": ask.body.content, "content_type": "application/octet-stream"}
        before = app.config["PROPAGATE_EXCEPTIONS"]
        app.config["PROPAGATE_EXCEPTIONS"] = False  # an error is an answer here, as it is to a tenant
        try:
            with outside_any_scope(), client.open(_path(app, ask), **options) as response:
                text = response.get_data().decode("utf-8", "replace")
        finally:
            app.config["PROPAGATE_EXCEPTIONS"] = before
        sent = frozenset(str(value) for value in ask.values.values())
        return Answer(response.status_code, tuple(response.headers.items()), text, sent)

    return send


def _path(app: Flask, ask: Ask) -> str:
    values: Mapping[str, Any] = {name: ask.values[name] for name in ask.route.parameters}
    for rule in app.url_map.iter_rules(ask.route.endpoint):
        if rule.rule == ask.route.rule and (built := rule.build(values, append_unknown=False)) is not None:
            return built[1]
    raise AssertionError(f"werkzeug builds no address from {ask.route.rule} and {sorted(values)}")
