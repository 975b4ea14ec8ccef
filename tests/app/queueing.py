"""A queue of a test's own: tasks that note what happened, and workers that run until nothing waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID, uuid4

from flask import Flask
from pydantic import SecretStr

from app.config import Settings
from app.db import open_database
from app.queue import asking
from app.queue.asking import EXTENSION, Queue
from app.queue.tasks import PlatformTask, Task
from app.queue.worker import JobWorker
from app.tenants.models import Domain, Tenant
from tenancy.context import tenant_scope
from tenancy.directory import SQLDirectory
from tenancy.embedded import Template
from tests.conftest import ROLES, Database


def give_tasks(app: Flask, *tasks: Task | PlatformTask) -> Queue:
    """Let the application know these tasks besides its own."""
    found: Queue = app.extensions[EXTENSION]
    app.extensions[EXTENSION] = made = replace(found, tasks={**found.tasks, **{task.name: task for task in tasks}})
    return made


@contextmanager
def working(app: Flask) -> Iterator[JobWorker]:
    worker = JobWorker(app)
    thread = threading.Thread(target=worker.run, kwargs={"is_main": False})
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


def eventually(claim: Callable[[], object], *, within_s: float = 15) -> None:
    """Wait until the claim holds."""
    until = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < until, "it did not come to pass in time"
        time.sleep(0.02)


def statuses(database: Database, tenant_id: UUID) -> list[tuple[str, str, int]]:
    """Queue, status and attempts of each job of the tenant, in order of their asking."""
    with database.connect("postgres") as truth:
        return truth.execute(
            "SELECT queue_name, status::text, attempts FROM jobs.procrastinate_jobs WHERE tenant = %s ORDER BY id",
            [tenant_id],
        ).fetchall()  # type: ignore[return-value]


@contextmanager
def queueing_app(
    template: Template, make_settings: Callable[..., Settings], **given: object
) -> Iterator[tuple[Flask, Settings, Database]]:
    """An application on a database of its own, so that its workers meet no other test's jobs."""
    database = Database(template.server, template.clone(f"queue_{uuid4().hex[:12]}"))
    settings = make_settings(**given).model_copy(
        update={
            "database_url": SecretStr(database.url(ROLES.app)),
            "platform_database_url": SecretStr(database.url(ROLES.platform)),
        }
    )
    opened = open_database(settings)
    directory = SQLDirectory(Tenant, domains=Domain)
    directory.bind(opened.engine)
    app = Flask("queueing")
    asking.init_app(app, settings, opened, directory, ())
    try:
        yield app, settings, database
    finally:
        directory.close()
        opened.close()


def add_tenant(app: Flask, *, status: str = "active") -> UUID:
    """Add a tenant in the state."""
    tenant_id = uuid4()
    found: Queue = app.extensions[EXTENSION]
    with tenant_scope(tenant_id), found.database.sessions.begin() as session:
        session.add(Tenant(id=tenant_id, slug=f"a{tenant_id.hex}", name="Acme", plan="basic", status=status))
    return tenant_id


def set_status(database: Database, tenant_id: UUID, status: str) -> None:
    """Change a tenant's state past every policy; the directory is told as ever."""
    with database.connect("postgres") as truth:
        truth.execute("UPDATE tenants SET status = %s WHERE tenant_id = %s", [status, tenant_id])
