"""Where a step of a story is done: here, in a thread, or in a task; and what may come of it anywhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Literal, TypeVar, cast

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tenancy.binding import create_async_tenant_engine
from tenancy.errors import TenancyError
from tenancy.session import async_tenant_sessionmaker
from tenancy.testing.ledger import Ledger
from tenancy.testing.oracle import StallError
from tenancy.testing.venue import APPLICATION, OPTIONS, STALLS

KNOWN = (TenancyError, SQLAlchemyError, psycopg.Error)
Where = Literal["here", "thread", "thread with the context"]
PLACES: tuple[Where, ...] = ("here", "here", "thread", "thread with the context")
T = TypeVar("T")


class Asynchronous:
    """An event loop and an asynchronous engine of one connection, for the tasks of one story."""

    def __init__(self, ledger: Ledger) -> None:
        self._runner = asyncio.Runner()
        self._engine = create_async_tenant_engine(
            ledger.app_url,
            pool_size=1,
            max_overflow=0,
            connect_args={"application_name": f"{APPLICATION}, tasks", "options": OPTIONS},
        )
        self._sessions = async_tenant_sessionmaker(self._engine)
        self.may_be_cut = False

    def read(self, statement: Any) -> list[Any]:
        """Read in a task that inherits the caller's scope."""
        return self._runner.run(self._read(statement), context=copy_context())

    async def _read(self, statement: Any) -> list[Any]:
        async with self._sessions() as session:
            result = await session.execute(statement)
            return [row[0] if len(row) == 1 else row for row in result.all()]

    def close(self) -> None:
        self._runner.run(self._engine.dispose())
        self._runner.close()


def run(act: Callable[[], T], where: Where) -> T:
    """Call it here, in a new thread that knows no scope, or in one that was given the context."""
    if where == "here":
        return act()
    context = Context() if where == "thread" else copy_context()
    answers: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(context.run(act))
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that waits for it
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]


def pid_of(connection: Any) -> int:
    return cast("int", connection.driver_connection.info.backend_pid)


def quietly(act: Callable[[], object]) -> None:
    """Call what may fail, but not wait."""
    try:
        act()
    except KNOWN as error:
        refuse_stall(error)


def refuse_stall(error: Exception) -> None:
    """Raise StallError for an error that says how long something has waited."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, STALLS):
        raise StallError(f"waited in vain: {cause}") from error
