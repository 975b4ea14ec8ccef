"""A million deals of 200 tenants, one of whom has half, twice: under our policies, and under those of others."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from benchmarks.bench import ROLES, Bench, Connection, send
from benchmarks.workers import RIVALS, WorkerError, policies_of
from tenancy.rls import GuardedTable, guard_sql, policies

DATABASE = "deals"
DEALS, TENANTS = 1_000_000, 200
TABLES = ("companies", "people", "deals", "notes")
UNPOLICED = "bench_unpoliced"  # past every policy: what the statement costs without them
INLINE = "bench_inline"

# The first tenant has half of all rows; the others share the rest evenly.
_FILL = f"""
CREATE TABLE companies (tenant_id uuid, id uuid, name text NOT NULL, PRIMARY KEY (tenant_id, id));
CREATE TABLE people (tenant_id uuid, id uuid, company_id uuid NOT NULL, name text NOT NULL,
                     PRIMARY KEY (tenant_id, id));
CREATE TABLE deals (tenant_id uuid, id uuid, person_id uuid NOT NULL, stage int NOT NULL, amount_cents bigint NOT NULL,
                    closed_on date NOT NULL);
CREATE TABLE notes (tenant_id uuid, id uuid, deal_id uuid NOT NULL, body text NOT NULL, PRIMARY KEY (tenant_id, id));
CREATE TABLE someone (n int PRIMARY KEY, tenant_id uuid);
INSERT INTO someone SELECT n, uuidv7() FROM generate_series(0, {TENANTS - 1}) n;
CREATE FUNCTION made(kind int, tenant int, n int) RETURNS uuid IMMUTABLE LANGUAGE sql
  RETURN (lpad(to_hex(kind), 8, '0') || '-' || lpad(to_hex(tenant), 4, '0') || '-7000-8000-'
          || lpad(to_hex(n), 12, '0'))::uuid;
INSERT INTO companies SELECT tenant_id, made(1, s.n, c), 'Company ' || c FROM someone s, generate_series(0, 49) c;
INSERT INTO people SELECT tenant_id, made(2, s.n, p), made(1, s.n, p % 50), 'Person ' || p
  FROM someone s, generate_series(0, 199) p;
INSERT INTO deals SELECT s.tenant_id, made(3, s.n, d), made(2, s.n, d / 2 % 200), d % 7, d % 100000,
    date '2020-01-01' + (d * 37 % 2000)
  FROM generate_series(0, {DEALS - 1}) d
  JOIN someone s ON s.n = CASE WHEN d % 2 = 0 THEN 0 ELSE 1 + d / 2 % {TENANTS - 1} END;
INSERT INTO notes SELECT tenant_id, made(4, 0, (row_number() OVER ())::int), id, 'Called back'
  FROM deals WHERE stage = 3;
ALTER TABLE deals ADD PRIMARY KEY (tenant_id, id);
CREATE INDEX ON deals (tenant_id, closed_on);
CREATE INDEX ON deals (tenant_id, person_id);
CREATE INDEX ON people (tenant_id, company_id);
CREATE INDEX ON notes (tenant_id, deal_id);
"""


@dataclass
class Deals:
    """What was built: the tenant with half of the rows, one of the others, and whose policies could not be made."""

    large: UUID
    small: UUID
    failed: dict[str, str] = field(default_factory=dict)


def rival_role(module: str) -> str:
    return f"bench_{module}"


def build(bench: Bench, database: str) -> Deals:
    """Fill the tables, copy them as `rival_…`, and guard the first by our policies and the copies by the rivals'."""
    bench.prepare(database)
    with bench.admin(database) as admin:
        for statement in _FILL.strip().split(";\n"):
            admin.execute(statement.rstrip(";").encode())
        ids = dict(admin.execute("SELECT n, tenant_id FROM someone").fetchall())
        deals = Deals(ids[0], ids[7])
        roles = [UNPOLICED, INLINE, *(rival_role(entry.module) for entry in RIVALS)]
        for role in roles:
            bench.login(role)
        send(
            admin,
            [
                f"ALTER ROLE {UNPOLICED} BYPASSRLS",
                f"GRANT CONNECT ON DATABASE {database} TO {', '.join(roles)}",
                f"GRANT USAGE ON SCHEMA public TO {', '.join(roles)}",
                f"GRANT USAGE ON SCHEMA tenancy TO {', '.join(roles)}",
                f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenancy TO {', '.join(roles)}",
            ],
        )
        for table in TABLES:
            _guard_ours(admin, table)
            send(
                admin,
                [
                    f"CREATE TABLE rival_{table} (LIKE {table} INCLUDING ALL)",
                    f"INSERT INTO rival_{table} SELECT * FROM {table}",
                    f"GRANT SELECT ON rival_{table} TO {', '.join(roles)}",
                    f"ALTER TABLE rival_{table} ENABLE ROW LEVEL SECURITY",
                    f"CREATE POLICY one ON rival_{table} FOR ALL TO {INLINE} USING ({_inline(table)})",
                ],
            )
        for entry in RIVALS:
            try:
                for statement in policies_of(entry, *(f"rival_{table}" for table in TABLES), cache=bench.cache):
                    admin.execute(_only_for(statement, rival_role(entry.module)).encode())
            except (WorkerError, psycopg.Error) as error:
                deals.failed[entry.name] = f"{entry.name}: {error}"
        send(
            admin,
            [
                f'CREATE ROLE "tenant_{tenant}" IN ROLE {rival_role("sqlalchemy_tenants")} INHERIT'
                for tenant in (deals.large, deals.small)
            ]
            + [f'GRANT "tenant_{tenant}" TO {UNPOLICED} WITH INHERIT FALSE' for tenant in (deals.large, deals.small)]
            + ["VACUUM ANALYZE", "CHECKPOINT"],
        )
    return deals


def _described(table: str) -> GuardedTable:
    return GuardedTable(name=table, kind="tenant", update=())


def _inline(table: str) -> str:
    return str(policies(_described(table), ROLES)[0].using)


def _guard_ours(admin: Connection, table: str) -> None:
    admin.execute(f"ALTER TABLE {table} OWNER TO {ROLES.owner}".encode())
    send(admin, guard_sql(_described(table), ROLES))
    admin.execute(f"GRANT SELECT ON {table} TO {UNPOLICED}".encode())


def _only_for(statement: str, role: str) -> str:
    """Give a rival's policy to one role, so that several rivals' fit on one table; its column is called as ours."""
    named = re.sub(r"\btenant = \(", "tenant_id = (", statement)
    if "CREATE POLICY" not in named:
        return named
    return re.sub(r"(?:TO \w+\s+)?USING", f"TO {role} USING", named, count=1)
