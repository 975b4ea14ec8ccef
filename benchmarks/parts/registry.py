"""The registry of tenants: how many a second come to life, and what staff's look at it costs when there are many."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from flask import Flask
from sqlalchemy import Engine
from uuid_utils.compat import uuid7

from app import close_app, create_app
from app.admin.schemas import TenantQuery
from app.admin.tenants import page_of_tenants
from app.audit.actors import Actor, ActorKind, acting_as
from app.config import development_settings
from app.development import upgrade_database
from app.tenants.models import Tenant
from app.tenants.provisioning import create_tenant, make_tenant, provision
from app.tenants.registrar import EXTENSION, Registrar
from benchmarks.bench import ROLES, Bench, pin, send
from benchmarks.figures import Figure, Goal, Part, Row, Spread
from benchmarks.measuring import Samples, interleave, row
from tenancy import create_tenant_engine
from tenancy.directory import Reference, SQLDirectory
from tenancy.rls import bootstrap_sql

FEW, MANY = 100, 100_000
WORKERS, A_BATCH, BATCHES = 4, 250, 4
AT_ONCE, APART = "make_tenant", "create_tenant, provision"
HOW = (
    f"{WORKERS} processes make tenants through the application's operations, each with an owner who is invited (by a "
    f"development's mail, into a log that is silent), as `{AT_ONCE}` does and as the admin API's two calls do; "
    f"{A_BATCH} at a time, the two ways in turn. There server and workers share all cores. Then the admin API's list, "
    f"its search and the directory, at {FEW} and at {MANY:,} tenants that SQL has filled in: a page of the newest; a "
    "page of those with a part of a name that few have, and one that nearly all have; a slug that no cache remembers. "
    "The counts by state are cached, as in the application."
)
_REASON = "a measurement"
_FILL = (
    # Without the triggers, which would copy and announce each row; what they copy is copied below.
    "SET session_replication_role = replica",
    "INSERT INTO tenants (tenant_id, slug, name, status, plan, plan_version, created_at) "
    "SELECT uuidv7(), 'made-' || n, 'Company ' || left(md5(n::text), 6), "
    "CASE WHEN mod(n, 50) = 0 THEN 'suspended' ELSE 'active' END, 'basic', 1, now() - n * interval '1 minute' "
    "FROM generate_series(1, {count}) n",
    "DROP INDEX ix_searched_tenants_grams",  # made anew below, in a fifth of the time
    "INSERT INTO searched_tenants (found_id, slug, name, status, plan, created_at, words, grams) "
    "SELECT tenant_id, slug, name, status, plan, created_at, w, tenant_grams(w) "
    "FROM tenants, tenant_words(name, slug) w",
    "CREATE INDEX ix_searched_tenants_grams ON searched_tenants USING gin (grams)",
    "SET session_replication_role = origin",
    "VACUUM ANALYZE",
    "CHECKPOINT",
)


def run(bench: Bench) -> Iterator[Row]:
    yield _made(bench)
    with ExitStack() as stack:
        apps, engines = {}, {}
        for count in (FEW, MANY):
            bench.built(_database(count), _build)
            apps[count] = stack.enter_context(_opened_app(bench, _database(count)))
            with bench.admin(_database(count)) as admin:
                send(admin, [statement.format(count=count) for statement in _FILL])
            engines[count] = create_tenant_engine(bench.socket_url(ROLES.app, _database(count)))
            stack.callback(engines[count].dispose)
        looks: dict[str, Callable[[int], str | None]] = {
            "list": lambda _count: None,
            "search, few have it": lambda count: f"made-{random.randint(1, count)}",
            "search, most have it": lambda _count: "company",
        }
        for name, part in looks.items():
            yield _grown(name, {_label(count): _looking(apps[count], count, part) for count in apps}, bench)
        yield _grown("resolve", {_label(count): _resolving(engines[count], count) for count in engines}, bench)


def _grown(name: str, calls: dict[str, Callable[[int], object]], bench: Bench) -> Row:
    # 30 calls first: enough for each statement to be compiled and prepared.
    samples: Samples = interleave(calls, rounds=bench.rounds(300), budget_s=bench.budget(5), warm_up=30)
    return row(name, samples, baseline=_label(FEW), goals=(Goal(_label(MANY), at_most=2),))


def _label(count: int) -> str:
    return f"{count:,} tenants"


def _database(count: int) -> str:
    return f"registry_{count}"


def _build(bench: Bench, database: str) -> None:
    with bench.admin(database) as admin:
        send(admin, bootstrap_sql(ROLES, database))
    upgrade_database(bench.socket_url(ROLES.migrator, database))


# Looking ----------------------------------------------------------------------------------------------


@contextmanager
def _opened_app(bench: Bench, database: str) -> Iterator[Flask]:
    app = _app(bench.socket_url(ROLES.app, database), bench.socket_url(ROLES.platform, database))
    try:
        yield app
    finally:
        close_app(app)


def _app(url: str, platform_url: str) -> Flask:
    app = create_app(development_settings(database_url=url, platform_database_url=platform_url))
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("app").setLevel(logging.ERROR)
    return app


def _looking(app: Flask, count: int, part: Callable[[int], str | None]) -> Callable[[int], object]:
    def call(_number: int) -> None:
        with app.app_context(), acting_as(_actor()):
            assert page_of_tenants(TenantQuery.model_validate({"search": part(count)}), reason=_REASON).items

    return call


def _resolving(engine: Engine, count: int) -> Callable[[int], object]:
    directory = SQLDirectory(Tenant, floor_ttl_s=0.0)
    directory.bind(engine)
    directory.close()  # it never listens, so that with no floor nothing is remembered
    chosen = random.Random(count)

    def call(_number: int) -> None:
        assert directory.find(Reference("slug", f"made-{chosen.randint(1, count)}")) is not None

    return call


def _actor() -> Actor:
    return Actor(ActorKind.SYSTEM, "benchmark", "benchmark")


# Making -----------------------------------------------------------------------------------------------


def _made(bench: Bench) -> Row:
    """Return how many tenants a second the workers make, each way."""
    bench.built("registry_made", _build)
    urls = [bench.socket_url(role, "registry_made") for role in (ROLES.app, ROLES.platform)]
    context = multiprocessing.get_context("spawn")
    rates: dict[str, list[float]] = {AT_ONCE: [], APART: []}
    with ExitStack() as stack:
        stack.enter_context(_unpinned(bench))
        lines: list[Connection] = []
        for _ in range(WORKERS):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(theirs, urls, bench.cores), daemon=True)
            worker.start()
            theirs.close()
            stack.callback(worker.join, 30)
            stack.callback(ours.close)  # the first of the two: it ends the worker
            lines.append(ours)
        for way in rates:
            _ask(lines, way, WORKERS * 10)  # warm
        for _ in range(BATCHES):
            for way, found in rates.items():
                count = bench.rounds(A_BATCH)
                found.append(count / _ask(lines, way, count))
    base = Spread.of(rates[APART])
    figures = (
        Figure(APART, base),
        Figure(AT_ONCE, Spread.of(rates[AT_ONCE]), Spread.of([rate / base.median for rate in rates[AT_ONCE]])),
    )
    goals = (Goal(AT_ONCE, at_least=100, by="value"), Goal(APART, at_least=100, by="value"))
    return Row(f"made by {WORKERS} workers", "tenants/s", APART, figures, goals, better="higher")


@contextmanager
def _unpinned(bench: Bench) -> Iterator[None]:
    """Let the server's new processes, and this one, run on all cores."""
    data_dir = bench.server.data_dir
    if data_dir is not None:
        postmaster = int((data_dir / "cluster" / "postmaster.pid").read_text().split()[0])
        os.sched_setaffinity(postmaster, set(bench.cores))
    try:
        yield
    finally:
        pin(bench.server)


def _ask(lines: list[Connection], way: str, count: int) -> float:
    """Have the workers make so many tenants between them; return how many seconds it took."""
    begun = time.monotonic()
    for number, line in enumerate(lines):
        line.send((way, count // len(lines) + (number < count % len(lines))))
    for line in lines:
        line.recv()
    return time.monotonic() - begun


def _work(line: Connection, urls: list[str], cores: list[int]) -> None:
    os.sched_setaffinity(0, set(cores))
    app = _app(*urls)
    registrar: Registrar = app.extensions[EXTENSION]
    ways = {AT_ONCE: _make_at_once, APART: _make_apart}
    with app.app_context(), acting_as(_actor()):
        while True:
            try:
                way, count = line.recv()
            except EOFError:  # nothing more is wanted
                break
            for _ in range(count):
                unique = uuid7().hex
                given: dict[str, Any] = {"slug": f"org-{unique}", "owner_email": f"{unique}@bench.test"}
                ways[way](registrar, given)
            line.send(None)
    close_app(app)


def _make_at_once(registrar: Registrar, given: dict[str, Any]) -> None:
    tenant, _ = make_tenant(registrar, name="Org", plan="basic", reason=_REASON, **given)
    assert tenant.status == "active"


def _make_apart(registrar: Registrar, given: dict[str, Any]) -> None:
    tenant = create_tenant(registrar, name="Org", plan="basic", reason=_REASON, **given)
    assert all(step.state == "done" for step in provision(registrar, tenant.id, reason=_REASON))


PART = Part("registry", "The registry of tenants", HOW, rows=5, run=run)
