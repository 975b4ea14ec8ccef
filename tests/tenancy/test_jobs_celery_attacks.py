"""Who can write to the broker, and has no key, gets nothing signed by a worker that has one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, Task
from celery.contrib.testing.worker import start_worker

from tenancy import tenant_scope
from tenancy.jobs import Carrier
from tenancy.jobs.celery import tenant_task
from tests.tenancy.directories import ACME, GLOBEX, ListedDirectory

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


class Post:
    """A Celery application with a task of tenants' and a plain one, as the built-in ones of Celery's are."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.ran = threading.Event()
        carrier = Carrier({"k": b"k" * 32}, signing="k")
        self.celery = Celery(
            "post",
            broker="memory://",
            backend="cache+memory://",
            task_cls=tenant_task(carrier, ListedDirectory(ACME, GLOBEX)),
            set_as_current=False,
        )
        self.celery.conf.update(task_default_queue=uuid4().hex, worker_hijack_root_logger=False)

        @self.celery.task(name="post.send", shared=False)
        def send(word: str) -> None:
            self.seen.append(word)

        @self.celery.task(name="post.plain", base=Task, shared=False)
        def plain() -> str:
            self.ran.set()
            return "from a plain task"

        self.send, self.plain = send, plain


@pytest.fixture(scope="module")
def post() -> Iterator[Post]:
    made = Post()
    with start_worker(made.celery, pool="solo", perform_ping_check=False, shutdown_timeout=20):
        yield made


def test_header_of_a_message_names_no_tenant_to_sign_for(post: Post) -> None:
    """T120: the callback of a plain task would be sealed for whatever tenant its message claims to have run for."""
    with tenant_scope(GLOBEX.id):
        post.send.delay("asked for by globex")
    forged: dict[str, Any] = {"tenancy_ids": [GLOBEX.id, None]}

    post.plain.apply_async(link=post.send.s(), headers=forged)

    assert post.ran.wait(15)
    until = time.monotonic() + 1
    while time.monotonic() < until and len(post.seen) < 2:
        time.sleep(0.02)
    assert post.seen == ["asked for by globex"]
