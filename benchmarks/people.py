"""The people every contender works on: one table each, with the same rows, and the policies its library writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from uuid_utils.compat import uuid7

from benchmarks.bench import ROLES, Bench, Connection, as_owner, send
from benchmarks.contenders.tenancy import tenant_person
from benchmarks.figures import Row
from benchmarks.measuring import interleave_batches, row
from benchmarks.workers import PLAIN, RIVALS, TENANCY, Entry, Worker, WorkerError, policies_of
from tenancy.rls import guard_sql, guarded_table, policies

DATABASE = "people"
TENANTS, PEOPLE = 20, 1200
RIVAL_ROLE = "bench_rival"
_COLUMNS = "id uuid NOT NULL, name varchar NOT NULL, email varchar NOT NULL, company_id uuid"


@dataclass
class People:
    """What was built. failed: the contenders that could not take part, and why."""

    tenants: list[tuple[UUID, list[UUID]]]
    failed: dict[str, str] = field(default_factory=dict)


def build(bench: Bench, database: str) -> People:
    """Make every contender's table, fill them all alike, and guard each as its library does."""
    bench.prepare(database)
    people = People([(uuid7(), [uuid7() for _ in range(PEOPLE)]) for _ in range(TENANTS)])
    for role in (ROLES.app, RIVAL_ROLE):
        bench.login(role)
    with bench.admin(database) as admin:
        admin.execute(f"GRANT CONNECT ON DATABASE {database} TO {RIVAL_ROLE}".encode())
        admin.execute(f"GRANT USAGE ON SCHEMA public TO {RIVAL_ROLE}".encode())
        _fill_plain(admin, people)
        for table in ("people", "people_one_policy", "people_no_policy"):
            _build_ours(admin, table)
        for entry in RIVALS:
            try:
                _build_rival(bench, admin, entry, people)
            except (WorkerError, psycopg.Error) as error:
                people.failed[entry.name] = f"{entry.name}: {error}"
        admin.execute(b"VACUUM ANALYZE")
        admin.execute(b"CHECKPOINT")
    return people


def _fill_plain(admin: Connection, people: People) -> None:
    admin.execute(
        f"CREATE TABLE people_plain (tenant_id uuid NOT NULL, {_COLUMNS}, PRIMARY KEY (tenant_id, id), "
        "UNIQUE (tenant_id, email))".encode()
    )
    with admin.cursor().copy("COPY people_plain (tenant_id, id, name, email) FROM STDIN") as copy:
        for tenant, ids in people.tenants:
            for person in ids:
                copy.write_row((tenant, person, "Ada Lovelace", f"{person.hex}@bench.test"))
    # Without row-level security, as in an application that has none; its role is nobody's victim.
    admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON people_plain TO {ROLES.app}".encode())


def _build_ours(admin: Connection, table: str) -> None:
    model = tenant_person(table)
    described = guarded_table(model.__table__)
    with as_owner(admin):
        admin.execute(
            f"CREATE TABLE {table} (tenant_id uuid NOT NULL, {_COLUMNS}, PRIMARY KEY (tenant_id, id), "
            "UNIQUE (tenant_id, email))".encode()
        )
    admin.execute(f"INSERT INTO {table} SELECT * FROM people_plain".encode())
    with as_owner(admin):
        if table == "people":
            send(admin, guard_sql(described, ROLES))
            return
        send(admin, [f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLES.app}"])
        if table == "people_one_policy":
            inline = policies(described, ROLES)[0]
            send(admin, [f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY", inline.create_sql(table)])


def _build_rival(bench: Bench, admin: Connection, entry: Entry, people: People) -> None:
    table = f"people_{entry.module}"
    admin.execute(f"CREATE TABLE {table} (LIKE people_plain INCLUDING ALL)".encode())
    admin.execute(f"INSERT INTO {table} SELECT * FROM people_plain".encode())
    admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {RIVAL_ROLE}".encode())
    if entry.module == "sqlalchemy_tenants":  # its column has this name, and each tenant a role of the server
        admin.execute(f"ALTER TABLE {table} RENAME tenant_id TO tenant".encode())
        for tenant, _ in people.tenants:
            role = f'"tenant_{tenant}"'
            send(
                admin,
                [
                    f"CREATE ROLE {role}",
                    f"GRANT {role} TO {RIVAL_ROLE}",
                    f"GRANT USAGE ON SCHEMA public TO {role}",
                    f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}",
                ],
            )
    send(admin, policies_of(entry, table, cache=bench.cache))


@contextmanager
def at_work(
    bench: Bench, entries: tuple[Entry, ...], ways: dict[str, int | None], **options: Any
) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """Start contenders on the people; yield them, and why others could not start.

    ways: names for the ways to the server, each with a TCP port, or None for the socket.
    """
    people: People = bench.built(DATABASE, build)
    failed = {name: why for name, why in people.failed.items() if name in {entry.name for entry in entries}}
    tenants = [(str(tenant), [str(person) for person in ids]) for tenant, ids in people.tenants]
    with ExitStack() as stack:
        workers = {}
        for entry in entries:
            if entry.name in failed:
                continue
            role = RIVAL_ROLE if entry.package else ROLES.app
            urls = {
                way: bench.socket_url(role, DATABASE) if port is None else bench.tcp_url(role, DATABASE, port)
                for way, port in ways.items()
            }
            first = {"urls": urls, "tenants": tenants, "options": options}
            try:
                workers[entry.name] = stack.enter_context(Worker(entry, first, cache=bench.cache))
            except WorkerError as error:
                failed[entry.name] = str(error)
        yield workers, failed


def without(failed: dict[str, str]) -> str:
    """Say in a row's note who is missing from it."""
    return " ".join(f"Not measured: {why}." for why in failed.values())


def cpu_row(action: str, workers: dict[str, Worker], bench: Bench, *, batch: int, rounds: int, name: str = "") -> Row:
    """Measure the CPU time that an action takes in the client's process and in the server's together."""
    asked = f"cpu of {action}:socket"
    samples = interleave_batches(
        {which: worker.timing(asked) for which, worker in workers.items() if asked in worker.actions},
        batch=batch,
        rounds=bench.rounds(rounds),
        budget_s=bench.budget(5),
    )
    return row(f"{name}{', ' if name else ''}CPU of both processes", samples, baseline=PLAIN.name, unit="µs CPU")


EVERYONE = (TENANCY, PLAIN, *RIVALS)
RIVAL_NAMES = tuple(entry.name for entry in RIVALS)
