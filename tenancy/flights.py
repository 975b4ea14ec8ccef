"""Flights: a transaction's opening and its first statement leave in one write, and are answered in one read.

psycopg's own pipeline sends each command as soon as the socket takes it, which wakes the server for every piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus

if TYPE_CHECKING:
    from psycopg._pipeline_base import BasePipeline, PendingResult
    from psycopg.pq.abc import PGresult
else:
    BasePipeline = object

_DONE = (ExecStatus.COMMAND_OK, ExecStatus.PIPELINE_SYNC)
# A statement of the library's own, and its parameters.
Message = tuple[bytes, Sequence[bytes] | None]


class _Held(BasePipeline):
    """What both flights do: commands are kept until the end, then sent together."""

    _farewell: psycopg.OperationalError | None = None

    def _process_results(self, queued: PendingResult, results: list[PGresult]) -> None:
        if queued is None and results[0].status in _DONE:  # six of seven: what psycopg would find after a call more
            return
        try:
            super()._process_results(queued, results)
        except psycopg.OperationalError as error:
            if self._farewell is None:  # what follows in the flight is aborted, and says no more than that
                self._farewell = self._farewell or error
            raise

    def _last_words(self, error: psycopg.OperationalError) -> psycopg.OperationalError:
        """Return what the server said before it cut the connection; psycopg forgets it for the cut itself."""
        return self._farewell if self._farewell is not None and self.pgconn.status == ConnStatus.BAD else error

    def _communicate_gen(self) -> PQGen[None]:
        """Send nothing yet: called by a cursor once its statement is in the queue."""
        yield from ()

    def _exit_gen(self) -> PQGen[None]:
        pgconn = self.pgconn
        while self.command_queue:
            self.command_queue.popleft()()  # into libpq's buffer
        pgconn.pipeline_sync()  # writes the buffer out
        self.result_queue.append(None)
        yield from generators.send(pgconn)  # what did not fit into the socket's
        yield from self._fetch_gen(flush=False)

    def _begin(self) -> None:
        self._conn._check_connection_ok()
        self.pgconn.enter_pipeline_mode()
        self.level = 1
        self._conn._pipeline = self

    def _end(self) -> None:
        self._conn._pipeline = None
        if self.pgconn.status != ConnStatus.BAD and self.pgconn.pipeline_status != PipelineStatus.OFF:
            self.pgconn.finish()  # an error came between: what is still to be read would answer the next statement


class Flight(_Held, psycopg.Pipeline):
    """A pipeline of one flight, on a connection that is in none."""

    def __enter__(self) -> Self:
        with self._lock:
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        except psycopg.OperationalError as lost:
            raise self._last_words(lost) from None
        finally:
            self._end()


class AsyncFlight(_Held, psycopg.AsyncPipeline):
    """The asynchronous Flight."""

    async def __aenter__(self) -> Self:
        async with self._lock:
            self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, traceback)
        except psycopg.OperationalError as lost:
            raise self._last_words(lost) from None
        finally:
            self._end()


def send_ahead(pipeline: psycopg.Pipeline | psycopg.AsyncPipeline, statements: Iterable[Message]) -> None:
    """Put the library's own statements into libpq's buffer, to leave with the next statement.

    A cursor would in time prepare them, one for each tenant.
    """
    for statement, parameters in statements:
        if pipeline.command_queue:  # a pipeline of the user's own, with commands that go first
            pipeline.command_queue.append(partial(pipeline.pgconn.send_query_params, statement, parameters))
        else:
            pipeline.pgconn.send_query_params(statement, parameters)
        pipeline.result_queue.append(None)
