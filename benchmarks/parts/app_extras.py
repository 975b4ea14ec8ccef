"""What the application does beside each request of a tenant, each switched on alone: a share of the request."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from flask import Flask
from sqlalchemy import text
from werkzeug.test import EnvironBuilder

from app import close_app, create_app
from app.audit.entries import record
from app.auth.access import signed_in
from app.auth.desk import EXTENSION
from app.config import development_settings
from app.crm.models import Person
from app.db import session
from app.development import upgrade_database
from app.limits import calls
from app.usage import meters
from benchmarks.bench import ROLES, Bench, send
from benchmarks.figures import Goal, Part, Row
from benchmarks.measuring import cpu_of, interleave, row
from tenancy.context import tenant_scope
from tenancy.rls import bootstrap_sql

DATABASE = "app_extras"
OFF, METERING, RATES, AUDIT = "off", "usage metering", "rate limits", "audit"
A_CALL = 10
_KEYS = {"bench": "b" * 48}
HOW = (
    "CPU time of a request to the whole application, through its WSGI app, and of the server process that answers it, "
    f"together; the mean of {A_CALL} requests in a row, by a signed-in member of a tenant of the plan `custom`. Usage "
    "is written every second by the same process, and calls are taken from the rate in lots: both are in the figures. "
    "A request that reads a person by id; and one that changes a person, with and without an entry in the audit, whose "
    "link in the chain the database makes when it commits. Each application differs from `off` in the one thing."
)


def run(bench: Bench) -> Iterator[Row]:
    bench.built(DATABASE, _build)
    with ExitStack() as stack:
        apps = {name: _app(bench, name, stack) for name in (OFF, METERING, RATES, AUDIT)}
        token, person = _fill(apps[OFF])
        asks = {name: _requests(app, "GET", f"/bench/{person}", token) for name, app in apps.items() if name != AUDIT}
        pids = {name: _server_pid(app, token) for name, app in apps.items()}
        for on in (METERING, RATES):
            yield _measured(bench, f"{on}, a reading request", {name: asks[name] for name in (OFF, on)}, pids, on)
        writes = {
            OFF: _requests(apps[OFF], "POST", f"/bench/{person}", token),
            AUDIT: _requests(apps[AUDIT], "POST", f"/bench/{person}/audited", token),
        }
        yield _measured(bench, "audit, a changing request", writes, pids, AUDIT)


def _measured(bench: Bench, name: str, asked: dict[str, Callable[[int], object]], pids: dict[str, int], on: str) -> Row:
    clocks = {each: cpu_of(pids[each], with_own=True) for each in asked}
    samples = interleave(asked, rounds=bench.rounds(400), budget_s=bench.budget(15), warm_up=8, clocks=clocks)
    each = {which: [value / A_CALL for value in values] for which, values in samples.items()}
    return row(name, each, baseline=OFF, unit="µs CPU", goals=(Goal(on, at_most=1.05),))


def _build(bench: Bench, database: str) -> None:
    with bench.admin(database) as admin:
        send(admin, bootstrap_sql(ROLES, database))
    upgrade_database(bench.socket_url(ROLES.migrator, database))


def _app(bench: Bench, on: str, stack: ExitStack) -> Flask:
    """Make the application with one of the three, on a connection of its own."""
    settings = development_settings(
        database_url=bench.socket_url(ROLES.app, DATABASE),
        platform_database_url=bench.socket_url(ROLES.platform, DATABASE),
        database_pool_size=1,
        tenant_concurrency=0,
        jwt_keys=_KEYS,
        jwt_signing_kid="bench",
        usage_flush_s=1,
    )
    app = create_app(settings)
    stack.callback(close_app, app)
    logging.getLogger().setLevel(logging.CRITICAL)
    logging.getLogger("app").setLevel(logging.CRITICAL)
    if on != METERING:
        _unhook(app, meters._begin, meters._measure)
    if on != RATES:
        _unhook(app, calls._admit, calls._tell)
    app.add_url_rule("/api/v1/bench/<uuid:row_id>", view_func=_read, endpoint="bench_read")
    app.add_url_rule("/api/v1/bench/<uuid:row_id>", view_func=_change, endpoint="bench_change", methods=["POST"])
    audited = "/api/v1/bench/<uuid:row_id>/audited"
    app.add_url_rule(audited, view_func=_change_audited, endpoint="bench_audited", methods=["POST"])
    return app


def _unhook(app: Flask, before: Any, after: Any) -> None:
    app.before_request_funcs[None].remove(before)
    app.after_request_funcs[None].remove(after)


@signed_in
def _read(row_id: UUID) -> dict[str, str]:
    return {"name": session().get_one(Person, row_id).name}


@signed_in
def _change(row_id: UUID) -> dict[str, str]:
    _rename(row_id)
    session().commit()
    return {}


@signed_in
def _change_audited(row_id: UUID) -> dict[str, str]:
    before = _rename(row_id)
    record(session(), "person.renamed", target=("person", row_id), before={"name": before})
    session().commit()
    return {}


_NUMBERS = itertools.count()


def _rename(row_id: UUID) -> str:
    person = session().get_one(Person, row_id)
    before: str = person.name
    person.name = f"Person {next(_NUMBERS)}"
    return before


def _fill(app: Flask) -> tuple[str, str]:
    """Register a tenant and give it a person; return a token, and the person's id."""
    client = app.test_client(use_cookies=False)
    registration = {
        "organization_name": "Bench",
        "admin_email": "ana@bench.test",
        "admin_password": "Correct horse battery 1!",
        "plan": "custom",
    }
    token: str = client.post("/api/v1/auth/register-organization", json=registration).get_json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    person: str = client.post("/api/v1/people", json={"name": "Ada"}, headers=headers).get_json()["id"]
    return token, person


def _requests(app: Flask, method: str, path: str, token: str) -> Callable[[int], None]:
    environ = EnvironBuilder(f"/api/v1{path}", method=method).get_environ() | {"HTTP_AUTHORIZATION": f"Bearer {token}"}
    statuses: list[str] = []

    def start(status: str, _headers: object, _error: object = None, /) -> Callable[[bytes], object]:
        statuses.append(status)
        return statuses.append  # type: ignore[return-value]  # the way to write that nobody uses

    def call(_number: int) -> None:
        statuses.clear()
        for _ in range(A_CALL):
            answer = app.wsgi_app(environ.copy(), start)
            body = b"".join(answer)
            getattr(answer, "close", lambda: None)()
            assert isinstance(json.loads(body), dict)
        assert set(statuses) == {"200 OK"}, (statuses, body)

    return call


def _server_pid(app: Flask, token: str) -> int:
    """The server process of the application's only connection."""
    _requests(app, "GET", "/me", token)(0)
    with tenant_scope(UUID(int=1)), app.extensions[EXTENSION].database.engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


PART = Part("extras", "Metering, rate limits and audit", HOW, rows=3, run=run)
