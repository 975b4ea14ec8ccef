import pytest

from tenancy.errors import StatementRefusedError
from tenancy.statements import admit, admit_copy, judge


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("SET app.tenant_id = 'x'", "SET"),
        ("set local app.tenant_id = 'x'", "set"),
        ("SET SESSION AUTHORIZATION DEFAULT", "SET"),
        ("SET ROLE postgres", "SET"),
        ("  \n-- a comment\n SET x = 1", "SET"),
        ("/* one */ /* two */SET x = 1", "SET"),
        ("SET TRANSACTION READ WRITE", "SET"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE", "SET"),
        ("RESET app.tenant_id", "RESET"),
        ("DISCARD ALL", "DISCARD"),
        ("EXPLAIN (ANALYZE) SELECT 1", "EXPLAIN"),
        ("LISTEN c", "LISTEN"),
        ("UNLISTEN *", "UNLISTEN"),
        ("PREPARE TRANSACTION 'x'", "PREPARE"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("DEALLOCATE ALL", "DEALLOCATE"),
        ("DO $$ BEGIN END $$", "DO"),
        ("BEGIN", "BEGIN"),
        ("START TRANSACTION", "START"),
        ("COMMIT AND CHAIN", "COMMIT"),
        ("END", "END"),
        ("ABORT", "ABORT"),
        ("ROLLBACK", "ROLLBACK"),
        ("ROLLBACK PREPARED 'x'", "ROLLBACK"),
        ("ALTER ROLE tenancy_app SET app.tenant_id = 'x'", "ALTER ROLE"),
        ("alter  database d set app.tenant_id = 'x'", "alter database"),
        ("SELECT set_config('app.tenant_id', 'x', true)", "set_config"),
        ("SELECT pg_catalog.SET_CONFIG('a', 'b', false)", "SET_CONFIG"),
        ("WITH s AS (SELECT set_config('a', 'b', true)) SELECT * FROM people, s", "set_config"),
        ("SELECT query_to_xml('select set_config(...)', true, true, '')", "set_config"),
        ("DECLARE c CURSOR WITH  HOLD FOR SELECT 1", "WITH HOLD"),
        ("UPDATE pg_settings SET setting = 'x' WHERE name = 'app.tenant_id'", "UPDATE pg_settings"),
        ('UPDATE "pg_catalog"."pg_settings" SET setting = 1', 'UPDATE "pg_catalog"."pg_settings'),
    ],
)
def test_statement_that_could_change_or_outlive_the_scope_is_refused(sql: str, what: str) -> None:
    """T049, T057, T059, T067"""
    assert judge(sql).refused == what
    with pytest.raises(StatementRefusedError, match="not sent on a tenant connection"):
        admit(sql)


@pytest.mark.parametrize("sql", ["RESET ALL", "/* a /* b */ c */ SELECT 1"])
def test_refused_statement_is_not_taken_for_reading(sql: str) -> None:
    assert judge(sql).only_reads is False


def test_nested_comment_hides_no_statement() -> None:
    """T067: PostgreSQL nests comments, so what follows the first `*/` may still be one."""
    assert judge("/* a /* b */ c */ SET app.tenant_id = 'x'").refused == "a comment within a comment"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT settings FROM people WHERE name = 'SET'",
        "UPDATE people SET name = 'x'",
        "INSERT INTO people (name) VALUES ('x') ON CONFLICT DO NOTHING",
        "SET CONSTRAINTS ALL DEFERRED",
        "SET TRANSACTION READ ONLY",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SAVEPOINT one",
        "ROLLBACK TO SAVEPOINT one",
        "ROLLBACK WORK TO one",
        "RELEASE SAVEPOINT one",
        "SELECT reset FROM settings",
        "DOCUMENTS",
        "",
    ],
)
def test_ordinary_statement_is_admitted(sql: str) -> None:
    assert admit(sql).refused is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM people WHERE id = %s",
        "  select count(*), max(name) from people",
        "(SELECT 1) UNION (SELECT 2)",
        "-- why\nSELECT lower(name) FROM people WHERE id IN (1, 2)",
        "SELECT * FROM tenancy.tenant_by_slug(%s)",
        "SELECT pg_catalog.current_setting('x')",
    ],
)
def test_plain_select_only_reads(sql: str) -> None:
    assert judge(sql).only_reads


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO people (name) VALUES ('x')",
        "UPDATE people SET name = 'x'",
        "DELETE FROM people",
        "WITH gone AS (DELETE FROM people RETURNING 1) SELECT * FROM gone",
        "SELECT nextval('s')",
        "SELECT public.write_down (1)",
        'SELECT "write"(1)',
        "SELECT write/* */(1)",
        "SELECT lower--\n(1)",
        "SELECT * FROM people FOR UPDATE",
        "SELECT * FROM people FOR NO KEY UPDATE",
        "SELECT * FROM people FOR SHARE",
        "SELECT * INTO copied FROM people",
        "SELECT pg_advisory_xact_lock(1)",
        "VALUES (1)",
        "SAVEPOINT one",
        "COPY people TO STDOUT",
    ],
)
def test_statement_that_may_write_is_not_taken_for_reading(sql: str) -> None:
    """Ending such a transaction by COMMIT instead of ROLLBACK would keep what it wrote."""
    assert not judge(sql).only_reads


@pytest.mark.parametrize(
    "sql",
    [
        "COPY people TO STDOUT",
        "COPY people TO STDOUT ; \n",
        "COPY people FROM STDIN (FORMAT csv, DELIMITER ';')",
        "COPY people FROM STDIN WITH DELIMITER AS ';';",
    ],
)
def test_single_copy_is_admitted(sql: str) -> None:
    assert admit_copy(sql).refused is None


@pytest.mark.parametrize(
    "sql",
    [
        "COPY people TO STDOUT; SET LOCAL app.tenant_id = 'x'",
        "SELECT 1; COPY people TO STDOUT",
        "COPY people TO STDOUT;;",
        "COPY (SELECT 'a;b') TO STDOUT",
        "COPY people TO STDOUT (DELIMITER ';'); SELECT 1",
    ],
)
def test_copy_that_could_hold_a_second_statement_is_refused(sql: str) -> None:
    """T092"""
    with pytest.raises(StatementRefusedError, match="semicolon"):
        admit_copy(sql)


def test_guard_judges_copy_too() -> None:
    with pytest.raises(StatementRefusedError, match="set_config"):
        admit_copy("COPY (SELECT set_config('a', 'b', true)) TO STDOUT")


def test_verdict_on_a_long_text_is_given_anew_and_takes_no_memory() -> None:
    values = ", ".join("(1)" for _ in range(5_000))
    judge.cache_clear()

    assert admit(f"INSERT INTO numbers VALUES {values}") == (None, False)
    assert admit(f"SELECT {values}") == (None, True)
    with pytest.raises(StatementRefusedError, match="SET_config"):
        admit(f"INSERT INTO numbers VALUES {values}, (SET_config('a', 'b', true))")
    assert judge.cache_info().currsize == 0
