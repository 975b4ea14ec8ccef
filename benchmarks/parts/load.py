"""The application under gunicorn with many users, and nine quiet tenants beside a noisy one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import Part, Row
from benchmarks.load.rows import rows_of
from benchmarks.load.run import Plan, measure
from benchmarks.load.subject import build
from tenancy.embedded import start

# As in production, but for the disk: its speed, the same for all, would only hide the differences.
SETTINGS = {"synchronous_commit": "off", "fsync": "off", "shared_buffers": "256MB", "max_connections": "100"}
HOW = (
    "The CRM of this repository under gunicorn (a process of 24 threads for every two cores), on a server of its "
    "own, with production's settings, but passwords hashed cheaply, or that would be most of the load. Users sign in, "
    "list people, create one, or open a page in a browser, and think in between; they, the server and the application "
    "share the machine's cores. First everybody at once; then, in turn, the quiet tenants alone, beside a noisy one "
    "whose work budget is off, and beside the same with budgets on. Times are taken by the client, to the last byte."
)


def run(bench: Bench) -> Iterator[Row]:
    plan = Plan(
        ramp_s=max(5.0, bench.budget(22)),
        window_s=max(3.0, bench.budget(15)),
        rounds=2,
        block_s=max(2.0, bench.budget(5)),
        users=max(10, round(100 * min(1.0, bench.scale))),
    )
    pinned, folder = os.sched_getaffinity(0), Path(bench.folder) / "load"
    folder.mkdir(exist_ok=True)
    os.sched_setaffinity(0, bench.cores)  # gunicorn and its server have the whole machine, as they would
    try:
        with start(folder / "pg", settings=SETTINGS) as server:
            service = build(server, folder, tenants=plan.tenants, users=plan.users, noisy_people=plan.people)
            course = measure(service, plan, lambda _name, _done, _tally: None)
    finally:
        os.sched_setaffinity(0, pinned)
    yield from rows_of(course)


PART = Part("load", "The application under load", HOW, rows=11, run=run)
