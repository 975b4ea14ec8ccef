from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import ProgrammingError

from tenancy.context import tenant_scope
from tenancy.errors import NoTenantError, WrongTenantError
from tests.conftest import SomeTenant
from tests.models import Base, Person
from tests.tenancy.engines import answers, column, dbapi_of, on_both_drivers

Play = Callable[..., Any]
NAMES = "SELECT name FROM people ORDER BY name"
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 0}


@on_both_drivers
def test_each_tenant_sees_its_own_rows_on_one_connection(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T087: Core through engine.connect() and engine.begin()."""

    def story(engine: Engine) -> list[list[str]]:
        found = []
        for tenant in (acme, globex, acme):
            with tenant_scope(tenant.id):
                with engine.connect() as connection:
                    found.append(column(connection, NAMES))
                with engine.begin() as connection:
                    found.append(list(connection.scalars(select(Person.name))))
        return found

    found = play(people_url, story, **ONE_CONNECTION)

    assert found == [["Ada"], ["Ada"], ["Eve"], ["Eve"], ["Ada"], ["Ada"]]


@on_both_drivers
@pytest.mark.parametrize("way", ["connect", "begin"])
def test_statement_without_a_scope_raises_with_a_hint(play: Play, people_url: str, way: str) -> None:
    """T063, T087: on a fresh connection; never 0 rows, never 22P02."""

    def story(engine: Engine) -> None:
        with getattr(engine, way)() as connection:
            connection.exec_driver_sql(NAMES)

    with pytest.raises(ProgrammingError) as caught:
        play(people_url, story)

    assert isinstance(caught.value.orig, psycopg.errors.InsufficientPrivilege)
    assert caught.value.orig.diag.message_primary == "no tenant is bound to this transaction"
    assert "tenancy.tenant_scope(...)" in str(caught.value.orig.diag.message_hint)


@on_both_drivers
def test_raw_connection_sees_the_tenant_in_scope_and_nothing_without_one(
    play: Play, people_url: str, acme: SomeTenant
) -> None:
    """T087"""

    def story(engine: Engine) -> list[str]:
        with dbapi_of(engine) as dbapi, pytest.raises(psycopg.errors.InsufficientPrivilege):
            answers(dbapi, NAMES)
        with tenant_scope(acme.id), dbapi_of(engine) as dbapi:
            found: list[str] = answers(dbapi, NAMES)
        with dbapi_of(engine) as dbapi, pytest.raises(psycopg.errors.InsufficientPrivilege):
            answers(dbapi, NAMES)
        return found

    assert play(people_url, story, **ONE_CONNECTION) == ["Ada"]


# What the note of a scope survives --------------------------------------------------------------------


@on_both_drivers
@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_no_tenant_remains_after_a_transaction(play: Play, people_url: str, acme: SomeTenant, ending: str) -> None:
    """T063"""

    def story(engine: Engine) -> tuple[list[str], list[str]]:
        with tenant_scope(acme.id), dbapi_of(engine) as dbapi:
            found = answers(dbapi, NAMES)
            getattr(dbapi, ending)()
            again = answers(dbapi, NAMES)
            getattr(dbapi, ending)()
        with dbapi_of(engine) as dbapi:
            for _ in range(2):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant is bound"):
                    answers(dbapi, NAMES)
                dbapi.rollback()
        return found, again

    assert play(people_url, story, **ONE_CONNECTION) == (["Ada"], ["Ada"])


@on_both_drivers
def test_commit_and_rollback_in_a_scope_keep_its_tenant(play: Play, people_url: str, acme: SomeTenant) -> None:
    """T069"""

    def story(engine: Engine) -> list[list[str]]:
        found = []
        with tenant_scope(acme.id), engine.connect() as connection:
            found.append(column(connection, NAMES))
            connection.commit()
            found.append(column(connection, NAMES))
            connection.rollback()
            found.append(column(connection, NAMES))
        return found

    assert play(people_url, story) == [["Ada"], ["Ada"], ["Ada"]]


@on_both_drivers
def test_session_wide_setting_shows_nothing_to_an_unbound_transaction(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T068: the setting is made past the guard, by another cursor class; every BEGIN blanks it."""

    def story(engine: Engine) -> list[str]:
        with dbapi_of(engine) as dbapi:
            raw = dbapi.driver_connection
            setting = f"SELECT set_config('app.tenant_id', '{globex.id}', false)".encode()
            assert raw.pgconn.exec_(setting).status == psycopg.pq.ExecStatus.TUPLES_OK
            assert raw.pgconn.exec_(b"SELECT name FROM people").get_value(0, 0) == b"Eve"
        with dbapi_of(engine) as dbapi, pytest.raises(psycopg.errors.InsufficientPrivilege):
            answers(dbapi, NAMES)
        with tenant_scope(acme.id), engine.connect() as connection:
            return column(connection, NAMES)

    assert play(people_url, story, **ONE_CONNECTION) == ["Ada"]


@on_both_drivers
def test_held_connection_is_refused_after_a_switch(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    def story(engine: Engine) -> None:
        with tenant_scope(acme.id), engine.connect() as connection:
            assert column(connection, NAMES) == ["Ada"]
            with tenant_scope(globex.id), pytest.raises(WrongTenantError, match="never changes tenant"):
                column(connection, NAMES)
            assert column(connection, NAMES) == ["Ada"]

    play(people_url, story)


@on_both_drivers
def test_transaction_serves_another_scope_of_the_same_tenant(play: Play, people_url: str, acme: SomeTenant) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.connect() as connection:
            column(connection, "SELECT 1")
            with tenant_scope(acme.id):
                return column(connection, NAMES)

    assert play(people_url, story) == ["Ada"]


@on_both_drivers
def test_transaction_begun_without_a_scope_is_refused_inside_one(play: Play, people_url: str, acme: SomeTenant) -> None:
    def story(engine: Engine) -> None:
        with engine.connect() as connection:
            column(connection, "SELECT 1")
            with tenant_scope(acme.id), pytest.raises(WrongTenantError):
                column(connection, NAMES)

    play(people_url, story)


@on_both_drivers
def test_held_connection_is_refused_after_its_scope(play: Play, people_url: str, acme: SomeTenant) -> None:
    def story(engine: Engine) -> None:
        with engine.connect() as connection:
            with tenant_scope(acme.id):
                assert column(connection, NAMES) == ["Ada"]
            with pytest.raises(NoTenantError, match="that scope has ended"):
                column(connection, NAMES)

    play(people_url, story)


@on_both_drivers
def test_transaction_begun_for_a_scope_is_refused_in_another_before_its_first_statement(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    """SQLAlchemy's `begin` only notes the scope; the note is compared when the statement comes."""

    def story(engine: Engine) -> None:
        with tenant_scope(acme.id), engine.begin() as connection, tenant_scope(globex.id):
            column(connection, NAMES)

    with pytest.raises(WrongTenantError):
        play(people_url, story)


@on_both_drivers
def test_held_connection_follows_the_scope_between_transactions(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    def story(engine: Engine) -> list[list[str]]:
        found = []
        with engine.connect() as connection:
            for tenant in (acme, globex):
                with tenant_scope(tenant.id):
                    found.append(column(connection, NAMES))
                    connection.commit()
        return found

    assert play(people_url, story) == [["Ada"], ["Eve"]]


# Statements that come first in their transaction ------------------------------------------------------


def _executemany(dbapi: Any, tenant: SomeTenant) -> None:
    cursor = dbapi.cursor()
    cursor.executemany(
        "INSERT INTO people (tenant_id, id, name, email) VALUES (%s, gen_random_uuid(), %s, %s)",
        [(tenant.id, "Bob", "bob@acme.test"), (tenant.id, "Cy", "cy@acme.test")],
    )
    cursor.close()


@on_both_drivers
def test_executemany_may_open_a_transaction(play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id):
            with dbapi_of(engine) as dbapi:
                _executemany(dbapi, acme)
                dbapi.commit()
            with dbapi_of(engine) as dbapi, pytest.raises(psycopg.errors.InsufficientPrivilege):
                _executemany(dbapi, globex)
            with engine.connect() as connection:
                return column(connection, NAMES)

    assert play(people_url, story) == ["Ada", "Bob", "Cy"]


@on_both_drivers
def test_server_cursor_may_open_a_transaction(play: Play, people_url: str, acme: SomeTenant) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.connect() as connection:
            streamed = connection.execution_options(yield_per=1).execute(select(Person.name))
            return list(streamed.scalars())

    assert play(people_url, story) == ["Ada"]


@on_both_drivers
@pytest.mark.parametrize("fetch", ["fetchmany", "fetchall"])
def test_open_server_cursor_is_refused_in_another_scope(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant, fetch: str
) -> None:
    """T070"""

    def story(engine: Engine) -> None:
        with tenant_scope(acme.id), engine.connect() as connection:
            streamed = connection.execution_options(stream_results=True, max_row_buffer=1).execute(select(Person.name))
            with tenant_scope(globex.id), pytest.raises(WrongTenantError):
                getattr(streamed, fetch)()

    play(people_url, story)


@on_both_drivers
def test_core_insert_update_and_delete_touch_only_the_tenant(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    people = Base.metadata.tables["people"]

    def story(engine: Engine) -> list[list[str]]:
        with tenant_scope(acme.id), engine.begin() as connection:
            connection.execute(insert(Person).values(name="Bob", email="bob@acme.test"))
            connection.execute(insert(Person), [{"name": n, "email": n} for n in ("Cy", "Di")])
            connection.execute(update(people).values(name=people.c.name + "!"))
            connection.execute(delete(people).where(people.c.name == "Di!"))
        found = []
        for tenant in (acme, globex):
            with tenant_scope(tenant.id), engine.connect() as connection:
                found.append(column(connection, NAMES))
        return found

    assert play(people_url, story) == [["Ada!", "Bob!", "Cy!"], ["Eve"]]


# Savepoints -------------------------------------------------------------------------------------------


@on_both_drivers
@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_savepoint_as_first_statement_leaves_the_tenant_bound(
    play: Play, people_url: str, acme: SomeTenant, ending: str
) -> None:
    """The binding comes before the savepoint: rolling back to it does not undo it."""

    def story(engine: Engine) -> tuple[list[str], list[str]]:
        with tenant_scope(acme.id), engine.connect() as connection:
            savepoint = connection.begin_nested()
            inside = column(connection, NAMES)
            getattr(savepoint, ending)()
            return inside, column(connection, NAMES)

    assert play(people_url, story) == (["Ada"], ["Ada"])


@on_both_drivers
def test_savepoint_survives_a_failed_statement(play: Play, people_url: str, acme: SomeTenant) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.begin() as connection:
            with pytest.raises(ProgrammingError), connection.begin_nested():
                connection.exec_driver_sql("SELECT nothing FROM nowhere")
            return column(connection, NAMES)

    assert play(people_url, story) == ["Ada"]


@on_both_drivers
def test_scope_opened_inside_a_savepoint_gets_no_statement(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T066"""

    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.begin() as connection:
            savepoint = connection.begin_nested()
            with tenant_scope(globex.id), pytest.raises(WrongTenantError):
                column(connection, NAMES)
            savepoint.rollback()
            return column(connection, NAMES)

    assert play(people_url, story) == ["Ada"]
