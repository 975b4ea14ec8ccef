"""Traces: off unless a collector is named; then a request, the search for its tenant and its sessions are spans."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import close_app
from app.observability.traces import EXTENSION, trace_app
from tests.app.conftest import PASSWORD, Visitor, new_email, visitor_of


@pytest.fixture
def spans(make_app: Callable[..., Flask]) -> tuple[Flask, InMemorySpanExporter]:
    app, exporter = make_app(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace_app(app, provider, app.extensions["tenancy"], app.extensions["auth"].database)
    return app, exporter


def owner_of(app: Flask) -> Visitor:
    client = app.test_client(use_cookies=False)
    given = {"organization_name": "Acme", "admin_email": new_email(), "admin_password": PASSWORD, "plan": "basic"}
    return visitor_of(client, client.post("/api/v1/auth/register-organization", json=given))


def named(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    found = [span for span in exporter.get_finished_spans() if span.name == name]
    assert found, [span.name for span in exporter.get_finished_spans()]
    return found[0]


def test_request_resolution_and_session_are_spans_of_one_tenant(
    spans: tuple[Flask, InMemorySpanExporter],
) -> None:
    app, exporter = spans
    acme = owner_of(app)
    exporter.clear()

    acme.get("/api/v1/people", headers={"X-Request-ID": "req-12345678"})

    request = named(exporter, "GET /api/v1/people")
    resolution, session = named(exporter, "tenant.resolve"), named(exporter, "session")
    for span in (request, resolution, session):
        assert span.attributes is not None
        assert span.attributes["tenant.id"] == str(acme.tenant_id)
        assert span.context is not None
        assert request.context is not None
        assert span.context.trace_id == request.context.trace_id
    assert request.context is not None
    assert resolution.parent is not None
    assert session.parent is not None
    assert (resolution.parent.span_id, session.parent.span_id) == (request.context.span_id, request.context.span_id)
    assert (request.attributes or {})["request.id"] == "req-12345678"
    assert (request.attributes or {})["http.response.status_code"] == 200


def test_path_and_query_are_in_no_span(spans: tuple[Flask, InMemorySpanExporter]) -> None:
    app, exporter = spans
    acme = owner_of(app)
    acme.get("/api/v1/people?secret=hunter22")
    acme.get("/nothing/hunter22")

    written = [span.to_json() for span in exporter.get_finished_spans()]
    assert any("GET unmatched" in text for text in written)
    assert "hunter22" not in str(written)


def test_trace_of_the_caller_is_carried_on(spans: tuple[Flask, InMemorySpanExporter]) -> None:
    app, exporter = spans
    app.test_client().get("/health/live", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})

    span = named(exporter, "GET /health/live")
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == "a" * 32


def test_request_that_names_no_tenant_has_the_outcome_and_no_tenant(
    spans: tuple[Flask, InMemorySpanExporter],
) -> None:
    app, exporter = spans
    app.test_client().get("/api/v1/people", headers={"X-Tenant-Slug": "nobody-has-this"})

    span = named(exporter, "tenant.resolve")
    assert dict(span.attributes or {}) == {"tenant.outcome": "UnknownTenantError"}


def test_spans_of_two_requests_share_nothing(spans: tuple[Flask, InMemorySpanExporter]) -> None:
    app, exporter = spans
    acme, globex = owner_of(app), owner_of(app)
    exporter.clear()

    acme.get("/api/v1/people")
    globex.get("/api/v1/people")

    by_trace: dict[int, set[object]] = {}
    for span in exporter.get_finished_spans():
        assert span.context is not None
        by_trace.setdefault(span.context.trace_id, set()).add((span.attributes or {}).get("tenant.id"))
    assert sorted(map(list, by_trace.values())) == sorted([[str(acme.tenant_id)], [str(globex.tenant_id)]])


def test_nothing_is_traced_nor_an_exporter_imported_unless_a_collector_is_named(app: Flask) -> None:
    assert EXTENSION not in app.extensions
    program = "import sys, app; assert not [name for name in sys.modules if name.startswith('opentelemetry.exporter')]"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    """A collector: its address, and the paths that were sent to."""
    paths: list[str] = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Taker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


def test_collector_that_the_settings_name_is_sent_the_spans(
    make_app: Callable[..., Flask], collector: tuple[str, list[str]]
) -> None:
    address, paths = collector
    app = make_app(otel_endpoint=address)
    app.test_client().get("/health/live")

    close_app(app)

    assert paths == ["/v1/traces"]
