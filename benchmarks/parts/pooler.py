"""PgBouncer in transaction mode between the application and the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.bench import ROLES, Bench
from benchmarks.figures import Goal, Part, Row
from benchmarks.measuring import interleave_batches, row
from benchmarks.people import DATABASE, People, build
from benchmarks.workers import PLAIN, TENANCY, Worker
from tests.conftest import Database
from tests.isolation.pgbouncer import PgBouncer, find_program

HOW = (
    "The transaction of one statement, with prepare_threshold=None as PgBouncer in transaction mode asks for, by the "
    "socket: straight to the server, and through PgBouncer, which shares the client's core. That no foreign row is "
    "ever seen there is proven in the tests."
)
THROUGH = ", PgBouncer"


def run(bench: Bench) -> Iterator[Row]:
    people: People = bench.built(DATABASE, build)
    find_program()
    tenants = [(str(tenant), [str(person) for person in ids]) for tenant, ids in people.tenants]
    with ExitStack() as stack:
        pooler = stack.enter_context(PgBouncer(Database(bench.server, DATABASE), "transaction", servers=4))
        workers = {}
        for entry in (TENANCY, PLAIN):
            urls = {"socket": bench.socket_url(ROLES.app, DATABASE), "pooler": pooler.url(ROLES.app)}
            first = {"urls": urls, "tenants": tenants, "options": {"connect_args": {"prepare_threshold": None}}}
            workers[entry.name] = stack.enter_context(Worker(entry, first, cache=bench.cache))
        asks = {}
        for name, worker in workers.items():
            for way, suffix in (("socket", ""), ("pooler", THROUGH)):
                worker.ask(f"point:{way}", n=60)
                asks[name + suffix] = worker.timing(f"point:{way}")
        samples = interleave_batches(asks, batch=20, rounds=bench.rounds(1000), budget_s=bench.budget(15))
        yield row(
            "a transaction of one statement",
            samples,
            baseline=PLAIN.name + THROUGH,
            goals=(Goal(TENANCY.name + THROUGH, at_most=1.10),),
        )


PART = Part("pooler", "Through PgBouncer", HOW, rows=1, run=run, has_rivals=True)
