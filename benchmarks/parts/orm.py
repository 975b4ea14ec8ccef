"""What an application does all day through the ORM, and how often its statements are compiled anew."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.figures import Goal, Part, Row, counted
from benchmarks.measuring import interleave_batches, row
from benchmarks.people import EVERYONE, RIVAL_NAMES, TENANTS, at_work, cpu_row, without
from benchmarks.workers import DRIVER, PLAIN, TENANCY, Worker, WorkerError

HOW = (
    "Each row is one transaction by the socket: open a session for the tenant, do it, commit. Twenty tenants with "
    "1,200 people each, in turn. Contenders are processes that time themselves, in batches taken in turn. Commits wait "
    "for no disk, so that the disk hides nothing. The unit of work loads ten people, changes each and adds ten."
)
# name of the row: the action, how many a batch, how many rounds
ROWS = {
    "list of 10": ("list_10", 10, 600),
    "list of 1,000": ("list_1000", 2, 60),
    "get by id": ("get", 10, 800),
    "insert": ("insert", 10, 600),
    "bulk insert of 1,000": ("bulk_insert", 1, 16),
    "update": ("update", 10, 600),
    "unit of work of 20 objects": ("unit_of_work", 4, 160),
}


def run(bench: Bench) -> Iterator[Row]:
    with at_work(bench, (*EVERYONE, DRIVER), {"socket": None}) as (workers, failed):
        for name, (action, batch, rounds) in ROWS.items():
            able, broken = _able(workers, f"{action}:socket", n=max(batch, 8))
            samples = interleave_batches(
                {which: worker.timing(f"{action}:socket") for which, worker in able.items()},
                batch=batch,
                rounds=bench.rounds(rounds),
                budget_s=bench.budget(7),
            )
            yield row(
                name,
                samples,
                baseline=PLAIN.name,
                goals=(Goal(TENANCY.name, at_most=1.10), Goal(TENANCY.name, below=RIVAL_NAMES)),
                note=without(failed | broken),
            )
            yield cpu_row(action, able, bench, batch=batch * 5, rounds=rounds // 2, name=name)
        rates, misses = {}, {}
        for which, worker in workers.items():
            if "cache_hits:socket" in worker.actions:
                worker.ask("cache_hits:socket", n=TENANTS, start=0)
                seen = worker.ask("cache_hits:socket", n=TENANTS, start=TENANTS)
                misses[which] = seen.get("miss", 0)
                rates[which] = 100 * seen.get("hit", 0) / max(1, sum(seen.values()))
        yield counted(
            "compile cache, hits",
            "%",
            PLAIN.name,
            rates,
            goals=(Goal(TENANCY.name, at_least=100, by="value"),),
            better="higher",
            note=f"Six actions for each of {TENANTS} tenants after the rows above: "
            + ", ".join(f"{which} {count} missed" for which, count in misses.items())
            + ".",
        )


def _able(workers: dict[str, Worker], action: str, n: int) -> tuple[dict[str, Worker], dict[str, str]]:
    """Warm up those who have this action; say why others failed at it."""
    able, broken = {}, {}
    for which, worker in workers.items():
        if action not in worker.actions:
            continue
        try:
            worker.ask(action, n=n)
        except WorkerError as error:
            broken[which] = str(error)
        else:
            able[which] = worker
    return able, broken


PART = Part("orm", "The ORM", HOW, rows=2 * len(ROWS) + 1, run=run, has_rivals=True)
