"""What a caller gives psycopg arrives there: parameters, options and sizes pass through our cursors."""

from typing import Any

import psycopg
import pytest

from tenancy.context import tenant_scope
from tenancy.driver import AsyncTenantConnection, TenantConnection
from tests.conftest import SomeTenant

BINARY = 1
COUNT = "SELECT n FROM generate_series(1, 5) AS n"


@pytest.fixture(autouse=True)
def _scope(acme: SomeTenant) -> Any:
    with tenant_scope(acme.id):
        yield


@pytest.mark.parametrize("is_begun", [False, True])
def test_execute_hands_its_options_on(driver: TenantConnection, is_begun: bool) -> None:
    cursor = driver.cursor()
    if is_begun:
        cursor.execute("SELECT 1")

    cursor.execute("SELECT %s::int", (7,), binary=True)

    assert cursor.pgresult is not None
    assert cursor.pgresult.fformat(0) == BINARY
    assert cursor.fetchall() == [(7,)]


@pytest.mark.parametrize("is_begun", [False, True])
async def test_async_execute_hands_its_options_on(async_driver: AsyncTenantConnection, is_begun: bool) -> None:
    cursor = async_driver.cursor()
    if is_begun:
        await cursor.execute("SELECT 1")

    await cursor.execute("SELECT %s::int", (7,), binary=True)

    assert cursor.pgresult is not None
    assert cursor.pgresult.fformat(0) == BINARY
    assert await cursor.fetchall() == [(7,)]


def test_executemany_hands_its_options_on(driver: TenantConnection) -> None:
    cursor = driver.cursor()

    cursor.executemany("SELECT %s::int", [(1,), (2,)], returning=True)

    assert cursor.fetchall() == [(1,)]
    assert cursor.nextset()
    assert cursor.fetchall() == [(2,)]


async def test_async_executemany_hands_its_options_on(async_driver: AsyncTenantConnection) -> None:
    cursor = async_driver.cursor()

    await cursor.executemany("SELECT %s::int", [(1,), (2,)], returning=True)

    assert await cursor.fetchall() == [(1,)]
    assert cursor.nextset()
    assert await cursor.fetchall() == [(2,)]


def test_stream_hands_its_parameters_and_options_on(driver: TenantConnection) -> None:
    cursor = driver.cursor()
    formats = []

    for row in cursor.stream("SELECT %s::int", (7,), binary=True):
        assert cursor.pgresult is not None
        formats.append((row, cursor.pgresult.fformat(0)))

    assert formats == [((7,), BINARY)]


async def test_async_stream_hands_its_parameters_and_options_on(async_driver: AsyncTenantConnection) -> None:
    cursor = async_driver.cursor()
    formats = []

    async for row in cursor.stream("SELECT %s::int", (7,), binary=True):
        assert cursor.pgresult is not None
        formats.append((row, cursor.pgresult.fformat(0)))

    assert formats == [((7,), BINARY)]


def test_copy_hands_its_parameters_on(driver: TenantConnection) -> None:
    with driver.cursor().copy("COPY (SELECT %s::text) TO STDOUT", ("x",)) as out:
        assert b"".join(out) == b"x\n"


async def test_async_copy_hands_its_parameters_on(async_driver: AsyncTenantConnection) -> None:
    async with async_driver.cursor().copy("COPY (SELECT %s::text) TO STDOUT", ("x",)) as out:
        assert b"".join([bytes(data) async for data in out]) == b"x\n"


def test_server_cursor_hands_its_parameters_and_options_on(driver: TenantConnection) -> None:
    with driver.cursor("rows") as cursor:
        cursor.execute("SELECT %s::int", (7,), binary=True)

        assert cursor.fetchone() == (7,)
        assert cursor.pgresult is not None
        assert cursor.pgresult.fformat(0) == BINARY


async def test_async_server_cursor_hands_its_parameters_and_options_on(async_driver: AsyncTenantConnection) -> None:
    async with async_driver.cursor("rows") as cursor:
        await cursor.execute("SELECT %s::int", (7,), binary=True)

        assert await cursor.fetchone() == (7,)
        assert cursor.pgresult is not None
        assert cursor.pgresult.fformat(0) == BINARY


def test_fetchmany_without_a_size_takes_the_cursors_own(driver: TenantConnection) -> None:
    with driver.cursor("rows") as cursor:
        cursor.execute(COUNT)
        cursor.arraysize = 2

        assert cursor.fetchmany() == [(1,), (2,)]
        assert cursor.fetchmany(3) == [(3,), (4,), (5,)]


async def test_async_fetchmany_without_a_size_takes_the_cursors_own(async_driver: AsyncTenantConnection) -> None:
    async with async_driver.cursor("rows") as cursor:
        await cursor.execute(COUNT)
        cursor.arraysize = 2

        assert await cursor.fetchmany() == [(1,), (2,)]
        assert await cursor.fetchmany(3) == [(3,), (4,), (5,)]


ADD_COMPANY = "INSERT INTO companies (tenant_id, id, name) VALUES (%s, gen_random_uuid(), %s)"


def test_transaction_block_is_kept_or_rolled_back_as_asked(driver: TenantConnection, acme: SomeTenant) -> None:
    with driver.transaction():
        driver.execute(ADD_COMPANY, (acme.id, "kept"))
    with driver.transaction(force_rollback=True):
        driver.execute(ADD_COMPANY, (acme.id, "dropped"))
    with driver.transaction("mine", True) as block:
        driver.execute(ADD_COMPANY, (acme.id, "dropped as well"))

    assert block.savepoint_name == "mine"
    assert driver.execute("SELECT name FROM companies ORDER BY name").fetchall() == [("kept",)]


async def test_async_transaction_block_is_kept_or_rolled_back_as_asked(
    async_driver: AsyncTenantConnection, acme: SomeTenant
) -> None:
    async with async_driver.transaction():
        await async_driver.execute(ADD_COMPANY, (acme.id, "kept"))
    async with async_driver.transaction(force_rollback=True):
        await async_driver.execute(ADD_COMPANY, (acme.id, "dropped"))
    async with async_driver.transaction("mine", True) as block:
        await async_driver.execute(ADD_COMPANY, (acme.id, "dropped as well"))
    found = await async_driver.execute("SELECT name FROM companies ORDER BY name")

    assert block.savepoint_name == "mine"
    assert await found.fetchall() == [("kept",)]


async def test_semicolon_within_a_value_is_no_second_statement(
    driver: TenantConnection, async_driver: AsyncTenantConnection
) -> None:
    assert list(driver.cursor().stream("SELECT 'a;b'")) == [("a;b",)]
    assert [row async for row in async_driver.cursor().stream("SELECT 'a;b'")] == [("a;b",)]


def test_query_in_another_encoding_is_left_to_the_server(driver: TenantConnection) -> None:
    with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
        driver.execute(b"SELECT '\xff'")
