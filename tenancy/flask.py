"""The Flask extension: every route runs for one tenant, unless it is marked as needing none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from html import escape
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from blinker import Namespace
from flask import Flask, Response, current_app, has_request_context, json, request
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from tenancy.context import _current, current_scope, current_tenant, tenant_scope
from tenancy.directory import Directory, SQLDirectory, TenantRecord
from tenancy.errors import (
    ConfigurationError,
    ConflictingReferencesError,
    DirectoryError,
    InvalidTokenError,
    MalformedReferenceError,
    NoTenantError,
    SuspendedTenantError,
    TenancyError,
    TenantUnavailableError,
)
from tenancy.resolvers import ORIGINAL_PATH, Chain, PathPrefix, Resolver, Trace, for_single_tenant
from tenancy.session import TenantSession, guard_sessions

log = logging.getLogger(__name__)
security_log = logging.getLogger("tenancy.security")

# Sent with the app and `trace=` when one request names two tenants; connect an audit to it.
references_conflicted = Namespace().signal("tenancy.references-conflicted")

_VISIT = "tenancy.visit"
_EXEMPT = "tenancy_exempt"
View = TypeVar("View", bound=Callable[..., Any])


# Error answers ----------------------------------------------------------------------------------------


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
UNAVAILABLE = Problem(503, "Service Unavailable", "unavailable", headers=(("Retry-After", "2"),))


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
        case IntegrityError():
            return Problem(409, "Conflict", "conflicting_data")
        case DataError():
            return Problem(400, "Bad Request", "invalid_value")
        case DirectoryError() | OperationalError():
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


# One request ------------------------------------------------------------------------------------------


class _Visit:
    """What one request holds open: its tenant's scope and, once asked for, a session in it."""

    def __init__(self, owner: Tenancy, trace: Trace, tenant: TenantRecord, account: UUID | None) -> None:
        self.trace = trace
        self.tenant = tenant
        self.is_streaming = False
        self._account = account
        self._owner = owner
        self._session: TenantSession | None = None
        self._block: AbstractContextManager[Any] | None = tenant_scope(tenant.id, account)
        self._block.__enter__()
        self._scope = current_scope()
        owner._visits.add(self)

    @property
    def session(self) -> TenantSession:
        if self._session is None:
            if self._block is None and not self.is_streaming:
                raise NoTenantError("the request has ended", hint="use tenancy.session while it is served")
            self._session = self._owner._make_session()
        return self._session

    def scope_again(self) -> AbstractContextManager[Any]:
        """The scope for one part of a streamed body: the request's own has usually ended by then."""
        if self._scope is not None and current_scope() is self._scope:
            return nullcontext()
        return tenant_scope(self.tenant.id, self._account)

    def close(self, error: BaseException | None = None) -> None:
        """Close the session, unless a streamed body still needs it, then the scope. May be called again."""
        try:
            if not self.is_streaming:
                self.close_session()
        finally:
            block, self._block = self._block, None
            if block is not None:
                block.__exit__(type(error) if error else None, error, None)

    def close_session(self) -> None:
        self.is_streaming = False
        self._owner._visits.discard(self)
        session, self._session = self._session, None
        if session is not None:
            session.close()


class _Body(Iterator[Any]):
    """A streamed body, each part of which is made inside the tenant's scope. Closing it closes the session."""

    def __init__(self, parts: Iterable[Any], visit: _Visit) -> None:
        self._parts = parts
        self._rest = iter(parts)
        self._visit = visit

    def __next__(self) -> Any:
        with self._visit.scope_again():
            return next(self._rest)

    def close(self) -> None:
        with self._visit.scope_again():
            try:
                close = getattr(self._parts, "close", None)
                if close is not None:
                    close()
            finally:
                self._visit.close_session()


class _Door:
    """The outermost WSGI layer: a request begins in no scope, and whatever fails inside leaves none behind."""

    def __init__(self, inner: Callable[..., Iterable[bytes]], resolvers: Iterable[Resolver]) -> None:
        self._inner = inner
        self._prefixes = [resolver.prefix_of for resolver in resolvers if isinstance(resolver, PathPrefix)]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        prefix = next(filter(None, (prefix_of(path) for prefix_of in self._prefixes)), "")
        if prefix:
            environ[ORIGINAL_PATH] = path
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
            environ["PATH_INFO"] = path[len(prefix) :]
        # Not by `with`: a scope that code inside never closed must not reach this thread's next request.
        outside = _current.set(None)
        try:
            return self._inner(environ, start_response)
        except BaseException:
            if _VISIT in environ:
                environ[_VISIT].is_streaming = False  # nobody will close a body that was not handed over
            raise
        finally:
            try:
                if _VISIT in environ:
                    environ[_VISIT].close()
            finally:
                _current.reset(outside)


class TenantLogFilter(logging.Filter):
    """Adds `tenant_id` to every record of the handler it is put on; "-" outside a tenant's scope."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.tenant_id = str(current_tenant() or "-")
        return True


# The extension ----------------------------------------------------------------------------------------


class Tenancy:
    """Serves each request for the one tenant it names, inside that tenant's scope.

    sessions: from `tenant_sessionmaker`; or a Flask-SQLAlchemy or -Lite `db`, initialised on the app first.
    single_tenant: the slug of the only tenant; hosts then name none, and no other is served.
    trusted_proxies: proxies in front that append to X-Forwarded-Host; 0 never reads that header.
    is_member: tells whether whoever sent the request belongs to a suspended tenant, and so may know of it.
    account_of: the account that acts, taken from the verified evidence, for the scope.
    render: how error answers look; the default suits an API and a browser.
    """

    def __init__(
        self,
        *,
        sessions: Any,
        directory: Directory,
        resolvers: Iterable[Resolver] = (),
        single_tenant: str | None = None,
        trusted_proxies: int = 0,
        is_member: Callable[[TenantRecord, Trace], bool] | None = None,
        account_of: Callable[[Trace], UUID | None] | None = None,
        render: Callable[[Problem], Response] = render_problem,
    ) -> None:
        chosen = tuple(resolvers) if single_tenant is None else for_single_tenant(single_tenant, resolvers)
        if not chosen:
            raise ConfigurationError(
                "no request could ever name a tenant", hint="pass resolvers=[...] or single_tenant=<slug>"
            )
        self.chain = Chain(chosen, directory, trusted_proxies=trusted_proxies)
        self._sessions = sessions
        self._is_member = is_member
        self._account_of = account_of
        self._render = render
        self._visits: set[_Visit] = set()

    def init_app(self, app: Flask) -> None:
        """Guard every route of the app, and give the directory the engine of the sessions.

        Raises: ConfigurationError - the sessions are not tenant sessions, or the app has a Tenancy already.
        """
        if "tenancy" in app.extensions:
            raise ConfigurationError("the app has a Tenancy already", hint="call init_app once for each app")
        engine = self._engine(app)
        if isinstance(self.chain.directory, SQLDirectory) and not self.chain.directory.is_bound:
            self.chain.directory.bind(engine)
        app.extensions["tenancy"] = self
        # First in and last out, whatever was registered before: all other hooks run in the tenant's scope.
        app.before_request_funcs.setdefault(None, []).insert(0, self._enter)
        app.after_request_funcs.setdefault(None, []).insert(0, self._seal)
        app.teardown_request_funcs.setdefault(None, []).insert(0, self._leave)
        app.register_error_handler(TenancyError, self._answer)
        app.register_error_handler(DBAPIError, self._answer)
        app.wsgi_app = _Door(app.wsgi_app, self.chain.resolvers)  # type: ignore[method-assign]

    @property
    def tenant(self) -> TenantRecord:
        """The tenant of this request, as the directory knows it.

        Raises: NoTenantError - no request is being served, or its route is exempt.
        """
        return self._visit().tenant

    @property
    def trace(self) -> Trace:
        """How this request's tenant was found; `trace.claims` are the verified claims of its token."""
        return self._visit().trace

    @property
    def session(self) -> TenantSession:
        """This request's session; made when first asked for, closed before the request's scope ends."""
        return self._visit().session

    def exempt(self, reason: str) -> Callable[[View], View]:
        """Let a route run without a tenant; its tenant is then not even looked for.

        reason: shown in `exempt_endpoints`; may not be blank.
        """
        if not isinstance(reason, str) or not reason.strip():
            raise ConfigurationError("a route is exempt for no reason", hint='say why: @tenancy.exempt("health check")')

        def mark(view: View) -> View:
            setattr(view, _EXEMPT, reason)
            return view

        return mark

    def exempt_endpoints(self, app: Flask) -> dict[str, str]:
        """Return the endpoints that need no tenant, each with the reason."""
        found = {endpoint: _exemption(app, endpoint) for endpoint in sorted(app.view_functions)}
        return {endpoint: reason for endpoint, reason in found.items() if reason is not None}

    def leaks(self) -> list[str]:
        """Name the tenants of requests that hold a session or a scope open: between requests, none may."""
        return [f"request for tenant {visit.tenant.id!r}" for visit in list(self._visits)]

    def _visit(self) -> _Visit:
        visit = request.environ.get(_VISIT) if has_request_context() else None
        if not isinstance(visit, _Visit):
            raise NoTenantError(
                "this request has no tenant" if has_request_context() else "no request is being served",
                hint="use tenancy.tenant and tenancy.session in routes that are not exempt",
            )
        return visit

    def _enter(self) -> Response | None:
        if request.endpoint is not None and _exemption(current_app, request.endpoint) is not None:
            return None
        trace = self.chain.explain(request)
        if trace.error is None and trace.tenant is not None:
            account = self._account_of(trace) if self._account_of is not None else None
            request.environ[_VISIT] = _Visit(self, trace, trace.tenant, account)
            return None
        if request.routing_exception is not None and isinstance(trace.error, NoTenantError):
            return None  # no such page, asked for at no tenant's address: Flask's own 404, 405 or redirect
        return self._refuse(trace)

    def _refuse(self, trace: Trace) -> Response:
        error = trace.error
        if isinstance(error, NoTenantError):
            return self._render(NOT_FOUND)
        if isinstance(error, SuspendedTenantError) and trace.tenant is not None and self._is_member is not None:
            return self._render(SUSPENDED if self._is_member(trace.tenant, trace) else NOT_FOUND)
        if isinstance(error, ConflictingReferencesError):
            named = {step.evidence.source: str(step.tenant_id) for step in trace.steps}
            security_log.warning("tenancy.references_conflicted", extra={"evidence": named})
            references_conflicted.send(current_app._get_current_object(), trace=trace)  # type: ignore[attr-defined]
        if error is None:
            raise AssertionError("a trace has a tenant or an error")
        return self._answer(error)

    def _answer(self, error: TenancyError | DBAPIError) -> Response:
        problem = problem_of(error)
        if problem.status >= 500:
            log.error("request.failed", extra={"code": problem.code}, exc_info=error)
        return self._render(problem)

    def _seal(self, response: Response) -> Response:
        visit = request.environ.get(_VISIT)
        if not isinstance(visit, _Visit):
            return response
        response.vary.update(self.chain.vary)
        if not response.cache_control.public and not response.cache_control.no_store:
            response.cache_control.private = True
        if response.status_code >= 300 and not response.direct_passthrough:
            response.make_sequence()  # Werkzeug makes its errors and redirects in the form of streams
        # Set either way: after a failure an answer of another kind may follow.
        visit.is_streaming = response.is_streamed and not response.direct_passthrough
        if visit.is_streaming:
            response.response = _Body(response.response, visit)
        return response

    def _leave(self, error: BaseException | None) -> None:
        visit = request.environ.get(_VISIT)
        if isinstance(visit, _Visit):
            visit.close(error)

    def _make_session(self) -> TenantSession:
        session: Any = self._sessions.session if _has_sessions(self._sessions) else self._sessions
        made: TenantSession = session() if isinstance(session, scoped_session | sessionmaker) else session
        return made

    def _engine(self, app: Flask) -> Engine:
        """Return the engine of the sessions, having made sure that they are tenant sessions."""
        factory: Any = self._sessions
        if _has_sessions(factory):
            scoped = vars(factory).get("session")  # Flask-SQLAlchemy's; -Lite has a factory for each app instead
            with app.app_context():
                try:
                    engine: Engine = factory.engine
                    guard_sessions(scoped if scoped is not None else factory.sessionmaker, engine)
                except (RuntimeError, KeyError) as error:
                    raise ConfigurationError(
                        "the db given as sessions is not ready on this app", hint="call db.init_app(app) first"
                    ) from error
            return engine
        if isinstance(factory, sessionmaker) and issubclass(factory.class_, TenantSession):
            bound: Session | Engine | None = factory.kw.get("bind")
            if isinstance(bound, Engine):
                return bound
        raise ConfigurationError(
            "the sessions given are not bound tenant sessions", hint="pass tenant_sessionmaker(engine), or your db"
        )


def _has_sessions(given: Any) -> bool:
    """Tell whether this is a `db` that has sessions. It is not asked for one: outside an app that is an error."""
    return hasattr(type(given), "session") or "session" in getattr(given, "__dict__", {})


def _exemption(app: Flask, endpoint: str) -> str | None:
    """Return why the endpoint needs no tenant; None when it needs one."""
    reason = getattr(app.view_functions.get(endpoint), _EXEMPT, None)
    if reason is not None:
        return str(reason)
    blueprint, _, name = endpoint.rpartition(".")
    holder = app.blueprints.get(blueprint) if blueprint else app
    return "static files" if name == "static" and holder is not None and holder.has_static_folder else None
