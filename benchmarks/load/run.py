"""The course of a load run: everybody at once, then nine quiet tenants beside a noisy one, its budget off and on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from benchmarks.load.subject import LoadError, Service
from benchmarks.load.users import SIGN_IN, Crowd, Nuisance, Tally, User, a_client

ALONE, NOISE_OFF, NOISE_ON = "alone", "beside the noise, budgets off", "beside the noise, budgets on"
OFF = {"tenant_concurrency": 0, "tenant_statement_timeout_s": 30}
_TICK_S = 0.5

Show = Callable[[str, float, Tally], None]  # the phase, the part of the whole that is done, and its tally


@dataclass(frozen=True)
class Plan:
    """How a run goes. think_s: the mean of what a user waits between two requests. on: settings of the application.

    clients: of the noisy tenant, each searching `people` rows in vain as fast as it is let.
    """

    tenants: int = 10
    users: int = 100
    think_s: float = 25.0
    ramp_s: float = 25.0
    window_s: float = 20.0
    rounds: int = 3
    block_s: float = 4.0
    settle_s: float = 1.5
    calm_s: float = 4.0
    clients: int = 24
    people: int = 20_000
    on: dict[str, object] = field(
        default_factory=lambda: {
            "tenant_concurrency": 1,
            "tenant_wait_s": 1.0,
            "tenant_waiting": 3,
            "tenant_share": 0.5,
        }
    )

    @property
    def seconds(self) -> float:
        return self.ramp_s + self.calm_s + self.window_s + self.rounds * 3 * (self.block_s + self.settle_s)


@dataclass
class Course:
    """What was seen. together: everybody; beside: what the quiet tenants had, round by round; rest: in between."""

    plan: Plan
    service: Service
    together: Tally
    beside: dict[str, list[Tally]]
    rest: Tally

    @property
    def tallies(self) -> list[Tally]:
        return [self.together, *(tally for tallies in self.beside.values() for tally in tallies), self.rest]

    def is_quiet(self, tenant: str) -> bool:
        return tenant != self.service.noisy.name


def measure(service: Service, plan: Plan, show: Show) -> Course:
    """Serve the application twice, budgets on and off, and let the crowd loose on it."""
    with ExitStack() as stack:
        ports = {
            True: stack.enter_context(service.served("on", plan.on)),
            False: stack.enter_context(service.served("off", OFF)),
        }
        return asyncio.run(_conduct(service, plan, ports, show))


async def _conduct(service: Service, plan: Plan, ports: dict[bool, int], show: Show) -> Course:
    async with a_client() as http:
        stage = _Stage(Crowd(http), plan, show)
        stage.crowd.port = ports[True]
        people = {
            place.name: [
                asyncio.create_task(
                    User(stage.crowd, place, number, think_s=plan.think_s).stay(plan.ramp_s * at / plan.users)
                )
                for at, number in enumerate(range(len(place.emails)))
            ]
            for place in service.places
        }
        course = Course(plan, service, Tally(), {name: [] for name in (ALONE, NOISE_OFF, NOISE_ON)}, Tally())
        try:
            await stage.play("everybody arrives", plan.ramp_s, course.rest)
            if not course.rest.of(SIGN_IN):
                raise LoadError(f"nobody could sign in: {dict(course.rest.errors)}")
            await stage.play("everybody settles", plan.calm_s, course.rest)
            await stage.play("everybody at once", plan.window_s, course.together)
            await _stop(people.pop(service.noisy.name))
            await _compare(stage, course, ports)
        finally:
            await _stop([task for tasks in people.values() for task in tasks])
        for task in (task for tasks in people.values() for task in tasks):
            if not task.cancelled() and task.exception() is not None:
                raise LoadError("a user stopped") from task.exception()
    return course


async def _compare(stage: _Stage, course: Course, ports: dict[bool, int]) -> None:
    plan, noisy = course.plan, course.service.noisy
    nuisances = [Nuisance(stage.crowd, noisy, number % len(noisy.emails), think_s=0) for number in range(plan.clients)]
    for nuisance in nuisances:
        nuisance.has_browser = False
    phases = [(ALONE, True), (NOISE_OFF, False), (NOISE_ON, True)]
    for turn in range(plan.rounds):
        for name, with_budgets in phases[turn % 3 :] + phases[: turn % 3]:
            stage.crowd.port = ports[with_budgets]
            noise = [] if name == ALONE else [asyncio.create_task(one.stay(0)) for one in nuisances]
            await stage.play(f"{name}: settling", plan.settle_s, course.rest)
            course.beside[name].append(Tally())
            await stage.play(name, plan.block_s, course.beside[name][-1])
            await _stop(noise)


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task


class _Stage:
    """Plays one phase after the other, and shows how far it is."""

    def __init__(self, crowd: Crowd, plan: Plan, show: Show) -> None:
        self.crowd, self._plan, self._show = crowd, plan, show
        self._begun = time.monotonic()

    async def play(self, name: str, seconds: float, tally: Tally) -> None:
        """Let the crowd write to the tally for so long. An answer counts where it was asked for."""
        self.crowd.tally, begun = tally, time.monotonic()
        before_s = tally.seconds
        while (gone_s := time.monotonic() - begun) < seconds:
            tally.seconds = before_s + gone_s
            self._show(name, min(1.0, (time.monotonic() - self._begun) / self._plan.seconds), tally)
            await asyncio.sleep(min(_TICK_S, seconds - gone_s))
        tally.seconds = before_s + time.monotonic() - begun
