"""T096: the real application, asked for two tenants at once in every pair of ways that it listens to."""

from __future__ import annotations

import logging
from itertools import permutations
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event

from tests.app.conftest import Visitor, add_person, codes

WAYS = ("host", "path", "id header", "slug header", "query", "token")


def named(way: str, visitor: Visitor, request: dict[str, Any]) -> None:
    """Let a request name the visitor's tenant in one more way."""
    headers = request.setdefault("headers", {})
    match way:
        case "host":
            request["base_url"] = f"http://{visitor.slug}.localhost/"
        case "path":
            request["path"] = f"/t/{visitor.slug}{request['path']}"
        case "id header":
            headers["X-Tenant-ID"] = str(visitor.tenant_id)
        case "slug header":
            headers["X-Tenant-Slug"] = visitor.slug
        case "query":
            request["query_string"] = {"tenant": visitor.slug}
        case "token":
            headers["Authorization"] = f"Bearer {visitor.access_token}"


def asked(app: Flask, *evidence: tuple[str, Visitor]) -> Any:
    request: dict[str, Any] = {"path": "/api/v1/people", "base_url": "http://localhost/"}
    for way, visitor in evidence:
        named(way, visitor, request)
    return app.test_client(use_cookies=False).get(**request)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_names_the_tenant_beside_its_token(app: Flask, acme: Visitor, way: str) -> None:
    add_person(acme, "Ada Lovelace")

    answer = asked(app, ("token", acme), (way, acme))

    assert [item["name"] for item in answer.get_json()["items"]] == ["Ada Lovelace"]


def test_every_pair_that_disagrees_is_refused_before_any_statement(
    app: Flask, acme: Visitor, globex: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    """T096"""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    engine = app.extensions["auth"].database.engine
    event.listen(engine, "before_cursor_execute", note)
    pairs = list(permutations(WAYS, 2))

    with caplog.at_level(logging.WARNING, "tenancy.security"):
        for first, second in pairs:
            answer = asked(app, (first, acme), (second, globex))

            assert codes(answer) == (403, "conflicting_references"), (first, second)
    event.remove(engine, "before_cursor_execute", note)

    assert [statement for statement in sent if "tenancy.tenant_by_" not in statement] == []
    events = [record for record in caplog.records if record.message == "tenancy.references_conflicted"]
    assert len(events) == len(pairs) == 30
    named_tenants = {str(acme.tenant_id), str(globex.tenant_id)}
    assert [record for record in events if set(record.__dict__["evidence"].values()) != named_tenants] == []
