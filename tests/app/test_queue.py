"""Jobs: asked for in the transaction of what they follow from, run in its tenant's scope, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import select, text
from sqlalchemy.exc import ProgrammingError

from app.audit.actors import Actor, ActorKind, acting_as, current_actor
from app.config import Settings
from app.crm.models import Company
from app.queue import Job, Retry, enqueue, enqueue_platform, platform_task, resume_parked, task
from app.queue.asking import Queue
from app.queue.running import Taken, run_job
from app.queue.tables import PLATFORM
from tenancy.context import current_scope, platform_scope, tenant_scope
from tenancy.embedded import Template
from tenancy.errors import EnvelopeRefusedError
from tests.app.queueing import add_tenant, eventually, give_tasks, queueing_app, set_status, statuses, working
from tests.conftest import ROLES, Database

ANA = Actor(ActorKind.ACCOUNT, "a-1", "ana@acme.test", request_id="r-1")


@dataclass
class Notes:
    """What tasks saw, and what they are to do."""

    seen: list[tuple[UUID | None, Any]] = field(default_factory=list)
    actors: list[Actor | None] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Place:
    app: Flask
    settings: Settings
    database: Database
    queue: Queue
    notes: Notes

    def run(self) -> None:
        """Work until nothing waits that may run now."""
        with working(self.app):
            eventually(self._is_quiet)

    def _is_quiet(self) -> bool:
        with self.database.connect("postgres") as truth:
            row = truth.execute(
                "SELECT count(*) FROM jobs.procrastinate_jobs WHERE status = 'doing' OR status = 'todo'"
                " AND queue_name <> 'parked' AND coalesce(scheduled_at, now()) <= now()"
            ).fetchone()
        return row == (0,)


@pytest.fixture
def place(app_template: Template, make_settings: Callable[..., Settings]) -> Iterator[Place]:
    notes = Notes()

    @task(name="notes.add", retry=Retry(times=1, wait=timedelta()))
    def add(job: Job, *, word: str) -> None:
        scope = current_scope()
        with notes.lock:
            notes.seen.append((scope.tenant if scope else None, word))
            notes.actors.append(current_actor())
            if notes.failures:
                raise notes.failures.pop()

    @task(name="companies.add")
    def add_company(job: Job, *, name: str) -> None:
        with job.database.sessions.begin() as session:
            session.add(Company(name=name))

    @platform_task(name="platform.note")
    def note(job: Job, *, word: str) -> None:
        scope = current_scope()
        assert scope is not None
        assert scope.platform is not None
        notes.seen.append((scope.tenant, f"{word}, as {scope.platform.actor}"))

    with queueing_app(app_template, make_settings) as (app, settings, database):
        queue = give_tasks(app, add, add_company, note)
        with app.app_context():
            yield Place(app, settings, database, queue, notes)


def ask(place: Place, tenant_id: UUID, name: str = "notes.add", /, **given: Any) -> int | None:
    found = place.queue.tasks[name]
    with tenant_scope(tenant_id), place.queue.database.sessions.begin() as session:
        return enqueue(session, found, **given)  # type: ignore[arg-type]


def test_job_runs_in_the_scope_of_the_tenant_that_asked(place: Place) -> None:
    acme, globex = add_tenant(place.app), add_tenant(place.app)
    ask(place, acme, "companies.add", name="Of Acme")
    ask(place, globex, "companies.add", name="Of Globex")

    place.run()

    for tenant_id, name in ((acme, "Of Acme"), (globex, "Of Globex")):
        with tenant_scope(tenant_id), place.queue.database.sessions() as session:
            assert session.scalars(select(Company.name)).all() == [name]


def test_job_is_there_only_when_its_transaction_commits(place: Place) -> None:
    acme = add_tenant(place.app)
    with tenant_scope(acme), place.queue.database.sessions() as session:
        enqueue(session, place.queue.tasks["notes.add"], word="never")  # type: ignore[arg-type]
        session.rollback()

    assert statuses(place.database, acme) == []
    ask(place, acme, word="once")
    assert statuses(place.database, acme) == [("default", "todo", 0)]


def test_job_acts_as_itself_and_keeps_who_asked(place: Place) -> None:
    acme = add_tenant(place.app)
    with acting_as(ANA):
        job_id = ask(place, acme, word="x")

    place.run()

    assert place.notes.actors == [
        Actor(ActorKind.JOB, "notes.add", f"job {job_id}, asked for by ana@acme.test", request_id="r-1")
    ]


def test_job_asked_for_by_the_same_word_waits_once(place: Place) -> None:
    acme, globex = add_tenant(place.app), add_tenant(place.app)

    first, second = ask(place, acme, word="x", once="w"), ask(place, acme, word="x", once="w")
    theirs = ask(place, globex, word="x", once="w")

    assert first is not None
    assert second is None
    assert theirs is not None


def test_failed_job_is_tried_again_and_then_given_up(place: Place) -> None:
    acme = add_tenant(place.app)
    place.notes.failures[:] = [ValueError("1"), ValueError("2"), ValueError("3")]
    ask(place, acme, word="x")

    place.run()

    assert len(place.notes.seen) == 2
    assert statuses(place.database, acme) == [("default", "failed", 2)]


def test_job_is_not_run_before_its_time(place: Place) -> None:
    acme = add_tenant(place.app)
    ask(place, acme, word="later", run_at=datetime.now(UTC) + timedelta(hours=1))
    ask(place, acme, word="now")

    place.run()

    assert place.notes.seen == [(acme, "now")]


def test_job_of_higher_priority_goes_first_among_its_tenants_own(place: Place) -> None:
    acme = add_tenant(place.app)
    ask(place, acme, word="low")
    ask(place, acme, word="high", priority=5)

    settings = place.queue.settings.model_copy(update={"job_tenant_concurrency": 1})
    place.app.extensions["queue"] = replace(place.queue, settings=settings)
    place.run()

    assert place.notes.seen == [(acme, "high"), (acme, "low")]


def test_job_of_suspended_tenant_is_parked_and_runs_once_it_is_active_again(place: Place) -> None:
    acme = add_tenant(place.app, status="suspended")
    ask(place, acme, word="x")

    place.run()

    assert place.notes.seen == []
    assert statuses(place.database, acme) == [("parked", "todo", 1)]
    set_status(place.database, acme, "active")
    resume(place, acme)
    place.run()
    assert place.notes.seen == [(acme, "x")]
    assert statuses(place.database, acme) == [("default", "succeeded", 1)]


def resume(place: Place, tenant_id: UUID) -> None:
    with (
        platform_scope(actor="ana", reason="resumed"),
        tenant_scope(tenant_id),
        place.queue.database.staff_sessions.begin() as session,
    ):
        resume_parked(session, tenant_id)


@pytest.mark.parametrize("status", ["deleting", "deleted"])
def test_job_of_tenant_that_is_gone_is_discarded(place: Place, status: str) -> None:
    acme = add_tenant(place.app, status=status)
    ask(place, acme, word="x")

    place.run()

    assert place.notes.seen == []
    assert statuses(place.database, acme) == [("default", "failed", 1)]


def test_platform_job_runs_in_a_platform_scope_of_its_name(place: Place) -> None:
    with (
        acting_as(ANA),
        platform_scope(actor="ana", reason="test", reads_only=False),
        place.queue.database.platform_sessions.begin() as session,
    ):
        enqueue_platform(session, place.queue.tasks["platform.note"], word="x")  # type: ignore[arg-type]

    place.run()

    assert (None, "x, as job platform.note") in place.notes.seen


@pytest.mark.parametrize(
    "change",
    [
        'args = jsonb_set(args, \'{payload}\', \'"{\\"word\\": \\"y\\"}"\')',
        "args = args - 'envelope'",
        "args = jsonb_set(args, '{envelope}', to_jsonb(reverse(args->>'envelope')))",
        "task_name = 'companies.add'",
        "tenant = '00000000-0000-0000-0000-000000000000'",
        "args = '{}'",
    ],
)
def test_altered_job_is_refused(place: Place, change: str) -> None:
    """T120"""
    acme = add_tenant(place.app)
    job_id = ask(place, acme, word="x")
    with place.database.connect("postgres") as truth:
        truth.execute(f"UPDATE jobs.procrastinate_jobs SET {change} WHERE id = %s", [job_id])  # type: ignore[arg-type]

    place.run()

    assert place.notes.seen == []
    assert status_of(place, job_id) == "failed"


def test_job_moved_to_another_tenant_is_refused(place: Place) -> None:
    """T120"""
    acme, globex = add_tenant(place.app), add_tenant(place.app)
    job_id = ask(place, acme, word="x")
    with place.database.connect("postgres") as truth:
        truth.execute("UPDATE jobs.procrastinate_jobs SET tenant = %s WHERE id = %s", [globex, job_id])

    place.run()

    assert place.notes.seen == []
    assert status_of(place, job_id) == "failed"


def status_of(place: Place, job_id: int | None) -> str:
    with place.database.connect("postgres") as truth:
        row = truth.execute("SELECT status::text FROM jobs.procrastinate_jobs WHERE id = %s", [job_id]).fetchone()
    assert row is not None
    return str(row[0])


def test_platform_task_asked_for_by_a_tenant_is_refused(place: Place) -> None:
    """T120: the app role can add rows for its tenant by SQL, and names a task of the platform."""
    acme = add_tenant(place.app)
    taken = Taken(1, "platform.note", acme, 0, {"timestamp": 1})
    with tenant_scope(acme):
        envelope = place.queue.carrier.carry("platform.note", arguments='{"word": "x"}')
    sealed = Taken(2, "platform.note", acme, 0, {"envelope": envelope, "payload": '{"word": "x"}'})

    for one in (taken, sealed):
        with pytest.raises(EnvelopeRefusedError):
            run_job(place.queue, one)

    assert place.notes.seen == []


def test_unsigned_job_counts_as_the_clocks_only_for_periodic_tasks_of_the_platform(place: Place) -> None:
    """T120"""
    with pytest.raises(EnvelopeRefusedError):
        run_job(place.queue, Taken(1, "platform.note", PLATFORM, 0, {"timestamp": 1}))

    assert place.notes.seen == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM jobs.procrastinate_jobs",
        "UPDATE jobs.procrastinate_jobs SET status = 'cancelled'",
        "DELETE FROM jobs.procrastinate_jobs",
        "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name) VALUES ('default', 'x.y')",
        "SELECT * FROM jobs.procrastinate_events",
        "SELECT * FROM jobs.turns",
        "SELECT jobs.take_job_in_turn(1, 9)",
        "SELECT jobs.procrastinate_cancel_job_v1(1, true, true)",
        "SELECT jobs.procrastinate_defer_jobs_v1('{}')",
        "SELECT nextval('jobs.procrastinate_jobs_id_seq')",
    ],
)
def test_app_role_reaches_nothing_of_the_queue_but_asking(place: Place, statement: str) -> None:
    acme = add_tenant(place.app)
    ask(place, acme, word="x")

    with tenant_scope(acme), place.queue.database.sessions() as session, pytest.raises(ProgrammingError) as refused:
        session.execute(text(statement))

    assert "permission denied" in str(refused.value)
    assert statuses(place.database, acme) == [("default", "todo", 0)]


def test_asking_by_plain_sql_needs_a_tenant(place: Place) -> None:
    with place.database.connect(ROLES.app) as plain, pytest.raises(Exception, match="no tenant is bound"):
        plain.execute("SELECT jobs.enqueue('notes.add', '{}', 0, NULL, NULL)")


@pytest.mark.parametrize("payload", [{}, {"word": "x", "more": 1}, {"other": "x"}])
def test_payload_that_does_not_fit_the_function_is_refused_when_asked(place: Place, payload: dict[str, Any]) -> None:
    acme = add_tenant(place.app)

    with pytest.raises(TypeError):
        ask(place, acme, **payload)

    assert statuses(place.database, acme) == []


def test_payload_that_is_no_json_or_too_large_is_refused_when_asked(place: Place) -> None:
    acme = add_tenant(place.app)

    with pytest.raises(TypeError):
        ask(place, acme, word=acme)
    with pytest.raises(ValueError, match="larger than 65536 bytes"):
        ask(place, acme, word="x" * 70_000)

    assert statuses(place.database, acme) == []


def test_task_that_no_worker_knows_is_refused_when_asked(place: Place) -> None:
    acme = add_tenant(place.app)

    @task(name="notes.unknown")
    def unknown(job: Job) -> None: ...

    with (
        tenant_scope(acme),
        place.queue.database.sessions.begin() as session,
        pytest.raises(LookupError, match=r"no worker knows task 'notes\.unknown'"),
    ):
        enqueue(session, unknown)


@pytest.mark.parametrize("name", ["rollup", "Usage.rollup", "usage.rollup; drop", "", "a." + "b" * 120])
def test_name_of_a_task_is_noun_and_verb(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a task"):
        task(name=name)
