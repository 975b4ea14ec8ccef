"""Rounds: one function, for one tenant after another; what fails for one does not keep the rest from it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from tenancy.context import HasId, outside_any_scope, tenant_scope
from tenancy.errors import ConfigurationError


class Again:
    """The type of AGAIN."""


AGAIN: Final = Again()
"""What a function returns that has done a part for its tenant and wants another turn, behind the others."""


@dataclass(frozen=True)
class Round:
    """What came of a round.

    done: tenants it went well for, in order of completion. failed: the errors of the others.
    left: tenants that were not reached, or wanted another turn, when the round was stopped.
    """

    done: tuple[UUID, ...]
    failed: dict[UUID, Exception] = field(default_factory=dict)
    left: tuple[UUID, ...] = ()
    duration_s: float = 0.0


def for_each_tenant(
    tenants: Iterable[UUID | HasId],
    function: Callable[[UUID], object],
    *,
    limit: int | None = None,
    concurrency: int = 1,
    stop_on_error: bool = False,
) -> Round:
    """Call the function once for each tenant, in its scope, in threads of its own; never two at once for one tenant.

    tenants: read as they are needed. A function that returns AGAIN is called again for that tenant, after every
    other one has had a turn.
    limit: calls at most; None for no bound. concurrency: tenants at a time.
    stop_on_error: begin nothing more after the first error; what runs is waited for.
    Returns: a report. Errors are in it, and are not raised.
    Raises: ConfigurationError - limit or concurrency is below 1.
    """
    if concurrency < 1 or (limit is not None and limit < 1):
        raise ConfigurationError(
            f"a round with concurrency {concurrency} and limit {limit}", hint="give numbers of at least 1"
        )
    began = time.monotonic()
    line = _Line(tenants)
    done: list[UUID] = []
    failed: dict[UUID, Exception] = {}
    running: dict[Future[object], UUID] = {}
    calls = 0
    with ThreadPoolExecutor(concurrency, thread_name_prefix="tenancy-round") as pool:
        while True:
            may_begin = not (stop_on_error and failed)
            while may_begin and len(running) < concurrency and (limit is None or calls < limit):
                tenant = line.next()
                if tenant is None:
                    break
                calls += 1
                running[pool.submit(_call, tenant, function)] = tenant
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                tenant = running.pop(future)
                error = future.exception()
                if isinstance(error, Exception):
                    failed[tenant] = error
                elif error is not None:
                    raise error
                elif future.result() is AGAIN:
                    line.again(tenant)
                else:
                    done.append(tenant)
    return Round(tuple(done), failed, line.rest(), time.monotonic() - began)


class _Line:
    """Who is next: first everybody once, then those who want another turn, in turn."""

    def __init__(self, tenants: Iterable[UUID | HasId]) -> None:
        self._first: Iterator[UUID | HasId] = iter(tenants)
        self._again: deque[UUID] = deque()
        self._seen: set[UUID] = set()

    def next(self) -> UUID | None:
        for given in self._first:
            tenant = given if isinstance(given, UUID) else given.id
            if tenant not in self._seen:
                self._seen.add(tenant)
                return tenant
        return self._again.popleft() if self._again else None

    def again(self, tenant: UUID) -> None:
        self._again.append(tenant)

    def rest(self) -> tuple[UUID, ...]:
        left = []
        while (tenant := self.next()) is not None:
            left.append(tenant)
        return tuple(left)


def _call(tenant: UUID, function: Callable[[UUID], object]) -> object:
    with outside_any_scope(), tenant_scope(tenant):
        return function(tenant)
