"""psycopg's own interface: what a team finds behind `raw_connection().driver_connection`."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from tenancy.context import tenant_scope
from tenancy.driver import AsyncTenantConnection, TenantConnection
from tenancy.errors import ConfigurationError, StatementRefusedError, WrongTenantError
from tests.conftest import SomeTenant

NAMES = "SELECT name FROM people ORDER BY name"
NAMED = "SELECT name FROM people WHERE name <> %s"


@pytest.fixture(autouse=True)
def people(acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]) -> None:
    for tenant, names in ((acme, ("Ada", "Alan")), (globex, ("Eve",))):
        for name in names:
            person_of(tenant, name)


def flat(rows: list[Any]) -> list[Any]:
    return [row[0] for row in rows]


# COPY -------------------------------------------------------------------------------------------------


def test_copy_out_as_first_statement_gives_the_tenants_rows(driver: TenantConnection, acme: SomeTenant) -> None:
    """T021"""
    with tenant_scope(acme.id), driver.cursor().copy("COPY people (name) TO STDOUT;") as copy:
        found = b"".join(copy)

    assert sorted(found.split()) == [b"Ada", b"Alan"]


def test_copy_in_is_refused_by_the_policies(driver: TenantConnection, acme: SomeTenant, globex: SomeTenant) -> None:
    """T021: PostgreSQL supports no COPY FROM under row-level security, for any tenant."""
    with (
        tenant_scope(acme.id),
        pytest.raises(psycopg.errors.FeatureNotSupported),
        driver.cursor().copy("COPY people (tenant_id, id, name, email) FROM STDIN") as copy,
    ):
        copy.write_row((globex.id, globex.id, "Mallory", "mallory@acme.test"))


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("text", ["COPY people (name) TO STDOUT; {}", "{}; COPY people (name) TO STDOUT"])
def test_copy_with_a_second_statement_is_refused(
    driver: TenantConnection, acme: SomeTenant, globex: SomeTenant, text: str, is_first: bool
) -> None:
    """T092: COPY uses the simple protocol, in which the second statement would switch the tenant."""
    switch = f"SELECT 1; SET LOCAL app.tenant_id = '{globex.id}'"

    with tenant_scope(acme.id):
        if not is_first:
            driver.execute(NAMES)
        with pytest.raises(StatementRefusedError, match="semicolon"), driver.cursor().copy(text.format(switch)):
            pass

        assert flat(driver.execute(NAMES).fetchall()) == ["Ada", "Alan"]


async def test_async_copy_gives_the_tenants_rows_and_takes_one_statement(
    async_driver: AsyncTenantConnection, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T021, T092"""
    with tenant_scope(acme.id):
        async with async_driver.cursor().copy("COPY people (name) TO STDOUT") as copy:
            found = [bytes(chunk) async for chunk in copy]
        with pytest.raises(StatementRefusedError, match="semicolon"):
            async with async_driver.cursor().copy(f"COPY people TO STDOUT; SET app.tenant_id = '{globex.id}'"):
                pass

    assert sorted(found) == [b"Ada\n", b"Alan\n"]


# Streams and server-side cursors ----------------------------------------------------------------------


def test_stream_as_first_statement_gives_the_tenants_rows(driver: TenantConnection, acme: SomeTenant) -> None:
    with tenant_scope(acme.id):
        found = flat(list(driver.cursor().stream(NAMED, ["Ada"])))

    assert found == ["Alan"]


async def test_async_stream_as_first_statement_gives_the_tenants_rows(
    async_driver: AsyncTenantConnection, acme: SomeTenant
) -> None:
    with tenant_scope(acme.id):
        found = [row[0] async for row in async_driver.cursor().stream(NAMED, ["Ada"])]

    assert found == ["Alan"]


@pytest.mark.parametrize("text", ["stream", "server cursor"])
def test_two_statements_are_refused_by_cursors_that_read_row_by_row(
    driver: TenantConnection, acme: SomeTenant, globex: SomeTenant, text: str
) -> None:
    """T092"""
    switch = f"SELECT 1; SET LOCAL app.tenant_id = '{globex.id}'"

    with (
        tenant_scope(acme.id),
        driver.cursor("rows") as server_cursor,
        pytest.raises(psycopg.errors.SyntaxError, match="multiple commands"),
    ):
        list(driver.cursor().stream(switch)) if text == "stream" else server_cursor.execute(switch)


def test_server_cursor_reads_the_tenant_it_was_opened_for_and_no_other(
    driver: TenantConnection, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T070: every way to fetch is refused inside another scope; back in its own, the cursor goes on."""
    with tenant_scope(acme.id), driver.cursor("rows") as cursor:
        cursor.itersize = 1
        cursor.execute(NAMES)
        with tenant_scope(globex.id):
            for fetch in (cursor.fetchone, cursor.fetchmany, cursor.fetchall, cursor.__next__):
                with pytest.raises(WrongTenantError):
                    fetch()
        found = [cursor.fetchone(), *cursor.fetchmany(1), *cursor.fetchall()]

    assert flat(found) == ["Ada", "Alan"]


def test_iterated_server_cursor_is_refused_after_a_switch(
    driver: TenantConnection, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T070"""
    with tenant_scope(acme.id), driver.cursor("rows") as cursor:
        cursor.itersize = 1
        rows = iter(cursor.execute(NAMES))
        first = next(rows)
        with tenant_scope(globex.id), pytest.raises(WrongTenantError):
            next(rows)

    assert first == ("Ada",)


async def test_async_server_cursor_reads_the_tenant_it_was_opened_for_and_no_other(
    async_driver: AsyncTenantConnection, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T070"""
    with tenant_scope(acme.id):
        async with async_driver.cursor("rows") as cursor:
            await cursor.execute(NAMES)
            with tenant_scope(globex.id):
                for fetch in (cursor.fetchone, cursor.fetchmany, cursor.fetchall, cursor.__anext__):
                    with pytest.raises(WrongTenantError):
                        await fetch()
            found = [await cursor.fetchone(), *await cursor.fetchmany(1), *await cursor.fetchall()]

    assert flat(found) == ["Ada", "Alan"]


async def test_async_server_cursor_is_iterated_in_its_scope(
    async_driver: AsyncTenantConnection, acme: SomeTenant
) -> None:
    with tenant_scope(acme.id):
        async with async_driver.cursor("rows") as cursor:
            await cursor.execute(NAMES)
            found = [row async for row in cursor]

    assert flat(found) == ["Ada", "Alan"]


async def test_cursor_with_hold_is_refused(
    driver: TenantConnection, async_driver: AsyncTenantConnection, acme: SomeTenant
) -> None:
    """T049"""
    with tenant_scope(acme.id):
        with (
            driver.cursor("rows", withhold=True) as cursor,
            pytest.raises(StatementRefusedError, match="WITH HOLD"),
        ):
            cursor.execute(NAMES)
        async with async_driver.cursor("rows", withhold=True) as async_cursor:
            with pytest.raises(StatementRefusedError, match="WITH HOLD"):
                await async_cursor.execute(NAMES)


def test_open_server_side_cursor_shows_no_foreign_row_after_a_switch_in_sql(
    driver: TenantConnection, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T070: past the Python guard, the guard policy's sub-select keeps the value it had at the first row."""
    with tenant_scope(acme.id), driver.cursor("rows") as cursor:
        cursor.execute("SELECT name FROM people")
        assert cursor.fetchone() is not None
        driver.pgconn.exec_(f"SELECT set_config('app.tenant_id', '{globex.id}', true)".encode())
        rows = cursor.fetchall()

    assert "Eve" not in flat(rows)


# Pipelines and psycopg's transaction blocks -----------------------------------------------------------


def test_pipeline_gives_the_tenants_rows(driver: TenantConnection, acme: SomeTenant) -> None:
    """T072"""
    with tenant_scope(acme.id), driver.pipeline() as pipeline:
        first = driver.execute(NAMES)
        second = driver.execute(NAMED, ["Ada"])
        pipeline.sync()
        third = driver.execute(NAMES)

    assert flat(first.fetchall()) == ["Ada", "Alan"]
    assert flat(second.fetchall()) == ["Alan"]
    assert flat(third.fetchall()) == ["Ada", "Alan"]


@pytest.mark.parametrize("is_synced", [True, False])
def test_pipeline_without_a_scope_raises(driver: TenantConnection, is_synced: bool) -> None:
    """T072"""

    def ask() -> None:
        with driver.pipeline() as pipeline:
            driver.execute(NAMED, ["Ada"])
            if is_synced:
                pipeline.sync()

    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant is bound"):
        ask()


async def test_async_pipeline_gives_the_tenants_rows(async_driver: AsyncTenantConnection, acme: SomeTenant) -> None:
    """T072"""
    with tenant_scope(acme.id):
        async with async_driver.pipeline():
            first = await async_driver.execute(NAMES)
            second = await async_driver.execute(NAMED, ["Ada"])
        found = (flat(await first.fetchall()), flat(await second.fetchall()))

    assert found == (["Ada", "Alan"], ["Alan"])


def test_transaction_blocks_bind_each_to_its_own_scope(
    driver: TenantConnection, acme: SomeTenant, globex: SomeTenant
) -> None:
    found = []
    for tenant in (acme, acme, globex):
        with tenant_scope(tenant.id), driver.transaction():
            found.append(flat(driver.execute(NAMES).fetchall()))

    assert found == [["Ada", "Alan"], ["Ada", "Alan"], ["Eve"]]
    assert driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_rolled_back_inner_block_leaves_the_outer_one_bound(driver: TenantConnection, acme: SomeTenant) -> None:
    """Nothing is bound inside a savepoint: rolling back to it would undo the binding."""
    with tenant_scope(acme.id), driver.transaction():
        with driver.transaction() as inner:
            driver.execute(NAMES)
            raise psycopg.Rollback(inner)
        found = flat(driver.execute(NAMES).fetchall())

    assert found == ["Ada", "Alan"]


def test_block_that_fails_is_rolled_back_and_the_next_one_is_bound(
    driver: TenantConnection, acme: SomeTenant, globex: SomeTenant
) -> None:
    with tenant_scope(acme.id), pytest.raises(psycopg.errors.UndefinedTable), driver.transaction():
        driver.execute("SELECT nothing FROM nowhere")
    with tenant_scope(globex.id), driver.transaction():
        found = flat(driver.execute(NAMES).fetchall())

    assert found == ["Eve"]


def test_block_inside_a_begun_transaction_is_a_savepoint_of_it(
    driver: TenantConnection, acme: SomeTenant, globex: SomeTenant
) -> None:
    with tenant_scope(acme.id):
        driver.execute(NAMES)
        with driver.transaction():
            inside = flat(driver.execute(NAMES).fetchall())
        with tenant_scope(globex.id), pytest.raises(WrongTenantError), driver.transaction():
            pass
        afterwards = flat(driver.execute(NAMES).fetchall())

    assert (inside, afterwards) == (["Ada", "Alan"], ["Ada", "Alan"])


async def test_async_transaction_blocks_bind_each_to_its_own_scope(
    async_driver: AsyncTenantConnection, acme: SomeTenant, globex: SomeTenant
) -> None:
    found = []
    for tenant in (acme, globex):
        with tenant_scope(tenant.id):
            async with async_driver.transaction():
                async with async_driver.transaction(force_rollback=True):
                    await async_driver.execute(NAMES)
                found.append(flat(await (await async_driver.execute(NAMES)).fetchall()))

    assert found == [["Ada", "Alan"], ["Eve"]]


async def test_async_block_belongs_to_the_scope_it_was_opened_in(
    async_driver: AsyncTenantConnection, acme: SomeTenant, globex: SomeTenant
) -> None:
    with tenant_scope(acme.id):
        async with async_driver.transaction():
            with tenant_scope(globex.id), pytest.raises(WrongTenantError):
                await async_driver.execute(NAMES)
            found = await (await async_driver.execute(NAMES)).fetchall()

    assert flat(found) == ["Ada", "Alan"]


async def test_rolled_back_inner_async_block_leaves_the_outer_one_bound(
    async_driver: AsyncTenantConnection, acme: SomeTenant
) -> None:
    with tenant_scope(acme.id):
        async with async_driver.transaction():
            async with async_driver.transaction(force_rollback=True):
                await async_driver.execute("SELECT 1")
            found = await (await async_driver.execute(NAMES)).fetchall()

    assert flat(found) == ["Ada", "Alan"]


# Queries of other types -------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [NAMES, NAMES.encode(), sql.SQL(NAMES), sql.SQL(NAMES).format()])
def test_query_may_be_text_bytes_or_composed(driver: TenantConnection, acme: SomeTenant, query: Any) -> None:
    with tenant_scope(acme.id):
        assert flat(driver.execute(query).fetchall()) == ["Ada", "Alan"]


@pytest.mark.parametrize("query", [b"SET app.tenant_id = ''", sql.SQL("RESET {}").format(sql.Identifier("role"))])
def test_guard_judges_bytes_and_composed_queries(driver: TenantConnection, acme: SomeTenant, query: Any) -> None:
    """T067"""
    with tenant_scope(acme.id), pytest.raises(StatementRefusedError, match="is not sent on a tenant connection"):
        driver.execute(query)


def test_query_that_cannot_be_judged_is_refused(driver: TenantConnection, acme: SomeTenant) -> None:
    with tenant_scope(acme.id), pytest.raises(StatementRefusedError, match="type int cannot be judged"):
        driver.execute(1)  # type: ignore[call-overload]


async def test_autocommit_is_refused_by_both_families(
    driver: TenantConnection, async_driver: AsyncTenantConnection
) -> None:
    """T065"""
    driver.set_autocommit(False)
    await async_driver.set_autocommit(False)

    with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        driver.set_autocommit(True)
    with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        await async_driver.set_autocommit(True)
    assert (driver.autocommit, async_driver.autocommit) == (True, True)
