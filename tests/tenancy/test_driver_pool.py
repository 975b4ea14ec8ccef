from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, insert
from sqlalchemy.exc import DBAPIError, ProgrammingError

from tenancy.context import tenant_scope
from tests.conftest import SomeTenant
from tests.models import Person
from tests.tenancy.engines import column, on_both_drivers

Play = Callable[..., Any]
NAMES = "SELECT name FROM people ORDER BY name"
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 0}


# Prepared statements ----------------------------------------------------------------------------------


@on_both_drivers
def test_binding_many_tenants_fills_no_prepared_cache(play: Play, people_url: str, make_tenant: Any) -> None:
    tenants = [make_tenant("acme") for _ in range(12)]

    def story(engine: Engine) -> list[str]:
        for tenant in tenants:
            with tenant_scope(tenant.id), engine.connect() as connection:
                column(connection, "SELECT count(*) FROM people")
        with tenant_scope(tenants[0].id), engine.connect() as connection:
            return column(connection, "SELECT statement FROM pg_prepared_statements")

    assert play(people_url, story, **ONE_CONNECTION) == ["SELECT count(*) FROM people"]


@on_both_drivers
@pytest.mark.parametrize("setting", ["auto", "force_generic_plan"])
def test_prepared_statement_follows_the_tenant(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant, setting: str
) -> None:
    """T050: 12 executions under one tenant, then one under the other, on one connection."""

    def story(engine: Engine) -> list[list[str]]:
        found = []
        for tenant in [acme] * 12 + [globex]:
            with tenant_scope(tenant.id), engine.connect() as connection:
                found.append(column(connection, NAMES))
                assert column(connection, "SELECT current_setting('plan_cache_mode')") == [setting]
        return found

    option = f"?options=-c%20plan_cache_mode%3D{setting}"
    found = play(
        people_url.replace("?", option + "&", 1) if "?" in people_url else people_url + option, story, **ONE_CONNECTION
    )

    assert found == [["Ada"]] * 12 + [["Eve"]]


@on_both_drivers
def test_rollback_of_a_transaction_that_only_read_keeps_prepared_statements(
    play: Play, people_url: str, acme: SomeTenant
) -> None:
    def story(engine: Engine) -> list[int]:
        with tenant_scope(acme.id):
            for _ in range(7):
                with engine.connect() as connection:  # closing it rolls back
                    column(connection, NAMES)
            with engine.connect() as connection:
                return column(connection, "SELECT count(*) FROM pg_prepared_statements")

    assert play(people_url, story, **ONE_CONNECTION) == [1]


@on_both_drivers
def test_rollback_of_a_transaction_that_wrote_undoes_it(play: Play, people_url: str, acme: SomeTenant) -> None:
    def story(engine: Engine) -> list[list[str]]:
        found = []
        with tenant_scope(acme.id):
            with engine.connect() as connection:
                connection.execute(insert(Person).values(name="Bob", email="bob@acme.test"))
                found.append(column(connection, NAMES))
                connection.rollback()
            with engine.connect() as connection:
                found.append(column(connection, NAMES))
        return found

    assert play(people_url, story) == [["Ada", "Bob"], ["Ada"]]


@on_both_drivers
def test_failed_block_is_rolled_back_and_the_connection_serves_on(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    def story(engine: Engine) -> list[str]:
        def write_and_fail() -> None:
            with engine.begin() as connection:
                connection.execute(insert(Person).values(name="Bob", email="bob@acme.test"))
                connection.exec_driver_sql("SELECT nothing FROM nowhere")

        with tenant_scope(acme.id), pytest.raises(ProgrammingError):
            write_and_fail()
        with tenant_scope(globex.id), engine.begin() as connection:
            assert column(connection, NAMES) == ["Eve"]
        with tenant_scope(acme.id), engine.begin() as connection:
            return column(connection, NAMES)

    assert play(people_url, story, **ONE_CONNECTION) == ["Ada"]


@on_both_drivers
def test_first_statement_that_fails_leaves_nothing_behind(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), pytest.raises(ProgrammingError), engine.begin() as connection:
            connection.exec_driver_sql("SELECT nothing FROM nowhere")
        with tenant_scope(globex.id), engine.begin() as connection:
            return column(connection, NAMES)

    assert play(people_url, story, **ONE_CONNECTION) == ["Eve"]


# Lost connections -------------------------------------------------------------------------------------


@on_both_drivers
def test_pool_recovers_from_a_killed_connection_and_binds_anew(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant, truth: psycopg.Connection[Any]
) -> None:
    """T075: killed in the middle of a transaction; the next request is another tenant's."""

    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.connect() as connection:
            assert column(connection, NAMES) == ["Ada"]
            (pid,) = column(connection, "SELECT pg_backend_pid()")
            truth.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            with pytest.raises(DBAPIError):
                column(connection, NAMES)
        with tenant_scope(globex.id), engine.connect() as connection:
            return column(connection, NAMES)

    assert play(people_url, story, **ONE_CONNECTION) == ["Eve"]


@on_both_drivers
def test_connection_killed_while_pooled_fails_once(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant, truth: psycopg.Connection[Any]
) -> None:
    """T075"""

    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.connect() as connection:
            (pid,) = column(connection, "SELECT pg_backend_pid()")
        truth.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        with tenant_scope(globex.id):
            with pytest.raises(DBAPIError), engine.connect() as connection:
                column(connection, NAMES)
            with engine.connect() as connection:
                return column(connection, NAMES)

    assert play(people_url, story, **ONE_CONNECTION) == ["Eve"]


@on_both_drivers
def test_second_pooled_connection_is_bound_like_the_first(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    def story(engine: Engine) -> tuple[list[str], list[str]]:
        with tenant_scope(acme.id), engine.connect() as first:
            of_acme = column(first, NAMES)
            with tenant_scope(globex.id), engine.connect() as second:
                return of_acme, column(second, NAMES)

    assert play(people_url, story) == (["Ada"], ["Eve"])
