"""Statements an attacker sends past the Python guard, one at a time, in a transaction of her own tenant's.

`{b}` is the tenant she wants; each is one statement of the extended protocol. `opens` says whether the statement
itself, or a later one of the same transaction, shows the other tenant's rows at the standard level.
"""

from __future__ import annotations

from typing import NamedTuple

from psycopg import Error
from psycopg.pq import ExecStatus

from tests.isolation.plain import Connection, names

SWITCH = "set_config('app.tenant_id', '{b}', true)"
NESTED = "set_config(''app.tenant_id'', ''{b}'', true)"
FUNCTION = "FUNCTION pg_temp.switch() RETURNS void LANGUAGE"


class Injection(NamedTuple):
    statement: str
    opens: bool


INJECTIONS = {
    "select list": Injection(f"SELECT {SWITCH}", opens=True),
    "qualified": Injection(f"SELECT pg_catalog.{SWITCH}", opens=True),
    "quoted": Injection("SELECT pg_catalog.\"set_config\"('app.tenant_id', '{b}', true)", opens=True),
    "unicode escape": Injection("SELECT pg_catalog.U&\"\\0073et_config\"('app.tenant_id', '{b}', true)", opens=True),
    "for the session": Injection("SELECT set_config('app.tenant_id', '{b}', false)", opens=True),
    "select list beside a column": Injection(f"SELECT {SWITCH}, name FROM people", opens=True),
    "where": Injection(f"SELECT name FROM people WHERE {SWITCH} IS NOT NULL", opens=True),
    "order by": Injection(f"SELECT name FROM people ORDER BY {SWITCH}", opens=True),
    "having": Injection(f"SELECT count(*) FROM people HAVING {SWITCH} IS NOT NULL", opens=True),
    "aggregate's filter": Injection(f"SELECT count(*) FILTER (WHERE {SWITCH} IS NOT NULL) FROM people", opens=True),
    "aggregate's argument": Injection(f"SELECT string_agg({SWITCH}, ',') FROM people", opens=True),
    "limit": Injection(f"SELECT name FROM people LIMIT length({SWITCH})", opens=True),
    "cte": Injection(f"WITH s AS MATERIALIZED (SELECT {SWITCH}) SELECT name FROM s, people", opens=True),
    "union": Injection(f"SELECT {SWITCH} UNION ALL SELECT name FROM people", opens=True),
    "sub-select": Injection(f"SELECT (SELECT {SWITCH}), name FROM people", opens=True),
    "from": Injection(f"SELECT * FROM {SWITCH}", opens=True),
    "lateral": Injection(
        f"SELECT p.name FROM (SELECT {SWITCH} AS s OFFSET 0) x, LATERAL "
        "(SELECT name FROM people WHERE x.s IS NOT NULL OFFSET 0) p",
        opens=True,
    ),
    "values": Injection(f"VALUES ({SWITCH})", opens=True),
    "update's value": Injection(f"UPDATE people SET name = coalesce({SWITCH}, '')", opens=False),
    "returning": Injection(f"UPDATE people SET name = name RETURNING {SWITCH}", opens=True),
    "copy": Injection(f"COPY (SELECT {SWITCH}) TO STDOUT", opens=True),
    "explain": Injection(f"EXPLAIN (ANALYZE) SELECT {SWITCH}", opens=True),
    "case": Injection(f"SELECT CASE WHEN length({SWITCH}) > 0 THEN 1 END", opens=True),
    "the account": Injection("SELECT set_config('app.account_id', '{b}', true)", opens=False),
    "the role": Injection("SELECT set_config('role', 'tenancy_owner', true)", opens=False),
    "row_security": Injection("SELECT set_config('row_security', 'off', true)", opens=False),
    "pg_settings": Injection("UPDATE pg_settings SET setting = '{b}' WHERE name = 'app.tenant_id'", opens=False),
    "pg_settings, for a statement's timeout": Injection(
        "UPDATE pg_settings SET setting = 0 WHERE name = 'statement_timeout'", opens=False
    ),
    "pg_settings with a switch": Injection(
        f"UPDATE pg_settings SET setting = {SWITCH} WHERE name = 'application_name'", opens=True
    ),
    "pg_settings, none of them": Injection("UPDATE pg_settings SET setting = setting WHERE false", opens=False),
    "query_to_xml": Injection(f"SELECT query_to_xml('SELECT {NESTED}', true, false, '')", opens=False),
    "query_to_xmlschema": Injection(f"SELECT query_to_xmlschema('SELECT {NESTED}', true, false, '')", opens=False),
    "table_to_xml": Injection("SELECT table_to_xml('people', true, false, '')", opens=False),
    "schema_to_xml": Injection("SELECT schema_to_xml('public', true, false, '')", opens=False),
    "database_to_xml": Injection("SELECT database_to_xml(true, false, '')", opens=False),
    "ts_stat": Injection(f"SELECT * FROM ts_stat('SELECT to_tsvector({NESTED})')", opens=True),
    "ts_stat with weights": Injection(f"SELECT * FROM ts_stat('SELECT to_tsvector({NESTED})', 'a')", opens=True),
    "ts_rewrite": Injection(
        f"SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, to_tsquery({NESTED.replace('-', '')})')", opens=True
    ),
    "ts_stat of any string": Injection("SELECT * FROM ts_stat('SELECT to_tsvector(''a'')')", opens=False),
    "ts_rewrite of any string": Injection(
        "SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, ''b''::tsquery')", opens=False
    ),
    "do": Injection(f"DO $$ BEGIN PERFORM {SWITCH}; END $$", opens=True),
    "do with set": Injection("DO $$ BEGIN SET LOCAL app.tenant_id = '{b}'; END $$", opens=True),
    "do in sql": Injection("DO LANGUAGE sql $$ SELECT 1 $$", opens=False),
    "temporary function": Injection(f"CREATE {FUNCTION} plpgsql AS 'BEGIN PERFORM 1; END'", opens=False),
    "temporary function with its own setting": Injection(
        f"CREATE {FUNCTION} sql SET app.tenant_id = '{{b}}' AS 'SELECT 1'", opens=False
    ),
    "function": Injection("CREATE FUNCTION switch() RETURNS int LANGUAGE sql AS 'SELECT 1'", opens=False),
    "temporary table": Injection("CREATE TEMP TABLE people AS SELECT 1", opens=False),
    "large object": Injection("SELECT lo_from_bytea(0, 'seen by every tenant')", opens=False),
    "other session ended": Injection("SELECT pg_terminate_backend(pg_backend_pid() + 1)", opens=False),
    "other session's statement": Injection("SELECT query FROM pg_stat_activity", opens=False),
    "file": Injection("SELECT pg_read_file('pg_hba.conf')", opens=False),
}


def perform(connection: Connection, statement: str) -> tuple[str | None, str]:
    """Send one statement by the extended protocol, then read the people.

    Returns the SQLSTATE of the statement, None when it ran, and everything that was shown.
    """
    shown: list[object] = []
    result = connection.pgconn.exec_params(statement.encode(), None)
    if result.status == ExecStatus.FATAL_ERROR:
        return (result.error_field(67) or b"").decode(), ""  # the code of a SQLSTATE
    if result.status == ExecStatus.COPY_OUT:
        while (copied := connection.pgconn.get_copy_data(0))[0] > 0:
            shown.append(bytes(copied[1]))
        while connection.pgconn.get_result() is not None:
            pass
    shown += [result.get_value(row, column) for row in range(result.ntuples) for column in range(result.nfields)]
    try:
        shown += names(connection)
    except Error as error:
        shown.append(error.sqlstate)
    return None, repr(shown)
