"""One statement in one transaction: flights, and time by the socket and over a slower line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.bench import Bench
from benchmarks.figures import Goal, Part, Row, counted
from benchmarks.measuring import Samples, interleave_batches, row
from benchmarks.people import RIVAL_NAMES, at_work, cpu_row, without
from benchmarks.workers import DRIVER, NO_POLICY, ONE_POLICY, PLAIN, RIVALS, TENANCY

HOW = (
    "Read one name by its key: open a session for the tenant, one SELECT through the ORM, commit. Twenty tenants in "
    "turn, connections warm. Every contender is a process that times itself, in batches, one after the other on the "
    "same core; the server has the other core. `tenancy, one policy` has only the inline policy, `tenancy, no policy` "
    "none: what is left there is the binding. Plain SQLAlchemy writes the tenant by hand and has no row-level security."
)
DELAYS_S = {"0.25 ms each way": 0.00025, "0.5 ms each way": 0.0005}
CONTENDERS = (TENANCY, ONE_POLICY, NO_POLICY, PLAIN, DRIVER, *RIVALS)
TRIPS = 10


def run(bench: Bench) -> Iterator[Row]:
    with ExitStack() as stack:
        lines = {name: stack.enter_context(bench.delayed(delay_s)) for name, delay_s in DELAYS_S.items()}
        ways = {"socket": None, **{name: line.port for name, line in lines.items()}}
        workers, failed = stack.enter_context(at_work(bench, CONTENDERS, ways))
        for way in ways:
            for worker in workers.values():
                worker.ask(f"point:{way}", n=60)
        flights = {}
        for name, worker in workers.items():
            line = lines["0.5 ms each way"]
            before = line.flights
            worker.ask("point:0.5 ms each way", n=TRIPS)
            flights[name] = (line.flights - before) / TRIPS
        yield counted(
            "flights",
            "flights",
            PLAIN.name,
            flights,
            goals=(Goal(TENANCY.name, at_most=2, by="value"),),
            note=f"Counted by the delay line over {TRIPS} transactions. {without(failed)}",
        )
        yield counted(
            "functions called by the client",
            "calls",
            PLAIN.name,
            {
                name: worker.ask("calls:socket", n=50)
                for name, worker in workers.items()
                if "calls:socket" in worker.actions
            },
            note="Python's own and C's, counted by its profiler; no other process disturbs that.",
        )
        for way in ways:
            is_socket = way == "socket"
            samples = interleave_batches(
                {name: worker.timing(f"point:{way}") for name, worker in workers.items()},
                batch=20,
                rounds=bench.rounds(1500 if is_socket else 500),
                budget_s=bench.budget(20),
            )
            goals = [Goal(TENANCY.name, below=RIVAL_NAMES)]
            if way != "0.25 ms each way":
                goals.insert(0, Goal(TENANCY.name, at_most=1.10 if is_socket else 0.83))
            yield row(way, samples, baseline=PLAIN.name, goals=tuple(goals), note=without(failed))
            if is_socket:
                yield _shares(samples)
                yield cpu_row("point", workers, bench, batch=100, rounds=1500)


def _shares(samples: Samples) -> Row:
    """Take the difference to plain SQLAlchemy apart, round by round."""
    steps = {"tenancy: binding": (NO_POLICY, PLAIN), "tenancy: isolation policy": (ONE_POLICY, NO_POLICY)}
    steps |= {"tenancy: guard policies": (TENANCY, ONE_POLICY), "tenancy: all": (TENANCY, PLAIN)}
    differences = {
        name: [more - less for more, less in zip(samples[left.name], samples[right.name], strict=True)]
        for name, (left, right) in steps.items()
    }
    note = (
        "Differences of the rounds above. Binding is what the library adds where no policy is: scope, events, the "
        "statement guard, BEGIN and the settings in the statement's flight, less the flight that this saves."
    )
    return row("shares, by the socket", differences, baseline=PLAIN.name, note=note)


PART = Part("transaction", "A transaction of one statement", HOW, rows=5 + len(DELAYS_S), run=run, has_rivals=True)
