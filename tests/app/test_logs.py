"""Logs: each line says whose it is without being told, and gives no secret away."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from app.auth.access import anyone, without_tenant
from app.config import Settings
from app.observability.logs import configure_logging, formatter
from app.queue.asking import open_queue
from app.queue.running import Taken, run_job
from app.queue.tasks import Job, task
from tenancy.context import tenant_scope
from tests.app.conftest import Visitor

Lines = Callable[[], list[dict[str, Any]]]
log = logging.getLogger("app.tests")


@pytest.fixture
def lines() -> Lines:
    """What is logged, as a machine reads it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(as_json=True))
    logging.getLogger().addHandler(handler)
    logging.getLogger("app").setLevel(logging.INFO)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("app")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def of(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    (found,) = [line for line in lines if line["event"] == event]
    return found


# Whose line it is -------------------------------------------------------------------------------------


def test_request_leaves_one_line_that_says_whose_it_was(acme: Visitor, lines: Lines) -> None:
    answer = acme.get("/api/v1/people", headers={"X-Request-ID": "req-12345678"})

    assert answer.status_code == 200
    line = of(lines(), "request.served")
    assert (line["method"], line["route"], line["status"]) == ("GET", "/api/v1/people", 200)
    assert (line["tenant_id"], line["request_id"]) == (str(acme.tenant_id), "req-12345678")
    assert (line["actor_kind"], line["level"]) == ("account", "info")
    assert 0 < line["duration_ms"] < 10_000


def test_line_of_the_code_inside_a_request_is_tagged_and_keeps_its_extras(
    make_app: Callable[..., Flask], lines: Lines, acme: Visitor
) -> None:
    app = make_app()

    @app.get("/api/v1/noisy/<name>")
    @anyone(reason="a test")
    def noisy(name: str) -> str:
        log.info("cake.baked", extra={"layers": 3})
        return name

    answer = app.test_client().get("/api/v1/noisy/hostile", headers={"X-Tenant-Slug": acme.slug})

    assert answer.status_code == 200
    line = of(lines(), "cake.baked")
    assert (line["layers"], line["tenant_id"]) == (3, str(acme.tenant_id))
    assert line["route"] == "/api/v1/noisy/<name>"
    assert line["request_id"] == answer.headers["X-Request-ID"]


def test_request_refused_before_its_route_has_an_id_and_a_line(app: Flask, lines: Lines) -> None:
    answer = app.test_client().get("/api/v1/people", headers={"X-Tenant-Slug": "nobody-has-this"})

    assert answer.status_code == 404
    line = of(lines(), "request.served")
    assert line["status"] == 404
    assert line["request_id"] == answer.headers["X-Request-ID"]
    assert "tenant_id" not in line


def test_two_requests_on_one_thread_share_nothing(acme: Visitor, globex: Visitor, lines: Lines) -> None:
    acme.get("/api/v1/people")
    globex.get("/api/v1/people")
    acme.client.get("/health/live")

    served = [line for line in lines() if line["event"] == "request.served"]
    assert [line.get("tenant_id") for line in served] == [str(acme.tenant_id), str(globex.tenant_id), None]
    assert len({line["request_id"] for line in served}) == 3
    assert "actor_id" not in served[2]


@task(name="cakes.bake")
def bake(_job: Job) -> None:
    log.warning("cake.burnt")


def test_line_of_a_job_names_tenant_task_and_the_request_that_asked(
    make_settings: Callable[..., Settings], app: Flask, acme: Visitor, lines: Lines
) -> None:
    desk = app.extensions["auth"]
    queue = open_queue(make_settings(), desk.database, desk.directory, [bake])
    asker = json.dumps({"kind": "account", "id": "a1", "label": "ada", "request_id": "req-of-ada"})
    with tenant_scope(acme.tenant_id):
        envelope = queue.carrier.carry("cakes.bake", arguments="{}", actor=asker)

    run_job(queue, Taken(7, "cakes.bake", acme.tenant_id, 0, {"envelope": envelope, "payload": "{}"}))

    line = of(lines(), "cake.burnt")
    assert (line["tenant_id"], line["task"], line["request_id"]) == (str(acme.tenant_id), "cakes.bake", "req-of-ada")
    assert (line["actor_kind"], line.get("route")) == ("job", None)


# What is not in it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "extra"),
    [
        ("x", {"password": "hunter22"}),
        ("x", {"given": {"api_key": "hunter22"}}),
        ("x", {"given": [{"refresh_token": "hunter22"}]}),
        ("x", {"raw": b"hunter22"}),
        ("could not reach postgresql://app:hunter22@db/crm", {}),
        ("sent Authorization: Bearer hunter22hunter22", {}),
        ("password=hunter22 was refused", {}),
        ("x", {"reason": "token eyJhbGciOi.hunter22.c2ln"}),
        ("x", {"key": "key_0123abcd_hunter22hunter22hunter22"}),
        ("x", {"link": "once_hunter22hunter22hunter22"}),
        ("x", {"cause": ValueError("secret: hunter22")}),
    ],
)
def test_secret_is_in_no_line(lines: Lines, message: str, extra: dict[str, Any]) -> None:
    log.info(message, extra={"kept": "visible", **extra})

    (line,) = lines()
    assert line["kept"] == "visible"
    assert "hunter22" not in json.dumps(line)
    assert "[redacted]" in json.dumps(line)


def test_secret_in_the_message_of_an_exception_is_not_in_its_traceback(lines: Lines) -> None:
    try:
        raise RuntimeError("postgresql://app:hunter22@db/crm is down")
    except RuntimeError:
        log.exception("database.away")

    (line,) = lines()
    assert "RuntimeError" in line["exception"]
    assert "hunter22" not in line["exception"]


def test_path_and_query_are_in_no_line(acme: Visitor, lines: Lines) -> None:
    acme.get("/api/v1/people?token=hunter22&sort=name")
    acme.get("/no/such/page/hunter22")

    assert [line["route"] for line in lines() if line["event"] == "request.served"] == ["/api/v1/people", "unmatched"]
    assert "hunter22" not in json.dumps(lines())


def test_line_break_sent_by_somebody_begins_no_line_of_her_own() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "a\nERROR forged \u2028b", (), None)

    text = formatter(as_json=False).format(record)

    assert len(text.splitlines()) == 1
    assert "forged" in text


# Settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "is_json"),
    [
        ({"environment": "production", "storage_url": "file:///tmp/files"}, True),
        ({"environment": "development"}, False),
        ({"environment": "development", "log_format": "json"}, True),
        ({"environment": "production", "storage_url": "file:///tmp/files", "log_format": "console"}, False),
    ],
)
def test_format_is_for_machines_in_production_unless_told(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str], given: dict[str, Any], is_json: bool
) -> None:
    make_app(**given)
    log.warning("cake.baked")

    (line,) = [line for line in capsys.readouterr().err.splitlines() if "cake.baked" in line]
    assert line.startswith("{") is is_json


def test_level_says_what_is_left_out(make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    make_app(log_level="ERROR")
    log.warning("cake.unseen")
    log.error("cake.seen")

    written = capsys.readouterr().err
    assert "cake.seen" in written
    assert "cake.unseen" not in written


def test_libraries_warn_and_say_no_more(make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    make_app(log_level="DEBUG")
    logging.getLogger("procrastinate").info("cake.unseen")
    logging.getLogger("procrastinate").warning("cake.seen")
    log.debug("cake.smelt")

    written = capsys.readouterr().err
    assert "cake.unseen" not in written
    assert written.count("cake.") == 2


def test_configured_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="INFO", as_json=True)
    configure_logging(level="INFO", as_json=True)
    log.info("cake.baked")

    assert capsys.readouterr().err.count("cake.baked") == 1


def test_route_that_fails_leaves_its_line_and_the_reason(make_app: Callable[..., Flask], lines: Lines) -> None:
    app = make_app()

    def fail() -> str:
        raise RuntimeError("oven")

    app.add_url_rule("/api/fails", view_func=without_tenant(reason="a test")(fail))
    app.extensions["tenancy"].exempt("a test")(fail)

    answer = app.test_client().get("/api/fails")

    assert answer.status_code == 500
    assert of(lines(), "request.served")["status"] == 500
    assert "RuntimeError: oven" in of(lines(), "request.failed")["exception"]
