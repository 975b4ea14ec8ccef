"""What a request pays in Flask before its view runs: finding the tenant, opening and closing its scope."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from flask import Flask
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from benchmarks import registry
from benchmarks.bench import ROLES, Bench
from benchmarks.figures import Goal, Part, Row
from benchmarks.measuring import interleave, row
from benchmarks.registry import Tenant
from tenancy import SQLDirectory, create_tenant_engine, tenant_sessionmaker
from tenancy.flask import Tenancy
from tenancy.resolvers import Chain, from_custom_domain, from_header, from_jwt, from_path, from_query, from_subdomain

DATABASE = "registry"
BARE = "bare Flask"
A_CALL = 25
HOW = (
    "CPU time, not time on the clock, of one request through the WSGI app, in this process: a view that answers 'ok'. "
    "`tenancy` resolves a subdomain with a warm directory, opens the scope and closes it; `tenancy and session` also "
    f"makes the request's session, without a statement. Each figure is the mean of {A_CALL} requests in a row."
)


def run(bench: Bench) -> Iterator[Row]:
    bench.built(DATABASE, registry.build)
    engine = create_tenant_engine(bench.socket_url(ROLES.app, DATABASE))
    directory = SQLDirectory(Tenant, ttl_s=3600, floor_ttl_s=3600)
    bare = Flask("bare")
    bare.add_url_rule("/", view_func=lambda: "ok", endpoint="home")
    guarded, tenancy = (
        Flask("guarded"),
        Tenancy(sessions=tenant_sessionmaker(engine), directory=directory, resolvers=[from_subdomain("example.com")]),
    )
    tenancy.init_app(guarded)
    guarded.add_url_rule("/", view_func=lambda: "ok", endpoint="home")
    guarded.add_url_rule("/session", view_func=lambda: "ok" if tenancy.session else "", endpoint="session")
    try:
        samples = interleave(
            {
                BARE: _requests(bare, "/"),
                "tenancy": _requests(guarded, "/"),
                "tenancy and session": _requests(guarded, "/session"),
            },
            rounds=bench.rounds(400),
            budget_s=bench.budget(12),
            warm_up=5,
            clock=time.process_time_ns,
        )
        each = {name: [value / A_CALL for value in values] for name, values in samples.items()}
        yield row("a request", each, baseline=BARE, unit="µs CPU")
        added = {
            name: [mine - plain for mine, plain in zip(values, each[BARE], strict=True)]
            for name, values in each.items()
            if name != BARE
        }
        yield row(
            "what is added to a request",
            added,
            baseline=BARE,
            unit="µs CPU",
            goals=(Goal("tenancy", at_most=60, by="value"),),
            note="Resolution, scope and teardown: the difference of requests made one after the other.",
        )
        yield row("resolution alone", _resolutions(directory, bench), baseline="subdomain", unit="µs CPU")
    finally:
        directory.close()
        engine.dispose()


def _requests(app: Flask, path: str) -> Callable[[int], None]:
    environ = EnvironBuilder(path).get_environ() | {"HTTP_HOST": "tenant-3.example.com"}

    statuses: list[str] = []

    def start(status: str, _headers: object, _error: object = None, /) -> Callable[[bytes], object]:
        statuses.append(status)
        return statuses.append  # type: ignore[return-value]  # the way to write that nobody uses

    def call(_number: int) -> None:
        statuses.clear()
        for _ in range(A_CALL):
            answer = app.wsgi_app(environ.copy(), start)
            assert b"".join(answer) == b"ok"
            close = getattr(answer, "close", None)
            if close is not None:
                close()
        assert set(statuses) == {"200 OK"}

    return call


def _resolutions(directory: SQLDirectory, bench: Bench) -> dict[str, list[float]]:
    jwt = from_jwt({"k": ("HS256", bytes(32))}, issuer="i", audience="a")
    chains = {
        "subdomain": Chain([from_subdomain("example.com")], directory),
        "subdomain and header": Chain([from_subdomain("example.com"), from_header()], directory),
        "all six, no token": Chain(
            [
                jwt,
                from_subdomain("example.com"),
                from_custom_domain(),
                from_path("/t/<slug>"),
                from_header(),
                from_query(),
            ],
            directory,
        ),
    }
    environ = EnvironBuilder("/people?page=2").get_environ() | {"HTTP_HOST": "tenant-3.example.com:443"}

    def resolving(chain: Chain) -> Callable[[int], None]:
        def call(_number: int) -> None:
            for _ in range(A_CALL):
                chain.resolve(Request(environ))

        return call

    samples = interleave(
        {name: resolving(chain) for name, chain in chains.items()},
        rounds=bench.rounds(400),
        budget_s=bench.budget(5),
        clock=time.process_time_ns,
    )
    return {name: [value / A_CALL for value in values] for name, values in samples.items()}


PART = Part("flask", "A request in Flask", HOW, rows=3, run=run)
