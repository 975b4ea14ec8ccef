"""The Flask extension: every route runs for one tenant, unless it is marked as needing none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from uuid import UUID

from blinker import Namespace
from flask import Flask, Request, Response, current_app, has_request_context, request
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from werkzeug.datastructures import HeaderSet

from tenancy.context import current_tenant
from tenancy.directory import Directory, SQLDirectory, TenantRecord
from tenancy.errors import (
    ConfigurationError,
    ConflictingReferencesError,
    NoTenantError,
    SuspendedTenantError,
    TenancyError,
    UnsafeConnectionError,
)
from tenancy.flask.commands import commands
from tenancy.flask.explanation import (
    ASKED,
    TRACE,
    TRACE_HEADER,
    Explanation,
    end_with_explanation,
    explain,
    refusal_of,
    trace_line,
)
from tenancy.flask.problems import UNSAFE, Problem, problem_of, render_problem
from tenancy.flask.startup import STARTUP, StartupCheck
from tenancy.flask.visits import VISIT, Body, Door, Opened, Visit
from tenancy.resolvers import Chain, Resolver, Trace, for_single_tenant
from tenancy.rls import Flavour
from tenancy.session import TenantSession, guard_sessions

log = logging.getLogger(__name__)
security_log = logging.getLogger("tenancy.security")

# Sent with the app and `trace=` when one request names two tenants; connect an audit to it.
references_conflicted = Namespace().signal("tenancy.references-conflicted")

__all__ = ["Problem", "Tenancy", "TenantLogFilter", "problem_of", "references_conflicted", "render_problem"]

_EXEMPT = "tenancy_exempt"
_READS_ONLY = "tenancy_reads_only"
View = TypeVar("View", bound=Callable[..., Any])


class TenantLogFilter(logging.Filter):
    """Adds `tenant_id` to every record of the handler it is put on; "-" outside a tenant's scope."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.tenant_id = str(current_tenant() or "-")
        return True


class Tenancy:
    """Serves each request for the one tenant it names, inside that tenant's scope.

    sessions: from `tenant_sessionmaker`; or a Flask-SQLAlchemy or -Lite `db`, initialised on the app first.
    single_tenant: the slug of the only tenant; hosts then name none, and no other is served.
    trusted_proxies: proxies in front that append to X-Forwarded-Host; 0 never reads that header.
    is_member: tells whether whoever sent the request belongs to a suspended tenant, and so may know of it.
    account_of: the account that acts, taken from the verified evidence, for the scope.
    render: how error answers look; the default suits an API and a browser.
    startup_check: looks at the database before the first request is served for a tenant, and refuses while tenants
        are not kept apart in it. flavour: how its policies are written.
    reads_only_methods: requests by these run in a scope that only reads, as if each route were marked `reads_only`.
    reads_after: what the client has seen or written, as `tenancy.replicas.position_of` gave it; None if unknown.
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
        startup_check: bool = True,
        flavour: Flavour = "postgres",
        reads_only_methods: Iterable[str] = (),
        reads_after: Callable[[Trace], int | None] | None = None,
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
        self._startup_check = startup_check
        self._flavour: Flavour = flavour
        self._reads_only_methods = frozenset(reads_only_methods)
        self._reads_after = reads_after
        self._opened = Opened(self._make_session)
        self._vary = HeaderSet(self.chain.vary)

    def init_app(self, app: Flask) -> None:
        """Guard every route of the app, and give the directory the engine of the sessions.

        Raises: ConfigurationError - the sessions are not tenant sessions, or the app has a Tenancy already.
        """
        if "tenancy" in app.extensions:
            raise ConfigurationError("the app has a Tenancy already", hint="call init_app once for each app")
        engine = self.engine_of(app)
        if isinstance(self.chain.directory, SQLDirectory) and not self.chain.directory.is_bound:
            self.chain.directory.bind(engine)
        app.extensions["tenancy"] = self
        app.extensions[STARTUP] = check = StartupCheck(engine, self._flavour)
        check.has_passed = not self._startup_check
        app.cli.add_command(commands)
        # First in and last out, whatever was registered before: all other hooks run in the tenant's scope.
        app.before_request_funcs.setdefault(None, []).insert(0, self._enter)
        app.after_request_funcs.setdefault(None, []).insert(0, self._seal)
        app.teardown_request_funcs.setdefault(None, []).insert(0, self._leave)
        app.register_error_handler(TenancyError, self._answer)
        app.register_error_handler(DBAPIError, self._answer)
        # Flask's own way to wrap an application, which its types call assigning to a method.
        app.wsgi_app = Door(app.wsgi_app, self.chain.resolvers)  # type: ignore[method-assign]

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

    def reads_only(self, view: View) -> View:
        """Let a route only read: its scope refuses writes, and its session may read from a replica."""
        setattr(view, _READS_ONLY, True)
        return view

    def exempt_endpoints(self, app: Flask) -> dict[str, str]:
        """Return the endpoints that need no tenant, each with the reason."""
        found = {endpoint: _exemption(app, endpoint) for endpoint in sorted(app.view_functions)}
        return {endpoint: reason for endpoint, reason in found.items() if reason is not None}

    def explain(self, app: Flask, environ: dict[str, Any]) -> Explanation:
        """Return why a request to the app would be answered as it would be, without running its route.

        environ: the request's WSGI environ; `werkzeug.test.EnvironBuilder` makes one.
        """
        return explain(app, environ)

    def examine(self, app: Flask) -> None:
        """Look at the database now, rather than at the first request for a tenant.

        Raises: UnsafeConnectionError - tenants are not kept apart in it. DBAPIError - it could not be looked at.
        """
        check: StartupCheck = app.extensions[STARTUP]
        check.look()

    def leaks(self) -> list[str]:
        """Name the tenants of requests that hold a session or a scope open: between requests, none may."""
        return [f"request for tenant {visit.tenant.id!r}" for visit in list(self._opened.visits)]

    def _visit(self) -> Visit:
        visit = request.environ.get(VISIT) if has_request_context() else None
        if not isinstance(visit, Visit):
            raise NoTenantError(
                "this request has no tenant" if has_request_context() else "no request is being served",
                hint="use tenancy.tenant and tenancy.session in routes that are not exempt",
            )
        return visit

    def _enter(self) -> Response | None:
        app, asked = _served()
        exempt = None if asked.endpoint is None else _exemption(app, asked.endpoint)
        if ASKED in asked.environ:
            check: StartupCheck = app.extensions[STARTUP]
            end_with_explanation(self.chain, exempt, self._is_member, self._render, check)
        if exempt is not None:
            return None
        trace = self.chain.explain(asked)
        if app.debug:
            asked.environ[TRACE] = trace
        if trace.error is None and trace.tenant is not None:
            check = app.extensions[STARTUP]
            if not check.has_passed:
                try:
                    check.run()
                except UnsafeConnectionError as error:
                    return self._show(UNSAFE, error)
            account = self._account_of(trace) if self._account_of is not None else None
            after = self._reads_after(trace) if self._reads_after is not None else None
            reads_only = self._only_reads(app, asked)
            asked.environ[VISIT] = Visit(self._opened, trace, trace.tenant, account, reads_only=reads_only, after=after)
            return None
        if asked.routing_exception is not None and isinstance(trace.error, NoTenantError):
            return None  # no such page, asked for at no tenant's address: Flask's own 404, 405 or redirect
        return self._refuse(trace)

    def _only_reads(self, app: Flask, asked: Request) -> bool:
        view = app.view_functions.get(asked.endpoint) if asked.endpoint is not None else None
        return asked.method in self._reads_only_methods or getattr(view, _READS_ONLY, False)

    def _refuse(self, trace: Trace) -> Response:
        error, tenant = trace.error, trace.tenant
        is_member = (
            isinstance(error, SuspendedTenantError)
            and tenant is not None
            and self._is_member is not None
            and self._is_member(tenant, trace)
        )
        if isinstance(error, ConflictingReferencesError):
            named = {step.evidence.source: str(step.tenant_id) for step in trace.steps}
            security_log.warning("tenancy.references_conflicted", extra={"evidence": named})
            # The app itself, as Flask's own signals send it: the proxy's types do not show the method.
            references_conflicted.send(current_app._get_current_object(), trace=trace)  # type: ignore[attr-defined]
        return self._show(refusal_of(trace, is_member=is_member), error)

    def _answer(self, error: TenancyError | DBAPIError) -> Response:
        return self._show(problem_of(error), error)

    def _show(self, problem: Problem, error: Exception | None) -> Response:
        if problem.status >= 500:
            log.error("request.failed", extra={"code": problem.code}, exc_info=error)
        return self._render(problem)

    def _seal(self, response: Response) -> Response:
        app, asked = _served()
        visit = asked.environ.get(VISIT)
        if TRACE in asked.environ and app.debug:
            response.headers[TRACE_HEADER] = trace_line(asked.environ[TRACE])
        if not isinstance(visit, Visit):
            return response
        _keep_private(response, self._vary)
        if response.status_code >= 300 and not response.direct_passthrough:
            response.make_sequence()  # Werkzeug makes its errors and redirects in the form of streams
        # Set either way: after a failure an answer of another kind may follow.
        visit.is_streaming = response.is_streamed and not response.direct_passthrough
        if visit.is_streaming:
            response.response = Body(response.response, visit)
        return response

    def _leave(self, error: BaseException | None) -> None:
        visit = request.environ.get(VISIT)
        if isinstance(visit, Visit):
            visit.close(error)

    def _make_session(self) -> TenantSession:
        session: Any = self._sessions.session if _has_sessions(self._sessions) else self._sessions
        made: TenantSession = session() if isinstance(session, scoped_session | sessionmaker) else session
        return made

    def engine_of(self, app: Flask) -> Engine:
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


def _served() -> tuple[Flask, Request]:
    """Return the app and the request themselves: each look through Flask's proxies to them costs a microsecond."""
    # A method of the proxies that their types do not show.
    return current_app._get_current_object(), request._get_current_object()  # type: ignore[attr-defined]


def _keep_private(response: Response, vary: HeaderSet) -> None:
    """Let shared caches keep an answer only if its route said so, and no cache give it to another tenant."""
    headers = response.headers
    # Most answers have neither header, and to parse one and write it again costs more than the rest of sealing.
    if headers.getlist("Vary"):
        response.vary.update(vary)
    elif vary:
        headers.add("Vary", vary.to_header())
    if not headers.getlist("Cache-Control"):
        headers.add("Cache-Control", "private")
        return
    caching = response.cache_control  # parsed anew each time that it is asked for
    if not caching.public and not caching.no_store:
        caching.private = True


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
