"""Probes: one question to one part of the system, with a time by which it has answered or counts as down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from tenancy.context import outside_any_scope

log = logging.getLogger(__name__)


class State(StrEnum):
    """How a part is, from the best."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True)
class Finding:
    """What a probe found. fix: one action, or where to look; empty where nothing is wrong. link: of the API."""

    state: State = State.OK
    reason: str = ""
    fix: str = ""
    link: str | None = None


@dataclass(frozen=True)
class Check:
    """One part, how it is, and how long it took to say so, in milliseconds."""

    name: str
    state: State
    took_ms: float
    reason: str
    fix: str
    link: str | None


Probe = Callable[[], Finding]


class Prober:
    """Asks probes side by side, in threads of its own; a probe that hangs holds one of them, and no request.

    timeout_s: for all of them together.
    """

    def __init__(self, *, timeout_s: float, threads: int = 8) -> None:
        self.timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="health")

    def ask(self, probes: Mapping[str, Probe], *, fixes: Mapping[str, str]) -> list[Check]:
        """Return a check for each probe, in their order; whatever one raises is logged, and its part is down.

        fixes: by name, what to do about a part that is down.
        """
        began_at = monotonic()
        running = {name: self._threads.submit(_timed, probe) for name, probe in probes.items()}
        return [
            self._settled(name, future, began_at + self.timeout_s, fixes.get(name, ""))
            for name, future in running.items()
        ]

    def close(self) -> None:
        """Start no probe any more; one that hangs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _settled(self, name: str, future: Future[tuple[Finding, float]], deadline: float, fix: str) -> Check:
        try:
            found, took_ms = future.result(timeout=max(0.0, deadline - monotonic()))
        except TimeoutError:
            future.cancel()
            late = Finding(State.DOWN, f"No answer within {self.timeout_s:g} s.", fix)
            found, took_ms = late, self.timeout_s * 1000
        except Exception as error:
            # The boundary of a probe: what any client library raises means the same here.
            log.warning("health.probe_failed", extra={"part": name}, exc_info=error)
            found, took_ms = Finding(State.DOWN, f"It failed ({type(error).__name__}); the log says how.", fix), 0.0
        return Check(name, found.state, round(took_ms, 1), found.reason, found.fix, found.link)


def worst(checks: list[Check]) -> State:
    """Return the state of the whole: that of its worst part."""
    order = list(State)
    return max((check.state for check in checks), key=order.index, default=State.OK)


def _timed(probe: Probe) -> tuple[Finding, float]:
    began_at = monotonic()
    with outside_any_scope():
        return probe(), (monotonic() - began_at) * 1000
