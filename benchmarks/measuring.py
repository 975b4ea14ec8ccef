"""Measuring alternatives side by side: taken in turn, so that whatever else the machine does hits all of them."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Row, Spread

Samples = dict[str, list[float]]
BLOCKS = 15


def interleave(
    alternatives: Mapping[str, Callable[[int], object]],
    *,
    rounds: int,
    budget_s: float,
    warm_up: int = 10,
    clock: Callable[[], int] = time.perf_counter_ns,
    clocks: Mapping[str, Callable[[], int]] | None = None,
) -> Samples:
    """Call each alternative in turn, `rounds` times or until the budget is spent; return microseconds a call.

    Each is given the number of the round. Who goes first changes with each round.
    clock: `time.process_time_ns` for CPU time. clocks: one for each alternative, such as `cpu_of` its own process.
    """
    samples: Samples = {name: [] for name in alternatives}
    turns = list(itertools.islice(rotations(list(alternatives.items())), len(alternatives)))
    for number in range(warm_up):
        for call in alternatives.values():
            call(number)
    deadline = time.monotonic() + budget_s
    with settled():
        for number in range(rounds):
            for name, call in turns[number % len(turns)]:
                now = clocks[name] if clocks is not None else clock
                before = now()
                call(number)
                samples[name].append((now() - before) / 1000)
            if time.monotonic() > deadline:
                break
    return samples


def interleave_batches(
    alternatives: Mapping[str, Callable[[int], Sequence[float]]], *, batch: int, rounds: int, budget_s: float
) -> Samples:
    """Ask each alternative in turn for a batch of times that it measured itself, in microseconds."""
    samples: Samples = {name: [] for name in alternatives}
    deadline = time.monotonic() + budget_s
    for turn in itertools.islice(rotations(list(alternatives.items())), max(1, rounds // batch)):
        for name, ask in turn:
            samples[name].extend(ask(batch))
        if time.monotonic() > deadline:
            break
    return samples


def cpu_of(pid: int, *, with_own: bool = False) -> Callable[[], int]:
    """Return a clock of the CPU time that a process has had, in nanoseconds. with_own: and this process besides."""
    schedstat = Path(f"/proc/{pid}/schedstat")

    def now() -> int:
        return int(schedstat.read_text().split()[0]) + (time.process_time_ns() if with_own else 0)

    return now


def rotations(items: list[Any]) -> Iterator[list[Any]]:
    for first in itertools.cycle(range(len(items))):
        yield items[first:] + items[:first]


@contextmanager
def settled() -> Iterator[None]:
    """Collect garbage before measuring, and leave what already lives out of the collections during it."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def ratio(of: Sequence[float], to: Sequence[float]) -> Spread:
    """Return the ratio of the medians; the spread is that of the same ratio in consecutive blocks of the run."""
    whole = statistics.median(of) / statistics.median(to)
    size = max(1, min(len(of), len(to)) // BLOCKS)
    blocks = [
        statistics.median(of[at : at + size]) / statistics.median(to[at : at + size])
        for at in range(0, min(len(of), len(to)) - size + 1, size)
    ]
    spread = Spread.of(blocks)
    fast = Spread.of(of).fast / Spread.of(to).fast
    return Spread(min(spread.low, whole), whole, max(spread.high, whole), spread.n, fast)


def row(name: str, samples: Samples, *, baseline: str, unit: str = "µs", scale: float = 1.0, **more: Any) -> Row:
    """Make a row of what was measured. scale: from microseconds to the unit. more: what else a Row has."""
    base = samples.get(baseline)
    figures = tuple(
        Figure(
            which,
            Spread.of([value * scale for value in values]),
            ratio(values, base) if base and which != baseline else None,
        )
        for which, values in samples.items()
        if values
    )
    return Row(name, unit, baseline, figures, **more)
