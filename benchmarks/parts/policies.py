"""What policies cost inside the server: a million rows, tenants of very different size, prepared statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from benchmarks import deals
from benchmarks.bench import ROLES, Bench, Connection
from benchmarks.deals import DATABASE, INLINE, UNPOLICED, Deals, rival_role
from benchmarks.figures import Goal, Part, Row
from benchmarks.measuring import cpu_of, interleave, row
from benchmarks.workers import RIVALS

HOW = (
    "Prepared statements by psycopg on a connection each, in an open transaction whose tenant is set already: only the "
    "statement is timed. 1,000,000 deals of 200 tenants; one tenant has half of them, the others 2,500 each. "
    "`no policy` is a role that policies do not apply to, with the tenant written into the statement, on the same "
    "tables. `tenancy` has all policies, and the same statement, as the ORM writes it. The rivals' policies are those "
    "their libraries write, on a copy of the tables, and statements do not name the tenant, as in their documentation."
)
BASELINE = "no policy"
GENERIC_AFTER = 7  # executions, by which the server has settled on the plan that it keeps
MANY = 200


@dataclass(frozen=True)
class Query:
    """One statement. `{own}` becomes the explicit predicate, `{p}` the prefix of the tables; ids: what it is given."""

    name: str
    sql: str
    tenant: str
    given: Callable[[int, int], list[Any]]
    rounds: int
    budget_s: float = 5.0


def _deal(tenant: int, number: int) -> UUID:
    # The large tenant has every second deal, the other one in 398.
    which = number * 2 if tenant == 0 else 2 * (6 + 199 * (number % 2000)) + 1
    return UUID(f"00000003-{tenant:04x}-7000-8000-{which:012x}")


_POINT = "SELECT amount_cents FROM {p}deals WHERE {own:deals} AND id = %s"
_RANGE = (
    "SELECT id, amount_cents FROM {p}deals WHERE {own:deals} AND closed_on BETWEEN %s::date AND %s::date + 20 "
    "ORDER BY closed_on LIMIT 50"
)
_TOTALS = "SELECT stage, count(*), sum(amount_cents) FROM {p}deals WHERE {own:deals} GROUP BY stage"
_JOIN = (
    "SELECT c.name, p.name, d.amount_cents, n.body FROM {p}companies c "
    "JOIN {p}people p ON (p.tenant_id, p.company_id) = (c.tenant_id, c.id) "
    "JOIN {p}deals d ON (d.tenant_id, d.person_id) = (p.tenant_id, p.id) "
    "JOIN {p}notes n ON (n.tenant_id, n.deal_id) = (d.tenant_id, d.id) "
    "WHERE {own:c} AND {own:p} AND {own:d} AND {own:n} AND c.id = %s"
)


def _day(_tenant: int, number: int) -> list[Any]:
    day = f"202{number % 5}-0{1 + number % 9}-01"
    return [day, day]


QUERIES = (
    Query("point, small tenant", _POINT, "small", lambda t, n: [_deal(t, n)], 1500),
    Query("point, tenant with half of the rows", _POINT, "large", lambda t, n: [_deal(t, n)], 1500),
    Query("range, small tenant", _RANGE, "small", _day, 1000),
    Query("range, tenant with half of the rows", _RANGE, "large", _day, 800),
    Query("aggregate, small tenant", _TOTALS, "small", lambda t, n: [], 200),
    Query("aggregate, tenant with half of the rows", _TOTALS, "large", lambda t, n: [], 12, 12.0),
    Query(
        "join of 4 tables, small tenant",
        _JOIN,
        "small",
        lambda t, n: [UUID(f"00000001-{t:04x}-7000-8000-{n % 50:012x}")],
        500,
    ),
    Query(
        "join of 4 tables, tenant with half of the rows",
        _JOIN,
        "large",
        lambda t, n: [UUID(f"00000001-{t:04x}-7000-8000-{n % 50:012x}")],
        40,
        8.0,
    ),
)


class _Side:
    """One alternative: who asks, of which tables, bound how."""

    def __init__(
        self, connection: Connection, *, prefix: str = "", explicit: bool = True, bind: str = "", role: str = ""
    ) -> None:
        self.connection, self.prefix, self.explicit, self.bind, self.role = connection, prefix, explicit, bind, role

    def begin(self, tenant: UUID) -> None:
        self.connection.rollback()
        if self.bind:
            self.connection.execute("SELECT set_config(%s, %s, true)", [self.bind, str(tenant)])
        if self.role:
            self.connection.execute(f'SET LOCAL ROLE "{self.role}{tenant}"'.encode())

    def call(self, query: Query, tenant: UUID) -> Callable[[int], object]:
        number_of_tenant = 0 if query.tenant == "large" else 7
        text = query.sql.replace("{p}", self.prefix)
        prefixes = [name for name in ("deals", "c", "p", "d", "n") if f"{{own:{name}}}" in text]
        for name in prefixes:
            column = f"{name}.tenant_id" if name != "deals" else "tenant_id"
            text = text.replace(f"{{own:{name}}}", f"{column} = %s" if self.explicit else "true")
        sql, own = text.encode(), [tenant] * len(prefixes) if self.explicit else []
        self.begin(tenant)

        def run(number: int) -> object:
            rows = self.connection.execute(sql, [*own, *query.given(number_of_tenant, number)]).fetchall()
            assert rows, f"{query.name} found nothing"
            return rows

        return run


def run(bench: Bench) -> Iterator[Row]:
    built: Deals = bench.built(DATABASE, deals.build)
    with ExitStack() as stack:

        def connected(role: str) -> Connection:
            connection = stack.enter_context(bench.connect(role, DATABASE))
            connection.prepare_threshold = 0
            return connection

        sides = {
            "tenancy": _Side(connected(ROLES.app), bind="app.tenant_id"),
            "tenancy, tenant not named": _Side(connected(ROLES.app), bind="app.tenant_id", explicit=False),
            "tenancy, one policy": _Side(connected(INLINE), prefix="rival_", bind="app.tenant_id"),
            BASELINE: _Side(connected(UNPOLICED)),
        }
        for entry in RIVALS:
            if entry.name in built.failed:
                continue
            is_by_role = entry.module == "sqlalchemy_tenants"
            sides[entry.name] = _Side(
                connected(UNPOLICED if is_by_role else rival_role(entry.module)),
                prefix="rival_",
                explicit=False,
                bind="" if is_by_role else "rls.tenant_id",
                role="tenant_" if is_by_role else "",
            )
        for query in QUERIES:
            tenant = built.large if query.tenant == "large" else built.small
            samples = interleave(
                {name: side.call(query, tenant) for name, side in sides.items()},
                rounds=bench.rounds(query.rounds),
                budget_s=bench.budget(query.budget_s),
                warm_up=GENERIC_AFTER,
            )
            yield row(
                query.name,
                samples,
                baseline=BASELINE,
                goals=(Goal("tenancy", at_most=1.10),),
                note=" ".join(f"Not measured: {why}." for why in built.failed.values()),
            )
            if query.rounds < MANY:
                continue
            cpu = interleave(
                {name: side.call(query, tenant) for name, side in sides.items()},
                rounds=bench.rounds(query.rounds // 3),
                budget_s=bench.budget(3),
                warm_up=GENERIC_AFTER,
                clocks={name: cpu_of(side.connection.info.backend_pid) for name, side in sides.items()},
            )
            yield row(f"{query.name}, CPU of the server process", cpu, baseline=BASELINE, unit="µs CPU")
        for side in sides.values():
            side.connection.rollback()


PART = Part(
    "policies",
    "Policies in the server",
    HOW,
    rows=len(QUERIES) + sum(query.rounds >= MANY for query in QUERIES),
    run=run,
    has_rivals=True,
)
