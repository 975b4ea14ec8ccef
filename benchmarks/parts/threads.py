"""Throughput of many threads that share a few connections."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.figures import Goal, Part, Row
from benchmarks.measuring import Samples, row
from benchmarks.people import EVERYONE, at_work, without
from benchmarks.workers import PLAIN, TENANCY

THREADS, WINDOW_S, WINDOWS = 16, 0.8, 7
HOW = (
    f"{THREADS} threads of one process, a pool of 8 connections, each thread in a loop: open a session for the next of "
    f"twenty tenants, read one name by its key, commit. Windows of {WINDOW_S} s, contenders in turn."
)


def run(bench: Bench) -> Iterator[Row]:
    with at_work(bench, EVERYONE, {"socket": None}) as (workers, failed):
        for worker in workers.values():
            worker.ask("throughput", seconds=0.3, threads=THREADS)
        rates: Samples = {name: [] for name in workers}
        for _ in range(max(2, round(WINDOWS * bench.scale))):
            for name, worker in workers.items():
                rates[name].append(worker.ask("throughput", seconds=WINDOW_S, threads=THREADS))
        yield row(
            f"{THREADS} threads, pool of 8",
            rates,
            baseline=PLAIN.name,
            unit="transactions/s",
            better="higher",
            goals=(Goal(TENANCY.name, at_least=0.90),),
            note=without(failed),
        )


PART = Part("threads", "Throughput", HOW, rows=1, run=run, has_rivals=True)
