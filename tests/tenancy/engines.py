"""The two drivers a test's story is told to: it is written once, and runs on each."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.util.concurrency import greenlet_spawn

from tenancy.binding import create_async_tenant_engine, create_tenant_engine

T = TypeVar("T")


def play_sync(url: str, story: Callable[[Engine], T], **options: Any) -> T:
    engine = create_tenant_engine(url, **options)
    try:
        return story(engine)
    finally:
        engine.dispose()


def play_async(url: str, story: Callable[[Engine], T], **options: Any) -> T:
    """Tell the story to an engine on psycopg's asynchronous driver, as AsyncConnection.run_sync does."""

    async def perform() -> T:
        engine = create_async_tenant_engine(url, **options)
        try:
            return await greenlet_spawn(story, engine.sync_engine)
        finally:
            await engine.dispose()

    return asyncio.run(perform())


on_both_drivers = pytest.mark.parametrize("play", [play_sync, play_async], ids=["sync", "async"])


@contextmanager
def dbapi_of(engine: Engine) -> Iterator[Any]:
    """A pooled DBAPI connection, past SQLAlchemy's Connection and so past its `begin` event."""
    connection = engine.raw_connection()
    try:
        yield connection
    finally:
        connection.close()


def answers(dbapi: Any, statement: str, *parameters: Any) -> list[Any]:
    """Execute on a DBAPI cursor; the first column of the answer."""
    cursor = dbapi.cursor()
    try:
        cursor.execute(statement, *parameters)
        return [row[0] for row in cursor.fetchall()]
    finally:
        cursor.close()


def column(connection: Connection, statement: str) -> list[Any]:
    """Execute a driver-level text; the first column of the answer."""
    return list(connection.exec_driver_sql(statement).scalars())
