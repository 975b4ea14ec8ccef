"""T057: no route and no parameter leads a tenant to a query's plan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from sqlalchemy import Engine, event

from tests.app.conftest import Truth, Visitor, add_person

PLAN = re.compile(r"cost=\d|actual time=|QUERY PLAN|(Seq|Index|Bitmap Heap|Index Only) Scan|Planning Time|InitPlan")
NAMES = ("explain", "analyze", "debug", "plan", "profile", "trace", "verbose", "sql", "query", "q", "sort", "format")
VALUES = ("1", "true", "explain", "EXPLAIN ANALYZE SELECT * FROM people", "json) EXPLAIN")
PARAMETERS = [(name, value) for name in NAMES for value in VALUES[:2]] + [("q", VALUES[3]), ("sort", VALUES[4])]
HEADERS = {"X-Explain": "1", "X-Debug": "1", "X-Profile": "true", "Debug": "true"}


@pytest.fixture
def statements(app: Flask) -> Iterator[list[str]]:
    """Everything the application sends, as either role."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    database = app.extensions["auth"].database
    engines: list[Engine] = [database.engine, database.platform_engine]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    yield sent
    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)


def test_what_is_looked_for_would_be_found(truth: Truth) -> None:
    plan = "\n".join(row[0] for row in truth.execute("EXPLAIN ANALYZE SELECT * FROM people").fetchall())

    assert PLAN.search(plan) is not None


def test_no_parameter_of_any_route_shows_a_plan(app: Flask, acme: Visitor, statements: list[str]) -> None:
    """T057"""
    person = add_person(acme)
    swept = served = 0

    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: "out" in rule.rule):  # signing out comes last
        path = rule.rule.replace("<uuid:row_id>", person).replace("<path:filename>", "page.css")
        for method in sorted((rule.methods or set()) & {"GET", "POST"}):
            for name, value in PARAMETERS:
                options: dict[str, Any] = {"query_string": {name: value}, "headers": HEADERS}
                if method == "POST":
                    options |= {"json" if path.startswith("/api/") else "data": {name: value}}
                answer = acme.call(method, path, **options)

                assert PLAN.search(answer.get_data(as_text=True)) is None, (method, path, name)
                assert answer.status_code < 500, (method, path, name)
                swept += 1
                served += answer.status_code == 200

    assert swept > 200
    assert served > 100
    assert any("people" in statement for statement in statements)
    assert [statement for statement in statements if re.search(r"\bEXPLAIN\b", statement, re.IGNORECASE)] == []


@pytest.mark.parametrize(
    "path", ["/explain", "/debug", "/api/v1/explain", "/api/v1/sql", "/_debug_toolbar", "/console"]
)
def test_no_route_is_there_for_plans(acme: Visitor, path: str) -> None:
    """T057"""
    assert acme.get(path).status_code == 404
    assert acme.get(f"{path}/{uuid4()}").status_code == 404
