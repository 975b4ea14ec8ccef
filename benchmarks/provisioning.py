"""How many tenants a second come to life through the operation: python -m benchmarks.provisioning --tenants 1000.

Each is created and provisioned as staff would, in two transactions, by workers that are processes of their own. The
owner's invitation is not part of it: the steps find nobody to invite. Commits wait for the disk as the server is set.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from app import close_app, create_app
from app.audit.actors import Actor, ActorKind, acting_as
from app.config import development_settings
from app.development import upgrade_database
from app.tenants.provisioning import create_tenant, provision
from app.tenants.registrar import EXTENSION
from tenancy.embedded import start
from tenancy.rls import Roles, bootstrap_sql

ROLES = Roles()
_DATABASE = "provisioning"
_REASON = "a measurement"


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="provisioning-") as folder, start(Path(folder) / "postgres") as server:
        _prepare(server.url(), server.url(database=_DATABASE))
        upgrade_database(server.url(role=ROLES.migrator, database=_DATABASE))
        urls = server.url(role=ROLES.app, database=_DATABASE), server.url(role=ROLES.platform, database=_DATABASE)
        taken_s = _measure(urls, Path(folder), tenants=asked.tenants, workers=asked.workers)
    print(f"{asked.tenants} tenants, {asked.workers} workers: {taken_s:.2f} s, {asked.tenants / taken_s:.0f} a second")


def _prepare(admin_url: str, url: str) -> None:
    admin = create_engine(admin_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {_DATABASE}"))
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for statement in bootstrap_sql(ROLES, _DATABASE):
            connection.execute(text(statement))


def _measure(urls: tuple[str, str], folder: Path, *, tenants: int, workers: int) -> float:
    context = multiprocessing.get_context("spawn")
    ready, go = context.Barrier(workers + 1), context.Event()
    share = [tenants // workers + (number < tenants % workers) for number in range(workers)]
    processes = [context.Process(target=_work, args=(urls, folder, count, ready, go)) for count in share]
    for process in processes:
        process.start()
    ready.wait(timeout=60)
    began = time.monotonic()
    go.set()
    for process in processes:
        process.join()
    taken_s = time.monotonic() - began
    if any(process.exitcode for process in processes):
        raise SystemExit("a worker failed")
    return taken_s


def _work(urls: tuple[str, str], folder: Path, count: int, ready: object, go: object) -> None:
    settings = development_settings(
        database_url=urls[0], platform_database_url=urls[1], storage_url=(folder / "files").as_uri()
    )
    app = create_app(settings)
    office = app.extensions[EXTENSION]
    with app.app_context(), acting_as(Actor(ActorKind.SYSTEM, "benchmark", "benchmark")):
        _make(office)  # what is opened once
        ready.wait()  # type: ignore[attr-defined]
        go.wait()  # type: ignore[attr-defined]
        for _ in range(count):
            _make(office)
    close_app(app)


def _make(office: object) -> None:
    made = create_tenant(office, name="Org", plan="basic", slug=f"org-{uuid7().hex}", reason=_REASON)  # type: ignore[arg-type]
    provision(office, made.id, reason=_REASON)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
