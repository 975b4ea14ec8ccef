"""The edge: what every request must look like, and one shape for every refusal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from flask import Flask, Request, Response, current_app, jsonify, make_response, request
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import BadRequest, HTTPException, UnsupportedMediaType
from werkzeug.routing import BaseConverter

from app.config import Settings
from app.db import Base
from app.errors import FieldError, InvalidInputError, Problem, ProblemError, TakenError
from tenancy.flask import Problem as TenancyProblem
from tenancy.tables import TENANT_KEY

log = logging.getLogger(__name__)

API_PREFIX = "/api/"
PROBLEM_PAGE = "problem_page"  # the extension key of a callable: Problem -> HTML, for who asks for pages
_TENANCY_DETAILS = {
    404: "No tenant is here. Check the address.",
    500: "Something failed here; it was logged. Try again later.",
    503: "The service is busy. Try again shortly.",
}
_TENANT_FIX = "leave it out: the tenant comes from the address, the tenant header or the token"
# A name comes back as it was sent, so neither its length nor the number of names is left to the sender.
_MOST_ERRORS = 20
_LONGEST_NAME = 100
_TAKES_FILE = "_takes_file"
_GIVES_FILE = "_gives_file"
View = TypeVar("View", bound=Callable[..., Any])
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class RowIdConverter(BaseConverter):
    """A row's id in a path. A malformed one is the caller's mistake and says so, where a plain rule would not match."""

    def to_python(self, value: str) -> UUID:
        try:
            found = UUID(value)
        except ValueError:
            found = None
        if found is None or str(found) != value.lower():
            raise InvalidInputError.of("id", "is no row's id: send it as a UUID, 8-4-4-4-12 hexadecimal digits")
        return found

    def to_url(self, value: UUID) -> str:
        return str(value)


def takes_file(view: View) -> View:
    """Let a route of the API be sent a picture as its body, which it reads and limits itself."""
    setattr(view, _TAKES_FILE, True)
    return view


def gives_file(view: View) -> View:
    """Say of a route of the API that it answers with a picture; for its description."""
    setattr(view, _GIVES_FILE, True)
    return view


def takes_a_file(view: Callable[..., Any] | None) -> bool:
    """Tell whether a route was marked by `takes_file`."""
    return bool(getattr(view, _TAKES_FILE, False))


def gives_a_file(view: Callable[..., Any] | None) -> bool:
    """Tell whether a route was marked by `gives_file`."""
    return bool(getattr(view, _GIVES_FILE, False))


def init_app(app: Flask, settings: Settings) -> None:
    """Install the limits and the error answers. Comes first, so that it judges before anything reads the body."""
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.url_map.converters["uuid"] = RowIdConverter
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it, its base class not
    app.before_request(_refuse_tenant_parameter)
    app.before_request(_refuse_unusable_body)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(DBAPIError, _answer_database)
    app.register_error_handler(PoolTimeoutError, lambda _error: _busy())
    app.register_error_handler(Exception, _answer_unexpected)


def is_api(current: Request) -> bool:
    """Tell whether the request is for the JSON API, and so is always answered in JSON."""
    return current.path.startswith(API_PREFIX)


# What is refused before a route sees it ---------------------------------------------------------------


def _refuse_tenant_parameter() -> None:
    if TENANT_KEY in request.args:
        raise InvalidInputError.of(f"query.{TENANT_KEY}", _TENANT_FIX)


def _refuse_unusable_body() -> None:
    if not is_api(request) or request.method not in _WITH_BODY or request.url_rule is None:
        return
    if takes_a_file(current_app.view_functions.get(request.endpoint or "")):
        return
    if not request.is_json:
        if not request.content_length and "Transfer-Encoding" not in request.headers:
            return
        raise UnsupportedMediaType("Send the body as JSON, with Content-Type: application/json.")
    try:
        body = request.get_json()
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    if not isinstance(body, dict):
        raise InvalidInputError("The body must be one JSON object, such as {}.")
    if TENANT_KEY in body:
        raise InvalidInputError.of(TENANT_KEY, _TENANT_FIX)


def refuse_invalid(_request: Any, _response: Any, error: Exception | None, _instance: Any, _adapter: Any) -> None:
    """Turn a failed validation into a problem that names each field; SpecTree calls it before every route."""
    if not isinstance(error, ValidationError):
        return
    where = "query." if error.title.endswith("Query") else ""
    faults = error.errors()[:_MOST_ERRORS]
    raise InvalidInputError(
        "The request has fields that cannot be used.",
        errors=[FieldError(field=where + _path(fault["loc"]), message=_fix(fault)) for fault in faults],
    )


def _path(location: Iterable[int | str]) -> str:
    return ".".join(str(part) for part in location)[:_LONGEST_NAME] or "body"


def _fix(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown field: leave it out, or check its spelling in /api/openapi.json"
    if fault["type"] == "missing":
        return "required: add it"
    message = str(fault["msg"])
    return message.removeprefix("Value error, ")


# The answers ------------------------------------------------------------------------------------------


def render_tenancy_problem(found: TenancyProblem) -> Response:
    """Answer what the tenancy extension refuses, in the same shape as everything else."""
    detail = " ".join(_sentence(text) for text in (found.detail, found.hint) if text)
    if not detail:
        detail = _TENANCY_DETAILS.get(found.status, found.title)
    answer = problem(found.status, found.code, found.title, detail)
    for name, value in found.headers:
        answer.headers[name] = value
    return answer


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    errors: Iterable[FieldError] = (),
    members: dict[str, Any] | None = None,
) -> Response:
    """Answer with RFC 9457 problem details."""
    body = Problem(
        type=f"urn:problem:{code}", title=title, status=status, detail=detail, code=code, errors=list(errors)
    )
    page = current_app.extensions.get(PROBLEM_PAGE)
    if page is not None and not is_api(request) and _prefers_page():
        response: Response = make_response(page(body), status)
    else:
        response = jsonify(body.model_dump() | (members or {}))
        response.status_code = status
        response.mimetype = "application/problem+json"
    response.headers["Cache-Control"] = "no-store"
    return response


def _prefers_page() -> bool:
    return request.accept_mimetypes.best_match(["application/problem+json", "text/html"]) == "text/html"


def _answer_http(error: HTTPException) -> Response | HTTPException:
    if error.response is not None or (error.code or 500) < 400:
        return error
    if isinstance(error, ProblemError):
        title = error.kind.replace("_", " ").capitalize()
        answer = problem(error.code or 400, error.kind, title, error.detail, errors=error.errors, members=error.members)
        answer.headers.extend(error.headers)
        return answer
    code = error.name.lower().replace(" ", "_").replace("'", "")
    answer = problem(error.code or 500, code, error.name, error.description or error.name)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            answer.headers[name] = value
    return answer


def _answer_database(error: DBAPIError) -> Response:
    """Say which field the database refused, and nothing else it said: its text names tables, SQL and values."""
    log.warning("database.refused", extra={"sqlstate": getattr(error.orig, "sqlstate", None)})
    return _answer_refusal(error)


def _answer_refusal(error: DBAPIError) -> Response:
    cause = error.orig
    fields = _fields_of(cause.diag) if isinstance(cause, psycopg.Error) else []
    answer: ProblemError
    match cause:
        case psycopg.errors.UniqueViolation():
            answer = TakenError(
                "A value that must be unique is already in use.",
                errors=[FieldError(field=name, message="already in use: send another value") for name in fields],
            )
        case psycopg.errors.ForeignKeyViolation():
            answer = InvalidInputError(
                "The request refers to a row that is not here.",
                errors=[
                    FieldError(field=name, message="no such row: send the id of one that exists") for name in fields
                ],
            )
        case psycopg.errors.IntegrityError() | psycopg.errors.DataError():
            answer = InvalidInputError(
                "The request has a value that cannot be stored.",
                errors=[FieldError(field=name, message="out of range: send another value") for name in fields],
            )
        case psycopg.errors.QueryCanceled() | psycopg.errors.LockNotAvailable() | psycopg.OperationalError():
            return _busy()
        case _:
            log.error("database.failed", exc_info=error)
            return _internal()
    response = _answer_http(answer)
    assert isinstance(response, Response)  # noqa: S101 - a ProblemError never carries a response of its own
    return response


def _fields_of(diagnostic: psycopg.errors.Diagnostic) -> list[str]:
    """Return the columns of the violated constraint, as our own models name them."""
    table = Base.metadata.tables.get(diagnostic.table_name or "")
    if table is None:
        return []
    if diagnostic.column_name:
        return [diagnostic.column_name] if diagnostic.column_name != TENANT_KEY else []
    keys: list[Any] = [*table.constraints, *table.indexes]
    violated = next((key for key in keys if key.name == diagnostic.constraint_name), None)
    return [] if violated is None else [column.name for column in violated.columns if column.name != TENANT_KEY]


def _busy() -> Response:
    return problem(503, "busy", "Service unavailable", "The database did not answer in time; try again shortly.")


def _internal() -> Response:
    return problem(500, "internal", "Internal server error", "Something failed here; it was logged. Try again later.")


def _answer_unexpected(error: Exception) -> Response:
    log.error("request.failed", exc_info=error)
    return _internal()
