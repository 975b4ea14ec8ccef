"""Traces, where the settings name a collector: a span for each request, for finding its tenant, and for its sessions.

Needs the extra `otel`; nothing of it is imported unless traces are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, request, request_started
from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from app.config import Settings, SettingsError
from app.db import Database
from app.observability.tags import current_tags, route_template
from tenancy.context import current_tenant
from tenancy.flask import Tenancy
from tenancy.resolvers import Chain, Resolver, Trace
from tenancy.resolvers.evidence import Request

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

EXTENSION = "traces"
_SPAN = "_trace_span"
_TENANT = "tenant.id"


class TracedChain(Chain):
    """The resolvers of an application, each of whose searches is a span."""

    def __init__(self, tracer: Tracer, resolvers: Iterable[Resolver], inner: Chain, *, trusted_proxies: int) -> None:
        super().__init__(resolvers, inner.directory, trusted_proxies=trusted_proxies)
        self._tracer = tracer

    def explain(self, request: Request) -> Trace:
        with self._tracer.start_as_current_span("tenant.resolve") as span:
            trace = super().explain(request)
            if trace.tenant is not None:
                span.set_attribute(_TENANT, str(trace.tenant.id))
            if trace.error is not None:
                span.set_attribute("tenant.outcome", type(trace.error).__name__)
            return trace


def init_app(app: Flask, settings: Settings, tenancy: Tenancy, database: Database) -> None:
    """Send traces to the collector that the settings name; without one, do nothing.

    Raises: SettingsError - the extra `otel` is not installed.
    """
    if settings.otel_endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise SettingsError(
            "APP_OTEL_ENDPOINT is set, and its libraries are not installed: add the extra otel"
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": "crm"}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{settings.otel_endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace_app(app, provider, tenancy, database, trusted_proxies=settings.trusted_proxies)


def trace_app(
    app: Flask, provider: TracerProvider, tenancy: Tenancy, database: Database, *, trusted_proxies: int = 0
) -> None:
    """Make spans of the application's requests by this provider; before its first request."""
    app.extensions[EXTENSION] = provider
    tracer = provider.get_tracer("app")
    tenancy.chain = TracedChain(tracer, tenancy.chain.resolvers, tenancy.chain, trusted_proxies=trusted_proxies)
    _trace_requests(app, tracer)
    for sessions in (database.sessions, database.staff_sessions, database.platform_sessions):
        _trace_sessions(sessions, tracer)


def close_app(app: Flask) -> None:
    """Send what was not sent yet."""
    provider = app.extensions.get(EXTENSION)
    if provider is not None:
        provider.shutdown()


def _trace_requests(app: Flask, tracer: Tracer) -> None:
    from opentelemetry import context
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind, set_span_in_context

    def begin(_app: Flask) -> None:
        above = extract({name.lower(): value for name, value in request.headers}, context.Context())
        span = tracer.start_span("request", context=above, kind=SpanKind.SERVER)
        setattr(g, _SPAN, (span, context.attach(set_span_in_context(span, above))))

    def describe(response: Response) -> Response:
        span: Span = g.get(_SPAN)[0]
        route = route_template()
        span.update_name(f"{request.method} {route}")
        span.set_attributes(
            {
                "http.request.method": request.method,
                "http.route": route,
                "http.response.status_code": response.status_code,
            }
        )
        _tag(span)
        return response

    def end(error: BaseException | None) -> None:
        span, token = g.pop(_SPAN, (None, None))
        if span is None:
            return
        if isinstance(error, Exception):
            span.record_exception(error)
        context.detach(token)
        span.end()

    request_started.connect(begin, app, weak=False)
    app.after_request(describe)
    app.teardown_request(end)


def _trace_sessions(sessions: Any, tracer: Tracer) -> None:
    def begin(session: Session, _transaction: SessionTransaction, _connection: object) -> None:
        if _SPAN not in session.info:
            session.info[_SPAN] = span = tracer.start_span("session")
            _tag(span)

    def end(session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None and _SPAN in session.info:
            session.info.pop(_SPAN).end()

    event.listen(sessions, "after_begin", begin)
    event.listen(sessions, "after_transaction_end", end)


def _tag(span: Span) -> None:
    tenant_id = current_tenant()
    if tenant_id is not None:
        span.set_attribute(_TENANT, str(tenant_id))
    request_id = current_tags().get("request_id")
    if request_id is not None:
        span.set_attribute("request.id", request_id)
