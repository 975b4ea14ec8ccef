"""What a tenant's request costs over a bare one in Flask, counted in calls of functions."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response
from sqlalchemy.orm import sessionmaker
from werkzeug.test import EnvironBuilder

from tenancy.binding import create_tenant_engine
from tenancy.flask import Tenancy
from tenancy.resolvers import from_header, from_subdomain
from tenancy.session import TenantSession, tenant_sessionmaker
from tests.tenancy.directories import ACME, ListedDirectory


@pytest.fixture(scope="module")
def unused() -> Iterator[sessionmaker[TenantSession]]:
    """Sessions on a database that is not there: any statement would be an error."""
    engine = create_tenant_engine("postgresql+psycopg://app@127.0.0.1:1/none")
    yield tenant_sessionmaker(engine)
    engine.dispose()


@pytest.fixture
def app(unused: sessionmaker[TenantSession]) -> Flask:
    app = Flask("guarded")
    tenancy = Tenancy(
        sessions=unused,
        directory=ListedDirectory(ACME),
        resolvers=[from_subdomain("example.com"), from_header()],
        startup_check=False,
    )
    tenancy.init_app(app)
    app.add_url_rule("/", "home", lambda: "ok")
    app.add_url_rule("/session", "session", lambda: "ok" if tenancy.session else "")
    app.add_url_rule("/varies", "varies", lambda: Response("ok", headers=[("Vary", "Cookie"), ("Vary", "host")]))
    return app


def calls_of_request(app: Flask, path: str) -> int:
    """Count the functions, of Python and of C, that one request through the WSGI app calls, once it is warm."""
    environ = EnvironBuilder(path).get_environ() | {"HTTP_HOST": "acme.example.com"}
    seen = 0

    def look(_frame: Any, happened: str, _argument: Any) -> None:
        nonlocal seen
        seen += happened in ("call", "c_call")

    def ask() -> None:
        def start(status: str, _headers: object, _error: object = None, /) -> Callable[[bytes], object]:
            assert status == "200 OK"
            return lambda _part: None

        answer = app.wsgi_app(environ.copy(), start)
        assert b"".join(answer) == b"ok"
        answer.close()  # type: ignore[attr-defined]  # werkzeug's own, which has one

    ask()
    sys.setprofile(look)
    try:
        ask()
    finally:
        sys.setprofile(None)
    return seen


@pytest.mark.parametrize(("path", "at_most"), [("/", 208), ("/session", 275)])
def test_request_of_a_tenant_calls_few_functions_more_than_a_bare_one(app: Flask, path: str, at_most: int) -> None:
    """Finding the tenant by two resolvers, opening its scope, sealing the answer, and closing what was opened."""
    bare = Flask("bare")
    bare.add_url_rule(path, "home", lambda: "ok")

    added = calls_of_request(app, path) - calls_of_request(bare, path)

    assert 0 < added <= at_most


def test_names_already_in_vary_are_kept_and_none_is_told_twice(app: Flask) -> None:
    """T108"""
    answer = app.test_client().get("/varies", base_url="http://acme.example.com/")

    assert answer.headers.getlist("Vary") == ["Cookie, Host, X-Tenant-ID, X-Tenant-Slug"]


def test_answer_without_either_header_gets_one_of_each(app: Flask) -> None:
    """T108"""
    answer = app.test_client().get("/", base_url="http://acme.example.com/")

    assert answer.headers.getlist("Vary") == ["Host, X-Tenant-ID, X-Tenant-Slug"]
    assert answer.headers.getlist("Cache-Control") == ["private"]
