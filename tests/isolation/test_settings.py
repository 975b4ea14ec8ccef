"""T063-T072: the settings that carry the scope, at a plain connection of the app role."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.pool import NullPool

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.rls import differences, guarded
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Base, Person
from tests.tenancy.engines import column

Connection = psycopg.Connection[Any]
NAMES = "SELECT name FROM people ORDER BY name"


@pytest.fixture
def app(
    database: Database, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> Iterator[Connection]:
    person_of(acme, "Ada")
    person_of(globex, "Eve")
    with database.connect(ROLES.app) as connection:
        yield connection


def names(connection: Connection) -> list[str]:
    return [row[0] for row in connection.execute(NAMES).fetchall()]


def bind(connection: Connection, value: str, *, local: bool = True) -> None:
    connection.execute("SELECT set_config('app.tenant_id', %s, %s)", [value, local])


@pytest.mark.parametrize("ending", ["nothing", "COMMIT", "ROLLBACK", "RESET ALL", "DISCARD ALL", "RESET app.tenant_id"])
def test_no_tenant_is_left_behind(app: Connection, acme: SomeTenant, ending: str) -> None:
    """T063: 42501 each time; never 22P02 from the empty string, never rows."""
    if ending != "nothing":
        bind(app, str(acme.id))
        assert names(app) == ["Ada"]
        app.rollback() if ending == "ROLLBACK" else app.commit()
        app.autocommit = True
        if ending not in ("COMMIT", "ROLLBACK"):
            app.execute(ending.encode())

    for _ in range(2):
        with pytest.raises(errors.InsufficientPrivilege, match="no tenant is bound"):
            names(app)
        app.rollback()


def test_hint_of_the_server_names_the_next_step(app: Connection) -> None:
    """T063"""
    with pytest.raises(errors.InsufficientPrivilege) as caught:
        names(app)

    assert caught.value.sqlstate == "42501"
    assert caught.value.diag.message_hint == (
        "run it inside tenancy.tenant_scope(...), or SET LOCAL app.tenant_id first"
    )


@pytest.mark.parametrize("value", [" ", "acme", "x' OR true --", "{}", "1", "00000000", "*", "null"])
def test_value_that_is_no_uuid_is_an_error(app: Connection, value: str) -> None:
    """T064"""
    bind(app, value)

    with pytest.raises(errors.InvalidTextRepresentation):
        names(app)


def test_list_of_two_tenants_is_an_error(app: Connection, acme: SomeTenant, globex: SomeTenant) -> None:
    """T064"""
    bind(app, f"{acme.id},{globex.id}")

    with pytest.raises(errors.InvalidTextRepresentation):
        names(app)


@pytest.mark.parametrize("spell", [str.upper, lambda text: "{" + text + "}", lambda text: text.replace("-", "")])
def test_other_spelling_of_a_uuid_is_the_same_tenant(
    app: Connection, acme: SomeTenant, spell: Callable[[str], str]
) -> None:
    """T064"""
    bind(app, spell(str(acme.id)))

    assert names(app) == ["Ada"]


def test_library_sends_the_canonical_spelling(app_engine: Engine, acme: SomeTenant) -> None:
    """T064"""
    with tenant_scope(UUID(str(acme.id).upper())), app_engine.connect() as connection:
        assert column(connection, "SELECT current_setting('app.tenant_id')") == [str(acme.id)]


def test_autocommit_statement_without_a_binding_is_an_error(app: Connection, acme: SomeTenant) -> None:
    """T065: SET LOCAL outside a transaction holds for nothing."""
    app.autocommit = True
    bind(app, str(acme.id))

    with pytest.raises(errors.InsufficientPrivilege, match="no tenant is bound"):
        names(app)


def test_savepoint_rolled_back_takes_its_binding_with_it(app: Connection, acme: SomeTenant, globex: SomeTenant) -> None:
    """T066: why the library never binds inside one."""
    with app.transaction():
        bind(app, str(acme.id))
        with app.transaction() as inner:
            bind(app, str(globex.id))
            assert names(app) == ["Eve"]
            raise psycopg.Rollback(inner)
        assert names(app) == ["Ada"]


@pytest.mark.parametrize("mode", ["auto", "force_generic_plan", "force_custom_plan"])
def test_prepared_statement_follows_the_binding(
    app: Connection, acme: SomeTenant, globex: SomeTenant, mode: str
) -> None:
    """T050"""
    app.execute("SELECT set_config('plan_cache_mode', %s, false)", [mode])
    found = []
    for tenant in [acme] * 12 + [globex]:
        with app.transaction():
            bind(app, str(tenant.id))
            found.append([row[0] for row in app.execute(NAMES, prepare=True).fetchall()])

    assert found == [["Ada"]] * 12 + [["Eve"]]


def test_parallel_plan_gives_the_rows_of_a_serial_one(
    app: Connection, acme: SomeTenant, globex: SomeTenant, truth: Connection
) -> None:
    """T071"""
    truth.cursor().executemany(
        "INSERT INTO tags (tenant_id, id, label) SELECT %s, gen_random_uuid(), n::text FROM generate_series(1, 2000) n",
        [(acme.id,), (globex.id,)],
    )
    counted = "SELECT count(*), count(DISTINCT tenant_id) FROM tags"

    with app.transaction():
        bind(app, str(acme.id))
        serial = app.execute(counted.encode()).fetchone()
        for setting in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
            app.execute(f"SET LOCAL {setting} = 0".encode())
        app.execute("SET LOCAL debug_parallel_query = on" if app.info.server_version >= 160000 else
                    "SET LOCAL force_parallel_mode = on")  # fmt: skip
        plan = "\n".join(row[0] for row in app.execute(f"EXPLAIN {counted}".encode()).fetchall())
        parallel = app.execute(counted.encode()).fetchone()

    assert "Gather" in plan
    assert serial == parallel == (2000, 1)


def test_pipeline_without_a_binding_raises_and_with_one_reads_one_tenant(
    app: Connection, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T072"""
    with pytest.raises(errors.InsufficientPrivilege), app.pipeline():
        app.execute(NAMES)
    app.rollback()

    with app.pipeline() as pipeline:
        bind(app, str(acme.id))
        first = app.execute(NAMES)
        pipeline.sync()
        second = app.execute(NAMES)

    assert (first.fetchall(), second.fetchall()) == ([("Ada",)], [("Ada",)])


def test_database_of_the_tests_is_canonical(database: Database) -> None:
    """What every test of this folder relies on."""
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.connect() as connection:
        assert differences(connection, guarded(Base.metadata), ROLES) == []


def test_temporary_table_named_like_a_model_hides_no_row(
    fresh_database: Database, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T033, T048: TEMP is granted here; A leaves the table on the connection that B gets."""
    with fresh_database.connect("postgres") as truth:
        truth.execute("SELECT set_config('session_replication_role', 'replica', true)")
        truth.execute(
            "INSERT INTO people (tenant_id, id, name, email) VALUES (%s, gen_random_uuid(), 'Eve', 'eve@test.example')",
            [globex.id],
        )
        truth.execute(f"GRANT TEMP ON DATABASE {fresh_database.name} TO {ROLES.app}".encode())
    engine = create_tenant_engine(fresh_database.url(ROLES.app), pool_size=1, max_overflow=0)

    with tenant_scope(acme.id), engine.begin() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE people AS SELECT gen_random_uuid() AS id, 'Forged' AS name")
    with tenant_scope(globex.id), engine.connect() as connection:
        found = column(connection, NAMES)
    engine.dispose()

    assert found == ["Eve"]


def test_values_of_a_query_are_not_shown_to_who_watches_the_server(
    app_engine: Engine, app: Connection, acme: SomeTenant, truth: Connection
) -> None:
    """T054"""
    with tenant_scope(acme.id), app_engine.connect() as connection:
        (pid,) = column(connection, "SELECT pg_backend_pid()")
        assert list(connection.scalars(select(Person.name).where(Person.name == "Ada"))) == ["Ada"]
        (query,) = truth.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() or ("",)

    assert "people.name = $1" in query
    assert "Ada" not in query
