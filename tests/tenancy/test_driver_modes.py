from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import ProgrammingError

from tenancy.context import tenant_scope
from tenancy.errors import ConfigurationError, StatementRefusedError
from tests.conftest import SomeTenant
from tests.tenancy.engines import answers, column, dbapi_of, on_both_drivers

Play = Callable[..., Any]
NAMES = "SELECT name FROM people ORDER BY name"
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 0}


# Modes that would lose the binding --------------------------------------------------------------------


@on_both_drivers
def test_autocommit_is_refused_on_the_driver_connection(play: Play, people_url: str) -> None:
    """T065: SQLAlchemy sets False with an isolation level, and that is ignored."""

    def story(engine: Engine) -> bool:
        with dbapi_of(engine) as dbapi:
            dbapi.dbapi_connection.autocommit = False
            with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                dbapi.dbapi_connection.autocommit = True
            return bool(dbapi.driver_connection.autocommit)

    assert play(people_url, story) is True


@on_both_drivers
@pytest.mark.parametrize("level", ["engine", "connection"])
def test_autocommit_option_is_refused(play: Play, people_url: str, acme: SomeTenant, level: str) -> None:
    """T065"""

    def story(engine: Engine) -> None:
        with tenant_scope(acme.id):
            if level == "engine":
                engine.execution_options(isolation_level="autocommit")
            with engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")

    with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        play(people_url, story)


@on_both_drivers
def test_two_phase_transaction_is_refused(play: Play, people_url: str, acme: SomeTenant) -> None:
    """T059"""

    def story(engine: Engine) -> None:
        with tenant_scope(acme.id), engine.connect() as connection:
            connection.begin_twophase()

    with pytest.raises(ConfigurationError, match="prepared transaction"):
        play(people_url, story)


CHARACTER = """
SELECT concat_ws(', ', current_setting('transaction_isolation'), current_setting('transaction_read_only'),
                 current_setting('transaction_deferrable'))
"""


@on_both_drivers
@pytest.mark.parametrize(
    ("options", "character"),
    [
        ({}, "read committed, off, off"),
        ({"isolation_level": "REPEATABLE READ"}, "repeatable read, off, off"),
        ({"isolation_level": "READ UNCOMMITTED"}, "read uncommitted, off, off"),
        ({"isolation_level": "SERIALIZABLE", "postgresql_readonly": True}, "serializable, on, off"),
        (
            {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True, "postgresql_deferrable": True},
            "serializable, on, on",
        ),
        ({"postgresql_readonly": False, "postgresql_deferrable": False}, "read committed, off, off"),
    ],
)
def test_transaction_has_the_character_its_connection_asks_for(
    play: Play, people_url: str, acme: SomeTenant, options: dict[str, Any], character: str
) -> None:
    def story(engine: Engine) -> tuple[list[str], list[str], list[str]]:
        with tenant_scope(acme.id):
            with engine.connect().execution_options(**options) as connection:
                shown = column(connection, CHARACTER)
                names = column(connection, NAMES)
            with engine.connect() as connection:
                return shown, names, column(connection, CHARACTER)

    assert play(people_url, story, **ONE_CONNECTION) == ([character], ["Ada"], ["read committed, off, off"])


@on_both_drivers
def test_engine_wide_isolation_level_is_kept(play: Play, people_url: str, acme: SomeTenant) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.connect() as connection:
            return column(connection, CHARACTER)

    assert play(people_url, story, isolation_level="SERIALIZABLE") == ["serializable, off, off"]


@on_both_drivers
def test_pre_ping_neither_begins_nor_loses_a_transaction(play: Play, people_url: str, acme: SomeTenant) -> None:
    pings = []

    def story(engine: Engine) -> list[list[str]]:
        event.listen(
            engine, "checkout", lambda _, entry, __: pings.append(entry.driver_connection.info.transaction_status)
        )
        found = []
        for _ in range(2):
            with tenant_scope(acme.id), engine.connect() as connection:
                found.append(column(connection, NAMES))
        return found

    found = play(people_url, story, pool_pre_ping=True, **ONE_CONNECTION)

    assert found == [["Ada"], ["Ada"]]
    assert set(pings) == {psycopg.pq.TransactionStatus.IDLE}


# The extended protocol --------------------------------------------------------------------------------


@on_both_drivers
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("parameters", [(), (None,), ((),), ({},), ((1,),)])
def test_two_statements_in_one_text_are_refused(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant, is_first: bool, parameters: tuple[Any, ...]
) -> None:
    """T092: by the simple protocol, the second one would switch the tenant."""
    one = "%s::int" if parameters == ((1,),) else "1"

    def story(engine: Engine) -> None:
        with tenant_scope(acme.id), dbapi_of(engine) as dbapi:
            if not is_first:
                assert answers(dbapi, NAMES) == ["Ada"]
            with pytest.raises(psycopg.errors.SyntaxError, match="multiple commands"):
                answers(dbapi, f"SELECT {one}; SET LOCAL app.tenant_id = '{globex.id}'", *parameters)
            dbapi.rollback()
            assert answers(dbapi, NAMES) == ["Ada"]

    play(people_url, story)


@on_both_drivers
def test_two_statements_in_sqlalchemy_text_are_refused(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T092"""

    def story(engine: Engine) -> None:
        switch = f"SELECT 1; SET LOCAL app.tenant_id = '{globex.id}'"
        with tenant_scope(acme.id), engine.connect() as connection:
            for statement in (text(switch), text(switch.replace("1", ":one", 1)).bindparams(one=1)):
                assert column(connection, NAMES) == ["Ada"]
                with pytest.raises(ProgrammingError, match="multiple commands"):
                    connection.execute(statement)
                connection.rollback()

    play(people_url, story)


@on_both_drivers
@pytest.mark.parametrize(
    "statement",
    [
        "SET app.tenant_id = ''",
        "set local app.tenant_id = ''",
        "SELECT set_config('app.tenant_id', '', true)",
        "RESET ALL",
        "DISCARD ALL",
        "EXPLAIN SELECT 1",
        "LISTEN tenancy_tenant",
        "PREPARE TRANSACTION 'x'",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    ],
)
def test_guard_refuses_at_the_cursor_and_sends_nothing(
    play: Play, people_url: str, acme: SomeTenant, statement: str
) -> None:
    """T049, T057, T059, T063, T067"""

    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), dbapi_of(engine) as dbapi:
            with pytest.raises(StatementRefusedError):
                answers(dbapi, statement)
            assert dbapi.driver_connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            return answers(dbapi, NAMES)

    assert play(people_url, story) == ["Ada"]


@on_both_drivers
def test_guard_refuses_set_inside_a_released_savepoint(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T067"""

    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.begin() as connection:
            with connection.begin_nested(), pytest.raises(StatementRefusedError):
                connection.execute(text("SET LOCAL app.tenant_id = :t"), {"t": str(globex.id)})
            return column(connection, NAMES)

    assert play(people_url, story) == ["Ada"]
