"""T108: a shared HTTP cache in front of the application, asked for the same path by two tenants."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask, Response
from sqlalchemy.orm import sessionmaker
from werkzeug.test import Client
from werkzeug.wrappers import Request
from werkzeug.wrappers import Response as Answer

from tenancy.directory import TenantRecord
from tenancy.session import TenantSession
from tests.conftest import SomeTenant
from tests.tenancy.directories import ListedDirectory
from tests.tenancy.flask_app import make_app


class SharedCache:
    """A small HTTP cache, as RFC 9111 has it. Keys are paths alone: the worst that still honours Vary.

    obeys_private, obeys_vary: switched off, it is a cache that somebody has configured wrongly.
    """

    def __init__(self, inner: Any, *, obeys_private: bool = True, obeys_vary: bool = True) -> None:
        self._inner = inner
        self._obeys_private = obeys_private
        self._obeys_vary = obeys_vary
        self._kept: dict[str, list[tuple[dict[str, str], Answer]]] = {}
        self.hits = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        for named, answer in self._kept.get(request.full_path, []):
            if all(request.headers.get(name, "") == value for name, value in named.items()):
                self.hits += 1
                return answer(environ, start_response)
        answer = Answer.from_app(self._inner, environ, buffered=True)
        control = answer.cache_control
        is_private = bool(control.private) or control.no_store
        if answer.status_code == 200 and not (is_private and self._obeys_private):
            names = list(answer.vary) if self._obeys_vary else []
            named = {name: request.headers.get(name, "") for name in names}
            self._kept.setdefault(request.full_path, []).append((named, answer))
        return answer(environ, start_response)


@pytest.fixture
def app(
    sessions: sessionmaker[TenantSession], acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> Flask:
    """Ada is in acme and Eve in globex; `/public` says that everybody may keep its answer."""
    person_of(acme, "Ada")
    person_of(globex, "Eve")
    records = (TenantRecord(tenant.id, tenant.slug, tenant.slug, "active") for tenant in (acme, globex))
    app, tenancy = make_app(sessions, ListedDirectory(*records))

    @app.get("/public")
    def public() -> Response:
        answer = Response(tenancy.tenant.slug)
        answer.cache_control.public = True
        answer.cache_control.max_age = 600
        return answer

    return app


def by_host(tenant: SomeTenant) -> dict[str, Any]:
    return {"base_url": f"http://{tenant.slug}.example.com/"}


def by_header(tenant: SomeTenant) -> dict[str, Any]:
    return {"base_url": "http://example.com/", "headers": {"X-Tenant-Slug": tenant.slug}}


def by_id(tenant: SomeTenant) -> dict[str, Any]:
    return {"base_url": "http://example.com/", "headers": {"X-Tenant-ID": str(tenant.id)}}


WAYS = pytest.mark.parametrize("way", [by_host, by_header, by_id])
Way = Callable[[SomeTenant], dict[str, Any]]


def in_turns(cache: SharedCache, path: str, way: Way, *tenants: SomeTenant) -> list[str]:
    client = Client(cache, use_cookies=False)
    return [client.get(path, **way(tenant)).get_data(as_text=True).strip() for tenant in tenants]


@WAYS
def test_cache_keeps_nothing_that_belongs_to_a_tenant(
    app: Flask, acme: SomeTenant, globex: SomeTenant, way: Way
) -> None:
    """T108"""
    cache = SharedCache(app)

    answers = in_turns(cache, "/people", way, acme, globex, acme)

    assert answers == ['["Ada"]', '["Eve"]', '["Ada"]']
    assert cache.hits == 0


@WAYS
@pytest.mark.parametrize("path", ["/people", "/public"])
def test_cache_that_keeps_everything_keeps_tenants_apart_by_vary(
    app: Flask, acme: SomeTenant, globex: SomeTenant, way: Way, path: str
) -> None:
    """T108: it disregards `private`; and `/public` is meant to be kept."""
    cache = SharedCache(app, obeys_private=False)

    first, second, third = in_turns(cache, path, way, acme, globex, acme)

    assert first == third != second
    assert cache.hits == 1


def test_cache_without_vary_would_mix_tenants(app: Flask, acme: SomeTenant, globex: SomeTenant) -> None:
    """T108: why the header has to be there, and what the tests above would look like without it."""
    cache = SharedCache(app, obeys_private=False, obeys_vary=False)

    assert in_turns(cache, "/people", by_header, acme, globex) == ['["Ada"]', '["Ada"]']


def test_refusal_is_kept_by_nobody(app: Flask, acme: SomeTenant) -> None:
    """T108: a tenant that opens is served at once, whatever was answered before."""
    answer = app.test_client().get("/people", base_url="http://nobody.example.com/")

    assert (answer.status_code, answer.headers["Cache-Control"]) == (404, "no-store")
