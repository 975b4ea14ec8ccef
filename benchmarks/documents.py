"""25,000 documents a tenant with every kind of index that policies make the planner wary of, and two ways out."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from benchmarks.bench import ROLES, Bench, Connection, send
from tenancy.rls import GuardedTable, guard_sql

DATABASE, MARKED = "documents", "documents_marked"
TENANTS, EACH = 6, 25_000
UNPOLICED, SEARCHER = "bench_unpoliced", "bench_searcher"

_FILL = f"""
CREATE EXTENSION pg_trgm;
CREATE EXTENSION btree_gin;
CREATE TABLE someone (n int PRIMARY KEY, tenant_id uuid);
INSERT INTO someone SELECT n, uuidv7() FROM generate_series(0, {TENANTS - 1}) n;
CREATE TABLE documents (tenant_id uuid, id uuid, title text NOT NULL, search tsvector NOT NULL,
                        attributes jsonb NOT NULL, labels text[] NOT NULL, price numeric(12, 2) NOT NULL);
INSERT INTO documents
  SELECT tenant_id, uuidv7(), 'c' || d || ' ' || md5(d::text),
         to_tsvector('simple', 'word' || d % 1000 || ' term' || d % 777 || ' common'),
         jsonb_build_object('colour', 'c' || d % 900, 'size', d % 50, 'nested', jsonb_build_object('a', d % 1100)),
         ARRAY['l' || d % 800, 'm' || d % 30], (d * 7919 % 1000000) / 100.0
  FROM someone, generate_series(1, {EACH}) d;
ALTER TABLE documents ADD PRIMARY KEY (tenant_id, id);
CREATE INDEX ON documents (tenant_id, title text_pattern_ops);
CREATE INDEX ON documents USING gin (tenant_id, title gin_trgm_ops);
CREATE INDEX ON documents USING gin (tenant_id, search);
CREATE INDEX ON documents USING gin (tenant_id, attributes jsonb_path_ops);
CREATE INDEX ON documents USING gin (tenant_id, labels);
CREATE INDEX ON documents (tenant_id, price);
"""


@dataclass(frozen=True)
class Search:
    """One kind of search. condition: `$1`, of the type, is what is looked for. operators: what marking names."""

    name: str
    condition: str
    type: str
    operators: tuple[str, ...]
    wanted: tuple[str, ...]


SEARCHES = (
    Search("LIKE", "title LIKE $1", "text", ("~~(text,text)",), ("c1777%", "c2345%")),
    Search("ILIKE", "title ILIKE $1", "text", ("~~*(text,text)",), ("%da3b7fbb%", "%14e45fce%")),
    Search("trigram", "title % $1", "text", ("%(text,text)",), ("c7 8f14e45fceea167a5a36dedd4bea2543",)),
    Search("full text", "search @@ $1", "tsquery", ("@@(tsvector,tsquery)",), ("word17 & term17", "word613")),
    Search("jsonb", "attributes @> $1", "jsonb", ("@>(jsonb,jsonb)",), ('{"colour": "c17"}', '{"nested": {"a": 7}}')),
    Search("array", "labels @> $1", "text[]", ("@>(anyarray,anyarray)",), ("{l17}", "{l700}")),
    Search(
        "numeric range",
        "price BETWEEN $1 AND $1 + 3",
        "numeric",
        (">=(numeric,numeric)", "<=(numeric,numeric)"),
        ("1200", "7777"),
    ),
)


def function_of(search: Search) -> str:
    return "search_by_" + search.name.lower().replace(" ", "_")


def build(bench: Bench, database: str) -> UUID:
    """Fill and guard the table, add the search functions, and make the second database whose operators are marked."""
    bench.prepare(database)
    with bench.admin(database) as admin:
        for statement in _FILL.strip().split(";\n"):
            admin.execute(statement.rstrip(";").encode())
        for role in (ROLES.app, UNPOLICED):
            bench.login(role)
        admin.execute(f"ALTER TABLE documents OWNER TO {ROLES.owner}".encode())
        send(admin, guard_sql(GuardedTable(name="documents", kind="tenant", update=()), ROLES))
        send(
            admin,
            [
                f"ALTER ROLE {UNPOLICED} BYPASSRLS",
                f"GRANT CONNECT ON DATABASE {database} TO {UNPOLICED}",
                f"GRANT USAGE ON SCHEMA public TO {UNPOLICED}",
                f"GRANT SELECT ON documents TO {UNPOLICED}",
            ],
        )
        _create_searches(admin)
        send(admin, ["VACUUM ANALYZE", "CHECKPOINT"])
        tenant: UUID = admin.execute("SELECT tenant_id FROM someone WHERE n = 3").fetchone()[0]  # type: ignore[index]  # there is one
    _mark(bench, database)
    return tenant


def _create_searches(admin: Connection) -> None:
    """The reviewed way out: a definer past the policies, whose text names the tenant of the transaction itself."""
    send(
        admin,
        [
            f"CREATE ROLE {SEARCHER} NOLOGIN BYPASSRLS",
            f"GRANT USAGE ON SCHEMA public, tenancy TO {SEARCHER}",
            f"GRANT SELECT ON documents TO {SEARCHER}",
            f"GRANT EXECUTE ON FUNCTION tenancy.current_tenant(), tenancy.no_tenant() TO {SEARCHER}",
        ],
    )
    for search in SEARCHES:
        name = function_of(search)
        send(
            admin,
            [
                f"CREATE FUNCTION {name}(wanted {search.type}) RETURNS SETOF uuid "
                "LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$\n"
                "BEGIN RETURN QUERY SELECT id FROM public.documents "
                f"WHERE tenant_id = tenancy.current_tenant() AND {search.condition}; END $$",
                f"ALTER FUNCTION {name} OWNER TO {SEARCHER}",
                f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC",
                f"GRANT EXECUTE ON FUNCTION {name} TO {ROLES.app}",
            ],
        )


def _mark(bench: Bench, database: str) -> None:
    """The superuser's way out: say of the operators' functions that they tell nothing of what they compare."""
    with bench.admin("postgres") as admin:
        admin.execute(f"CREATE DATABASE {MARKED} TEMPLATE {database}".encode())
        admin.execute(f"GRANT CONNECT ON DATABASE {MARKED} TO {ROLES.app}".encode())
    with bench.admin(MARKED) as admin:
        for operator in {name for search in SEARCHES for name in search.operators}:
            admin.execute(
                "DO $$ BEGIN EXECUTE format('ALTER FUNCTION %s LEAKPROOF', (SELECT oprcode::regprocedure FROM "
                f"pg_operator WHERE oid = '{operator}'::regoperator)); END $$"
            )
