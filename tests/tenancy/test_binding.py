import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from tenancy.binding import create_async_tenant_engine, create_tenant_engine, guard_engine
from tenancy.context import platform_scope, tenant_scope
from tenancy.errors import ConfigurationError, UnsafeConnectionError
from tests.conftest import ROLES, Database, SomeTenant
from tests.tenancy.engines import answers, column, dbapi_of, on_both_drivers, play_sync

NAMES = "SELECT name FROM people"
URL = "postgresql+psycopg://tenancy_app@localhost/db"


def never() -> Any:
    raise AssertionError("nobody should connect")


CREATORS = pytest.mark.parametrize("create", [create_tenant_engine, create_async_tenant_engine])


@CREATORS
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"isolation_level": "AUTOCOMMIT"}, "isolation_level='AUTOCOMMIT'"),
        ({"isolation_level": "autocommit"}, "isolation_level='AUTOCOMMIT'"),
        ({"execution_options": {"isolation_level": "AUTOCOMMIT"}}, "isolation_level='AUTOCOMMIT'"),
        ({"skip_autocommit_rollback": True}, "skip_autocommit_rollback=True"),
        ({"pool_reset_on_return": None}, "pool_reset_on_return=None"),
        ({"pool_reset_on_return": False}, "pool_reset_on_return=False"),
        ({"pool_reset_on_return": "commit"}, "pool_reset_on_return='commit'"),
        ({"creator": never}, "creator="),
        ({"async_creator": never}, "async_creator="),
        ({"pool": NullPool(never)}, "pool="),
    ],
)
def test_option_that_lets_a_statement_run_unbound_is_refused(
    create: Callable[..., object], options: dict[str, Any], named: str
) -> None:
    """T065, T088"""
    with pytest.raises(ConfigurationError) as caught:
        create(URL, **options)

    assert caught.value.message.startswith(named)


@CREATORS
@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg2", "postgresql+asyncpg", "sqlite"])
def test_url_of_another_driver_is_refused(create: Callable[..., object], driver: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"needs the psycopg driver, not '{driver}'")):
        create(f"{driver}://app@localhost/db" if driver != "sqlite" else "sqlite://")


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+psycopg_async"])
async def test_asynchronous_engine_takes_either_name_of_the_driver(driver: str) -> None:
    engine = create_async_tenant_engine(f"{driver}://app@localhost/db", pool_size=3)

    assert engine.dialect.is_async
    assert engine.url.host == "localhost"
    assert engine.pool.size() == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["rollback", True])
def test_pool_that_rolls_back_is_accepted(value: object) -> None:
    create_tenant_engine(URL, pool_reset_on_return=value).dispose()


def test_engine_of_another_driver_is_not_guarded() -> None:
    with pytest.raises(ConfigurationError, match=r"not 'sqlite\+pysqlite'"):
        guard_engine(create_engine("sqlite://"))


def test_engine_that_skips_rollbacks_is_not_guarded() -> None:
    """T088"""
    with pytest.raises(ConfigurationError, match=r"^skip_autocommit_rollback=True "):
        guard_engine(create_engine(URL, skip_autocommit_rollback=True))


@pytest.mark.parametrize("value", [None, "commit"])
def test_engine_whose_pool_does_not_roll_back_is_not_guarded(value: Any) -> None:
    """T088"""
    with pytest.raises(ConfigurationError, match=r"^pool_reset_on_return='not rollback' "):
        guard_engine(create_engine(URL, pool_reset_on_return=value))


def test_engine_in_autocommit_is_not_guarded() -> None:
    """T065"""
    with pytest.raises(ConfigurationError, match="isolation_level='AUTOCOMMIT'"):
        guard_engine(create_engine(URL, execution_options={"isolation_level": "AUTOCOMMIT"}))


def test_engine_made_by_someone_else_carries_the_scope_once_guarded(
    database: Database, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    person_of(acme, "Ada")
    person_of(globex, "Eve")
    engine = create_engine(database.url(ROLES.app))

    assert guard_engine(engine) is engine
    with tenant_scope(acme.id), engine.connect() as connection:
        assert column(connection, NAMES) == ["Ada"]
    engine.dispose()


def test_engine_guarded_after_its_first_connection_is_refused(database: Database, acme: SomeTenant) -> None:
    engine = create_engine(database.url(ROLES.app), pool_size=1, max_overflow=0)
    with engine.connect():
        pass

    guard_engine(engine)
    with tenant_scope(acme.id), pytest.raises(ConfigurationError, match="not made by the library"):  # noqa: SIM117
        with engine.connect() as connection:
            column(connection, NAMES)
    engine.dispose()


async def test_async_engine_made_by_someone_else_carries_the_scope_once_guarded(
    database: Database, acme: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    person_of(acme, "Ada")
    engine = create_async_engine(database.url(ROLES.app))
    guard_engine(engine.sync_engine)

    with tenant_scope(acme.id):
        async with engine.connect() as connection:
            found = await connection.run_sync(lambda sync: column(sync, NAMES))
    await engine.dispose()

    assert found == ["Ada"]


def test_connection_that_comes_back_with_a_transaction_open_is_refused(
    database: Database, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    """T088: B's session read A's rows; here by a pool class that keeps one connection for all."""
    person_of(acme, "Ada")

    def story(engine: Engine) -> None:
        with tenant_scope(acme.id), engine.connect() as first:
            assert column(first, NAMES) == ["Ada"]
            with (
                tenant_scope(globex.id),
                pytest.raises(ConfigurationError, match="with a transaction still open"),
                engine.connect() as second,
            ):
                column(second, NAMES)

    play_sync(database.url(ROLES.app), story, poolclass=StaticPool)


@on_both_drivers
def test_cursor_class_of_ones_own_is_refused(play: Callable[..., Any], database: Database, acme: SomeTenant) -> None:
    """psycopg takes it as a connection argument, in the place of the cursor that binds and guards."""

    def story(engine: Engine) -> None:
        with (
            tenant_scope(acme.id),
            pytest.raises(ConfigurationError, match=r"^cursor_factory=<class"),
            engine.connect(),
        ):
            pass

    play(database.url(ROLES.app), story, connect_args={"cursor_factory": psycopg.ClientCursor})


@pytest.mark.parametrize("role", ["app", "platform"])
def test_engine_takes_a_url_object(database: Database, role: str, acme: SomeTenant) -> None:
    engine = create_tenant_engine(make_url(database.url(f"{ROLES.prefix}_{role}")))
    with dbapi_of(engine) as dbapi:
        assert answers(dbapi, "SELECT session_user::text") == [f"{ROLES.prefix}_{role}"]
    engine.dispose()


def test_app_role_is_told_from_the_platform_role_by_its_rights(database: Database) -> None:
    """Not by its name, which has a prefix of the installation's own."""
    for role, is_platform in ((ROLES.app, False), (ROLES.platform, True)):
        engine = create_tenant_engine(database.url(role))
        pooled = engine.raw_connection()
        driver: Any = pooled.driver_connection
        assert driver.state.is_platform is is_platform
        pooled.close()
        engine.dispose()


def test_database_without_the_library_serves_lookups_of_nothing(empty_database: Database, acme: SomeTenant) -> None:
    """Before the first migration the engine connects; the app role can read no table there."""
    engine = create_tenant_engine(empty_database.url(ROLES.app))

    with tenant_scope(acme.id), engine.connect() as connection:
        assert column(connection, "SELECT 1") == [1]
    engine.dispose()


def test_failed_audit_row_leaves_the_connection_usable(fresh_database: Database) -> None:
    with fresh_database.connect("postgres") as admin:
        admin.execute("ALTER TABLE tenancy.platform_session ADD CHECK (reason <> 'refused')")
    engine = create_tenant_engine(fresh_database.url(ROLES.platform), pool_size=1, max_overflow=0)

    with (
        platform_scope(actor="ana", reason="refused"),
        pytest.raises(IntegrityError),
        engine.connect() as connection,
    ):
        column(connection, NAMES)
    with platform_scope(actor="ana", reason="accepted"), engine.connect() as connection:
        found = column(connection, NAMES)
    engine.dispose()

    assert found == []


def test_unsafe_role_is_refused_at_the_first_connection_not_at_creation(database: Database) -> None:
    engine = create_tenant_engine(database.url("postgres"))

    with pytest.raises(UnsafeConnectionError), engine.connect():
        pass
    engine.dispose()
