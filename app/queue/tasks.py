"""Tasks: functions that can be asked for by name. Defining one registers nothing; `app/jobs.py` lists them all."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from app.audit.actors import Actor
from app.db import Database
from tenancy.directory import Directory
from tenancy.jobs.running import SERVED

# What `enqueue` takes itself; a task's own parameters need other names.
RESERVED = frozenset({"once", "run_at", "priority"})
_LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True)
class Retry:
    """How often a failed job is tried again, and after how long: `wait`, then twice that, four times that, to an hour.

    times: 0 for never.
    """

    times: int = 5
    wait: timedelta = timedelta(seconds=10)

    def after(self, attempts: int) -> timedelta | None:
        """Return how long to wait after the failure of the attempt with this number, from 0; None to give up."""
        if attempts >= self.times:
            return None
        return min(self.wait * (1 << min(attempts, 30)), _LONGEST_WAIT)


@dataclass(frozen=True)
class Job:
    """One run of a task, as its function gets it.

    tenant_id: None in a platform task. attempt: counts from 1. asked_by: None when the clock asked.
    is_stopping: tells whether the worker has been asked to stop; a long job may then raise `JobInterrupted`.
    """

    id: int
    task_name: str
    tenant_id: UUID | None
    attempt: int
    asked_by: Actor | None
    database: Database
    directory: Directory
    is_stopping: Callable[[], bool] = field(repr=False)


class JobInterrupted(Exception):  # noqa: N818  (nothing went wrong)
    """Raised by a long job that was asked to stop: what it committed stays, and it runs again from the queue."""


@dataclass(frozen=True)
class _AnyTask:
    name: str
    function: Callable[..., None] = field(repr=False)
    priority: int
    retry: Retry

    def check_payload(self, payload: Mapping[str, Any]) -> None:
        """Refuse arguments that the function does not take.

        Raises: TypeError - as calling it would.
        """
        inspect.signature(self.function).bind(None, **payload)


@dataclass(frozen=True)
class Task(_AnyTask):
    """A task of tenants: it runs in the scope of the one that asked.

    served: the states of a tenant in which it runs; in others the job is parked or discarded.
    """

    served: frozenset[str] = SERVED


@dataclass(frozen=True)
class PlatformTask(_AnyTask):
    """A task of no tenant: it runs in a writing platform scope, in the name of the task.

    cron: when the clock asks for it, in UTC; None for never.
    """

    cron: str | None = None


def task(
    *, name: str, priority: int = 0, retry: Retry | None = None, served: frozenset[str] = SERVED
) -> Callable[[Callable[..., None]], Task]:
    """Make a function a task of tenants. It gets a `Job`, then what it was asked for with, as keywords.

    name: noun.verb, kept for good: jobs that wait know it. priority: higher first, among one tenant's own jobs.
    It may run twice (a worker can die after the work and before saying so), so it must be able to.
    """
    _check_name(name)

    def make(function: Callable[..., None]) -> Task:
        _check_parameters(name, function)
        return Task(name, function, priority, retry or Retry(), served)

    return make


def platform_task(
    *, name: str, cron: str | None = None, priority: int = 0, retry: Retry | None = None
) -> Callable[[Callable[..., None]], PlatformTask]:
    """Make a function a task of the platform; what it does in tenants it does by `for_each_tenant`."""
    _check_name(name)

    def make(function: Callable[..., None]) -> PlatformTask:
        _check_parameters(name, function)
        return PlatformTask(name, function, priority, retry or Retry(), cron)

    return make


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name) or len(name) > 100:
        raise ValueError(f"{name!r} is no name of a task: write noun.verb")


def _check_parameters(name: str, function: Callable[..., None]) -> None:
    taken = RESERVED & inspect.signature(function).parameters.keys()
    if taken:
        raise ValueError(f"task {name!r} has parameters that enqueue() takes itself: {sorted(taken)}")
