"""Error answers: what a client may know of an error, and how it is shown."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from flask import Response, json, request
from psycopg.errors import QueryCanceled
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

from tenancy.errors import (
    ConflictingReferencesError,
    DirectoryError,
    InvalidTokenError,
    KeyStoreError,
    MalformedReferenceError,
    TenancyError,
    TenantBusyError,
    TenantUnavailableError,
)


class Problem(NamedTuple):
    """An error as the client may see it. `code` is stable; nothing in it tells one unserved tenant from another."""

    status: int
    title: str
    code: str
    detail: str | None = None
    hint: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


NOT_FOUND = Problem(404, "Not Found", "tenant_not_found")
SUSPENDED = Problem(403, "Forbidden", "tenant_suspended", "This tenant is suspended.", "Ask its owner, or support.")
FAILED = Problem(500, "Internal Server Error", "internal_error")
UNSAFE = Problem(503, "Service Unavailable", "unsafe_database", headers=(("Retry-After", "2"),))
UNAVAILABLE = Problem(503, "Service Unavailable", "unavailable", headers=(("Retry-After", "2"),))
BUSY = Problem(
    429,
    "Too Many Requests",
    "tenant_busy",
    "This tenant has as much work under way as it may.",
    "Try again shortly.",
    (("Retry-After", "1"),),
)
TIMED_OUT = Problem(
    503,
    "Service Unavailable",
    "timed_out",
    "The work took longer than it may, and was stopped.",
    "Ask for less at once.",
)


def problem_of(error: TenancyError | DBAPIError) -> Problem:
    """Return what a client may know of the error: no SQL, no row, no other tenant."""
    detail, hint = (error.message, error.hint) if isinstance(error, TenancyError) else (None, None)
    match error:
        case MalformedReferenceError():
            return Problem(400, "Bad Request", "malformed_reference", detail, hint)
        case InvalidTokenError():
            challenge = ("WWW-Authenticate", 'Bearer error="invalid_token"')
            return Problem(401, "Unauthorized", "invalid_token", detail, hint, (challenge,))
        case ConflictingReferencesError():
            return Problem(403, "Forbidden", "conflicting_references", detail, hint)
        case TenantUnavailableError():
            return NOT_FOUND
        case TenantBusyError():
            return BUSY
        case DBAPIError(orig=QueryCanceled()):
            return TIMED_OUT
        case IntegrityError():
            return Problem(409, "Conflict", "conflicting_data")
        case DataError():
            return Problem(400, "Bad Request", "invalid_value")
        case DirectoryError() | KeyStoreError() | OperationalError():
            return UNAVAILABLE
    return FAILED


def render_problem(problem: Problem) -> Response:
    """Answer as application/problem+json, or as a small page to a client that prefers HTML."""
    kinds = ["application/problem+json", "application/json", "text/html"]
    if request.accept_mimetypes.best_match(kinds) == "text/html":
        words = "".join(f"<p>{escape(text)}</p>" for text in (problem.detail, problem.hint) if text)
        body = f"<!doctype html><html lang=en><title>{problem.title}</title><h1>{problem.title}</h1>{words}</html>\n"
        response = Response(body, problem.status, mimetype="text/html")
    else:
        fields = {"type": "about:blank", "title": problem.title, "status": problem.status, "code": problem.code}
        fields |= {name: text for name, text in (("detail", problem.detail), ("hint", problem.hint)) if text}
        response = Response(json.dumps(fields) + "\n", problem.status, mimetype="application/problem+json")
    response.headers.extend(problem.headers)
    response.headers["Cache-Control"] = "no-store"
    response.vary.add("Accept")
    return response
