"""Searches whose operators PostgreSQL does not trust under policies, and the two ways out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import UUID

from benchmarks import documents
from benchmarks.bench import ROLES, Bench, Connection
from benchmarks.documents import DATABASE, EACH, MARKED, SEARCHES, TENANTS, UNPOLICED, Search, function_of
from benchmarks.figures import Goal, Part, Row
from benchmarks.measuring import interleave, row

BASELINE = "no policy"
WAYS_OUT = ("tenancy, marked LEAKPROOF", "tenancy, search function")
HOW = (
    f"{EACH:,} documents for each of {TENANTS} tenants, each kind of search with an index that begins with the tenant. "
    "Prepared statements in an open transaction whose tenant is set already. `no policy` names the tenant and has no "
    "row-level security. `tenancy` is what happens without a way out: the operator may not run before the policy, so "
    "its index is not used. The ways out: a superuser marks the operator's function LEAKPROOF (in a copy of the "
    "database), or a reviewed SECURITY DEFINER function searches within the bound tenant."
)


def run(bench: Bench) -> Iterator[Row]:
    tenant: UUID = bench.built(DATABASE, documents.build)
    with ExitStack() as stack:

        def connected(role: str, database: str = DATABASE) -> Connection:
            connection = stack.enter_context(bench.connect(role, database))
            connection.prepare_threshold = 0
            connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
            return connection

        plain, bound, called, marked = (
            connected(UNPOLICED),
            connected(ROLES.app),
            connected(ROLES.app),
            connected(ROLES.app, MARKED),
        )
        for search in SEARCHES:
            condition = search.condition.replace("%", "%%").replace("$1", f"%s::{search.type}")
            direct = f"SELECT id FROM documents WHERE tenant_id = %s AND {condition}"
            function = f"SELECT {function_of(search)}(%s::{search.type})"
            times = condition.count("%s")
            samples = interleave(
                {
                    BASELINE: _asking(plain, direct, search, [tenant], times),
                    "tenancy": _asking(bound, direct, search, [tenant], times),
                    WAYS_OUT[0]: _asking(marked, direct, search, [tenant], times),
                    WAYS_OUT[1]: _asking(called, function, search, [], 1),
                },
                rounds=bench.rounds(300),
                budget_s=bench.budget(5),
                warm_up=8,
            )
            yield row(
                search.name,
                samples,
                baseline=BASELINE,
                goals=tuple(Goal(way, at_most=1.30) for way in WAYS_OUT),
            )


def _asking(connection: Connection, sql: str, search: Search, own: list[object], times: int) -> Callable[[int], object]:
    text = sql.encode()

    def ask(number: int) -> object:
        wanted = search.wanted[number % len(search.wanted)]
        return connection.execute(text, [*own, *[wanted] * times]).fetchall()

    found = [len(connection.execute(text, [*own, *[wanted] * times]).fetchall()) for wanted in search.wanted]
    assert all(found), f"{search.name} finds nothing: {found}"
    return ask


PART = Part("leaky", "Searches under policies", HOW, rows=len(SEARCHES), run=run)
