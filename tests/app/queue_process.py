"""A worker as a process of its own, whose task tells where it is and then takes its time."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from flask import Flask

from app.config import Settings
from app.crm.models import Company
from app.db import open_database
from app.queue import Job, Retry, asking, task
from app.queue.asking import Queue
from app.queue.tasks import JobInterrupted, Task
from app.queue.worker import work
from app.tenants.models import Domain, Tenant
from tenancy.directory import SQLDirectory


def slow_task(folder: Path) -> Task:
    """Write a row, say `started`, wait for the file `go`, and commit."""

    @task(name="slow.write", retry=Retry(times=0))
    def write(job: Job, *, patient: bool = True) -> None:
        with job.database.sessions.begin() as session:
            session.add(Company(name=f"attempt {len(list(folder.glob('started-*'))) + 1}"))
            session.flush()
            (folder / f"started-{time.monotonic_ns()}").touch()
            while not (folder / "go").exists():
                if not patient and job.is_stopping():
                    raise JobInterrupted
                time.sleep(0.02)

    return write


def open_app(settings: Settings, folder: Path) -> Flask:
    database = open_database(settings)
    directory = SQLDirectory(Tenant, domains=Domain)
    directory.bind(database.engine)
    app = Flask("worker")
    asking.init_app(app, settings, database, directory, [slow_task(folder)])
    return app


def main(folder: Path, document: str) -> None:
    app = open_app(Settings.model_validate_json(document), folder)
    try:
        work(app)
    finally:
        found: Queue = app.extensions["queue"]
        found.directory.close()  # type: ignore[attr-defined]
        found.database.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin.read())
