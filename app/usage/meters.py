"""Meters: what each request of a tenant is measured by. They look on, and send nothing to the database."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from flask import Flask, Response, current_app, g, has_request_context, request
from sqlalchemy import event
from sqlalchemy.orm import Session

from app.config import Settings
from app.db import Database
from app.usage.buffer import UsageBuffer
from tenancy.context import current_tenant

EXTENSION = "usage"
REQUESTS, REFUSALS, ERRORS, LATENCY_US = "requests", "refusals", "errors", "latency_us"
ROWS, BYTES_IN, BYTES_OUT = "rows", "bytes_in", "bytes_out"
FEATURE = "feature:"  # and the part of the application that served the request
GAUGE = "gauge:"  # and a quota: what a tenant has at a time, of which the greatest counts and not the sum
_BEGUN = "usage_begun"
_ROWS = "usage_rows"


def init_app(app: Flask, settings: Settings, database: Database) -> None:
    """Measure every request that is served for a tenant; comes early, so that it measures all of it."""
    app.extensions[EXTENSION] = UsageBuffer(database, flush_s=settings.usage_flush_s)
    event.listen(database.sessions, "after_flush", _count_rows)
    app.before_request(_begin)
    app.after_request(_measure)


def close_app(app: Flask) -> None:
    """Write what was measured last, for the end of the program."""
    buffer: UsageBuffer = app.extensions[EXTENSION]
    buffer.close()


def usage_buffer() -> UsageBuffer:
    """Return the buffer of the current application."""
    found = current_app.extensions[EXTENSION]
    if not isinstance(found, UsageBuffer):
        raise TypeError(f"extension {EXTENSION!r} is {type(found).__name__}, not a UsageBuffer")
    return found


def _begin() -> None:
    setattr(g, _BEGUN, perf_counter_ns())


def _measure(response: Response) -> Response:
    tenant_id = current_tenant()
    begun: int | None = g.get(_BEGUN)
    if tenant_id is None or begun is None:
        return response
    amounts = {
        REQUESTS: 1,
        LATENCY_US: (perf_counter_ns() - begun) // 1000,
        FEATURE + (request.blueprint or "none"): 1,
    }
    status = response.status_code
    if status >= 400:
        amounts[ERRORS if status >= 500 else REFUSALS] = 1
    for meter, amount in (
        (ROWS, g.get(_ROWS)),
        (BYTES_IN, request.content_length),
        # Of a stream nobody knows yet.
        (BYTES_OUT, response.content_length if response.is_streamed else response.calculate_content_length()),
    ):
        if amount:
            amounts[meter] = amount
    usage_buffer().add(tenant_id, amounts)
    return response


def _count_rows(session: Session, _context: Any) -> None:
    """Count the rows that a request writes through the ORM; the audit's own are among them."""
    if has_request_context():
        setattr(g, _ROWS, g.get(_ROWS, 0) + len(session.new) + len(session.dirty) + len(session.deleted))
