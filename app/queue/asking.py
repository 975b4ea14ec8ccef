"""Asking for jobs: in the transaction of what they follow from, so that both are there or neither."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from flask import Flask, current_app
from pydantic import SecretStr
from sqlalchemy import DateTime, Integer, Text, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.audit.actors import Actor, ActorKind, current_actor, require_actor
from app.config import Settings
from app.db import Database
from app.queue.tables import DEFAULT_QUEUE, PARKED_QUEUE, PLATFORM, JobStatus, jobs, turns
from app.queue.tasks import PlatformTask, Task
from tenancy.directory import Directory
from tenancy.errors import EnvelopeRefusedError
from tenancy.jobs import Carrier
from tenancy.session import PlatformSession, TenantSession

EXTENSION = "queue"
# Far longer than a job waits for its turn; one that was parked is given a new envelope when it is resumed.
_ENVELOPE_LIFE_S = 30 * 86_400
_LARGEST_PAYLOAD_BYTES = 65_536


@dataclass(frozen=True)
class Queue:
    """What asking for jobs and running them takes, put together once by `create_app`."""

    tasks: Mapping[str, Task | PlatformTask]
    carrier: Carrier
    database: Database
    directory: Directory
    settings: Settings


def init_app(
    app: Flask, settings: Settings, database: Database, directory: Directory, tasks: Iterable[Task | PlatformTask]
) -> None:
    """Let the application ask for these tasks."""
    app.extensions[EXTENSION] = open_queue(settings, database, directory, tasks)


def open_queue(
    settings: Settings, database: Database, directory: Directory, tasks: Iterable[Task | PlatformTask]
) -> Queue:
    """Put the queue together. Its envelopes are sealed with keys derived from those of the tokens.

    Raises: ValueError - two tasks have one name.
    """
    known: dict[str, Task | PlatformTask] = {}
    for one in tasks:
        if known.setdefault(one.name, one) is not one:
            raise ValueError(f"two tasks are called {one.name!r}")
    keys = {kid: derived_key(key) for kid, key in settings.jwt_keys.items()}
    carrier = Carrier(keys, signing=settings.jwt_signing_kid, life_s=_ENVELOPE_LIFE_S)
    return Queue(known, carrier, database, directory, settings)


def derived_key(key: SecretStr) -> bytes:
    """Return the key for envelopes that belongs to a key for tokens."""
    return hmac.digest(key.get_secret_value().encode(), b"app.queue", sha256)


def queue() -> Queue:
    """Return the queue of the current application."""
    found = current_app.extensions[EXTENSION]
    if not isinstance(found, Queue):
        raise TypeError(f"extension {EXTENSION!r} is {type(found).__name__}, not a Queue")
    return found


def enqueue(
    session: TenantSession,
    task: Task,
    /,
    *,
    once: str | None = None,
    run_at: datetime | None = None,
    priority: int | None = None,
    **payload: Any,
) -> int | None:
    """Ask for a job of the session's tenant; it is there when the session commits, and runs after that.

    once: while a job of this tenant and task that was asked for by this word waits, ask for no second one.
    run_at: not before then. priority: None for the task's own. payload: JSON; ids rather than contents, since
    it is kept outside the tenant's tables.
    Returns: the job's id; None when one is waiting already.
    Raises: LookupError - the task is not in `app/jobs.py`. TypeError - the payload does not fit its function, or
    is not JSON. ValueError - it is larger than 64 KiB. NoTenantError - the session has no tenant.
    """
    session.check_scope()
    text = _text_of(task, payload)
    actor = current_actor()
    envelope = queue().carrier.carry(task.name, arguments=text, actor=_written(actor) if actor else None)
    asked = select(
        func.jobs.enqueue(
            bindparam("task", task.name, Text()),
            bindparam("args", {"envelope": envelope, "payload": text}, JSONB()),
            bindparam("priority", task.priority if priority is None else priority, Integer()),
            bindparam("once", None if once is None else f"{task.name}:{once}", Text()),
            bindparam("run_at", run_at, DateTime(timezone=True)),
        )
    )
    job_id: int | None = session.execute(asked).scalar_one()
    return job_id


def enqueue_platform(
    session: PlatformSession, task: PlatformTask, /, *, run_at: datetime | None = None, **payload: Any
) -> int:
    """Ask for a job of the platform, in a writing platform session; somebody must be named as acting.

    Returns: the job's id. Raises: as `enqueue`; RuntimeError - nobody is named as acting.
    """
    session.check_scope()
    text = _text_of(task, payload)
    envelope = queue().carrier.carry_for_platform(task.name, arguments=text, actor=_written(require_actor()))
    values = {
        "tenant": PLATFORM,
        "queue_name": DEFAULT_QUEUE,
        "task_name": task.name,
        "priority": task.priority,
        "args": {"envelope": envelope, "payload": text},
        "scheduled_at": run_at,
    }
    job_id: int = session.execute(jobs.insert().values(values).returning(jobs.c.id)).scalar_one()
    return job_id


def resume_parked(session: Session, tenant_id: UUID, *, carrier: Carrier | None = None) -> int:
    """Put back into the queue what was parked while the tenant was not served; returns how many jobs.

    session: of the platform role, in the transaction that lets the tenant be served again.
    carrier: None for the current application's. A job whose envelope it does not know is left to fail.
    """
    carrier = carrier or queue().carrier
    parked = select(jobs.c.id, jobs.c.task_name, jobs.c.args).where(
        jobs.c.tenant == tenant_id, jobs.c.queue_name == PARKED_QUEUE, jobs.c.status == JobStatus.TODO
    )
    rows = session.execute(parked.order_by(jobs.c.id).with_for_update(skip_locked=True)).all()
    for row in rows:
        session.execute(
            update(jobs)
            .where(jobs.c.id == row.id)
            .values(
                args=renewed(carrier, row.task_name, row.args),
                queue_name=DEFAULT_QUEUE,
                scheduled_at=None,
                # Parking counted as an attempt, and was none.
                attempts=func.greatest(jobs.c.attempts - 1, 0),
            )
        )
    return len(rows)


def remove_jobs(session: Session, tenant_id: UUID) -> int:
    """Remove every job of a tenant that does not run at this moment, with what it carries; returns how many.

    session: of the platform role, writing; for the tenant's erasure.
    """
    gone = delete(jobs).where(jobs.c.tenant == tenant_id, jobs.c.status != JobStatus.DOING).returning(jobs.c.id)
    removed = len(session.execute(gone).all())
    session.execute(delete(turns).where(turns.c.tenant == tenant_id))
    return removed


def read_actor(written: str) -> Actor:
    """Return who asked, as `enqueue` wrote it down."""
    fields = json.loads(written)
    return Actor(**(fields | {"kind": ActorKind(fields["kind"])}))


def _written(actor: Actor) -> str:
    return json.dumps(asdict(actor))


def renewed(carrier: Carrier, task_name: str, args: dict[str, Any]) -> dict[str, Any]:
    """Return what a job carries with a new envelope; as it is when the old one was never good, and is to be refused."""
    try:
        envelope = carrier.renew(args.get("envelope"), task=task_name, arguments=args.get("payload"))
    except EnvelopeRefusedError:
        return args
    return args | {"envelope": envelope}


def _text_of(task: Task | PlatformTask, payload: Mapping[str, Any]) -> str:
    """Return the payload as the text that is signed and kept: as JSONB its numbers would come back otherwise."""
    if queue().tasks.get(task.name) is not task:
        raise LookupError(f"no worker knows task {task.name!r}: add it to TASKS in app/jobs.py")
    task.check_payload(payload)
    text = json.dumps(payload, sort_keys=True, allow_nan=False)
    if len(text.encode()) > _LARGEST_PAYLOAD_BYTES:
        raise ValueError(f"the payload of {task.name!r} is larger than {_LARGEST_PAYLOAD_BYTES} bytes: pass an id")
    return text
