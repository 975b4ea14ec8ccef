"""Running one job: who it is for is verified, and looked up, before its function sees anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.audit.actors import Actor, ActorKind, acting_as
from app.queue.asking import Queue, read_actor
from app.queue.tables import PLATFORM
from app.queue.tasks import Job, PlatformTask, Task
from tenancy.context import outside_any_scope, platform_scope, tenant_scope
from tenancy.errors import EnvelopeRefusedError
from tenancy.jobs import Carried, check_standing


@dataclass(frozen=True)
class Taken:
    """A job as a worker took it. tenant: as the queue has it; what the envelope says must agree."""

    id: int
    task_name: str
    tenant: UUID
    attempts: int
    args: Mapping[str, Any] = field(repr=False)


def run_job(queue: Queue, taken: Taken, *, is_stopping: Callable[[], bool] = lambda: False) -> None:
    """Call the task's function, in the scope the job was asked for in.

    Raises: EnvelopeRefusedError, ParkedJobError, DiscardedJobError, DirectoryError - it was not called;
    whatever the function raises.
    """
    task = queue.tasks.get(taken.task_name)
    if task is None:
        raise EnvelopeRefusedError(f"no task is called {taken.task_name!r}", hint="add it to TASKS in app/jobs.py")
    carried = _open(queue, task, taken)
    asked_by = read_actor(carried.actor) if carried and carried.actor else None
    payload = json.loads(taken.args["payload"]) if carried else {}
    job = Job(
        id=taken.id,
        task_name=task.name,
        tenant_id=carried.tenant if carried else None,
        attempt=taken.attempts + 1,
        asked_by=asked_by,
        database=queue.database,
        directory=queue.directory,
        is_stopping=is_stopping,
    )
    with outside_any_scope(), acting_as(_actor(task, taken, asked_by)), _scope(queue, task, carried):
        task.function(job, **payload)


def _open(queue: Queue, task: Task | PlatformTask, taken: Taken) -> Carried | None:
    """Return what the envelope says; None when the clock asked, which writes none.

    The clock's jobs are of the platform, and only the platform's login can add such.
    """
    is_platform = taken.tenant == PLATFORM
    if isinstance(task, PlatformTask) and is_platform and task.cron and taken.args.keys() == {"timestamp"}:
        return None
    carried = queue.carrier.open(taken.args.get("envelope"), task=task.name, arguments=taken.args.get("payload"))
    is_fitting = carried.tenant == (None if is_platform else taken.tenant)
    if not is_fitting or isinstance(task, PlatformTask) != is_platform:
        raise EnvelopeRefusedError(
            f"job {taken.id} of {task.name!r} is queued for tenant {taken.tenant!r}, and its envelope says otherwise",
            hint="discard the job, and find out who wrote to the queue",
        )
    return carried


def _actor(task: Task | PlatformTask, taken: Taken, asked_by: Actor | None) -> Actor:
    label = f"job {taken.id}" if asked_by is None else f"job {taken.id}, asked for by {asked_by.label}"
    return Actor(
        kind=ActorKind.JOB,
        id=task.name,
        label=label,
        impersonator=asked_by.impersonator if asked_by else None,
        request_id=asked_by.request_id if asked_by else None,
    )


@contextmanager
def _scope(queue: Queue, task: Task | PlatformTask, carried: Carried | None) -> Iterator[None]:
    if isinstance(task, Task) and carried is not None and carried.tenant is not None:
        check_standing(queue.directory, carried.tenant, served=task.served)
        with tenant_scope(carried.tenant, carried.account):
            yield
    else:
        with platform_scope(actor=f"job {task.name}", reason=f"job {task.name}", reads_only=False):
            yield
