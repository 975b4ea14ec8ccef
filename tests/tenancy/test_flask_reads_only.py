"""Routes that only read: by a mark of their own, or by the method of the request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from flask import Flask, Response
from sqlalchemy import delete, select
from sqlalchemy.orm import sessionmaker

from tenancy.context import current_scope
from tenancy.directory import SQLDirectory
from tenancy.session import TenantSession
from tests.conftest import SomeTenant
from tests.models import Person, Tenant
from tests.tenancy.flask_app import make_app

MakeApp = Callable[..., Flask]


@pytest.fixture
def make(sessions: sessionmaker[TenantSession]) -> Iterator[MakeApp]:
    """Make an app with one view at three addresses, which deletes everybody; /marked only reads."""
    directory = SQLDirectory(Tenant)

    def make(**options: Any) -> Flask:
        app, tenancy = make_app(sessions, directory, **options)

        def empty() -> str:
            tenancy.session.execute(delete(Person))
            tenancy.session.commit()
            return "emptied"

        def names() -> Response:
            session = tenancy.session

            def lines() -> Iterator[str]:
                yield f"{current_scope()!r} "
                yield from session.scalars(select(Person.name))

            return Response(lines())

        app.add_url_rule("/bare", view_func=empty, methods=["GET", "POST"])
        app.add_url_rule("/marked", "marked", tenancy.reads_only(lambda: empty()), methods=["GET", "POST"])
        app.add_url_rule("/names", "names", tenancy.reads_only(names))
        return app

    yield make
    directory.close()


def ask(app: Flask, tenant: SomeTenant, method: str, path: str) -> tuple[int, str]:
    answer = app.test_client().open(path, method=method, base_url=f"http://{tenant.slug}.example.com/")
    return answer.status_code, answer.text


@pytest.mark.parametrize(
    ("options", "method", "path", "status"),
    [
        ({}, "GET", "/bare", 200),
        ({}, "GET", "/marked", 500),
        ({}, "POST", "/marked", 500),
        ({"reads_only_methods": ["GET", "HEAD"]}, "GET", "/bare", 500),
        ({"reads_only_methods": ["GET", "HEAD"]}, "POST", "/bare", 200),
    ],
)
def test_route_that_only_reads_writes_nothing(
    make: MakeApp, acme: SomeTenant, ada: UUID, options: dict[str, Any], method: str, path: str, status: int
) -> None:
    app = make(**options)

    found = ask(app, acme, method, path)
    left = ask(app, acme, "GET", "/people")[1]

    assert found[0] == status
    assert ("Ada" in left) is (status == 500)


@pytest.mark.parametrize(("after", "needed"), [(None, 0), (2**40, 2**40)])
def test_request_reads_after_what_its_client_says(
    make: MakeApp, acme: SomeTenant, ada: UUID, after: int | None, needed: int
) -> None:
    app = make(reads_after=lambda trace: after)
    scope_of_request: list[int] = []

    @app.before_request
    def look() -> None:
        scope = current_scope()
        scope_of_request.append(scope.after if scope is not None else -1)

    ask(app, acme, "GET", "/people")

    assert scope_of_request == [needed]


def test_write_in_a_route_that_only_reads_is_named_in_the_log_and_not_in_the_answer(
    make: MakeApp, acme: SomeTenant, ada: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        status, body = ask(make(), acme, "POST", "/marked")

    assert (status, "internal_error" in body, "reading only" in body) == (500, True, False)
    assert "reading only" in caplog.text


def test_streamed_body_of_a_route_that_only_reads_goes_on_reading_only(
    make: MakeApp, acme: SomeTenant, ada: UUID
) -> None:
    found = ask(make(), acme, "GET", "/names")

    assert found == (200, f"tenant {acme.id!r}, reading only Ada")
