"""The CRM by hand: every route that takes an id, called with another tenant's, answers as for an id that never was.

The other packages' routes are swept by the generated suite, which takes them from the URL map.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from werkzeug.routing import Rule

from app.models import Base
from tenancy.tables import TENANT_KEY, tenant_tables
from tests.app.conftest import Truth, Visitor, add_person, codes

# What changes with every answer, whatever it is about.
COUNTING = {"Date", "X-Request-ID", "RateLimit-Remaining", "RateLimit-Reset"}


def rules_with_an_id(app: Flask) -> list[tuple[Rule, str]]:
    """Every route of the CRM that takes a row's id, the pages' included."""
    return [
        (rule, method)
        for rule in app.url_map.iter_rules()
        if "row_id" in rule.arguments and rule.endpoint.split(".")[0] in ("crm", "crm_pages")
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"})
    ]


def rows_of(truth: Truth, visitor: Visitor) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of a tenant, in every table, as it really is."""
    return {
        table.name: truth.execute(
            f"SELECT * FROM {table.name} WHERE {TENANT_KEY} = %s ORDER BY 1, 2", [visitor.tenant_id]
        ).fetchall()
        for table in tenant_tables(Base.metadata)
    }


@pytest.fixture
def theirs(globex: Visitor) -> dict[str, str]:
    """One row of each kind in the other tenant, by the noun in its path."""
    company = globex.post("/api/v1/companies", json={"name": "Theirs"}).get_json()["id"]
    person = add_person(globex, "Theirs", company_id=company)
    deal = globex.post("/api/v1/opportunities", json={"name": "Theirs", "person_id": person}).get_json()["id"]
    return {"companies": company, "people": person, "opportunities": deal}


def body_for(rule: Rule, method: str) -> dict[str, Any]:
    if method not in ("PATCH", "PUT", "POST"):
        return {}
    return {"json" if rule.rule.startswith("/api/") else "data": {"name": "Taken over"}}


def noun_of(rule: Rule) -> str:
    return rule.rule.removeprefix("/api/v1/").removeprefix("/").split("/")[0]


def test_every_route_with_an_id_answers_foreign_and_random_ids_alike(
    app: Flask, acme: Visitor, globex: Visitor, theirs: dict[str, str], truth: Truth
) -> None:
    """T118"""
    before = rows_of(truth, globex)
    rules = rules_with_an_id(app)

    for rule, method in rules:
        path = rule.rule.replace("<uuid:row_id>", "{}")
        options = body_for(rule, method)
        foreign = acme.call(method, path.format(theirs[noun_of(rule)]), **options)
        random = acme.call(method, path.format(uuid4()), **options)

        assert codes(foreign) == (404, "not_found"), (method, rule.rule)
        assert foreign.get_data() == random.get_data()
        assert headers_of(foreign) == headers_of(random)

    assert len(rules) >= 9
    assert rows_of(truth, globex) == before


def headers_of(response: Any) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in COUNTING}


def test_the_same_ids_open_every_route_to_their_owner(app: Flask, globex: Visitor, theirs: dict[str, str]) -> None:
    """T118: the rows are there."""
    order = ["GET", "PATCH", "DELETE"]

    routes = [(rule, method) for rule, method in rules_with_an_id(app) if rule.rule.startswith("/api/")]
    for rule, method in sorted(routes, key=lambda found: order.index(found[1])):
        path = rule.rule.replace("<uuid:row_id>", theirs[noun_of(rule)])

        answer = globex.call(method, path, **body_for(rule, method))

        assert answer.status_code in (200, 204), (method, rule.rule)


@pytest.mark.parametrize("noun", ["people", "companies", "opportunities"])
def test_lists_hold_no_foreign_row(acme: Visitor, globex: Visitor, theirs: dict[str, str], noun: str) -> None:
    assert [item["id"] for item in globex.get(f"/api/v1/{noun}").get_json()["items"]] == [theirs[noun]]

    assert acme.get(f"/api/v1/{noun}").get_json()["items"] == []
    assert acme.get(f"/api/v1/{noun}?q=Theirs").get_json()["items"] == []


@pytest.mark.parametrize(("noun", "column"), [("people", "company_id"), ("opportunities", "person_id")])
def test_filter_by_a_foreign_id_finds_nothing(acme: Visitor, theirs: dict[str, str], noun: str, column: str) -> None:
    target = {"company_id": "companies", "person_id": "people"}[column]

    assert acme.get(f"/api/v1/{noun}?{column}={theirs[target]}").get_json()["items"] == []


def test_answers_for_a_tenant_are_kept_by_no_shared_cache(acme: Visitor) -> None:
    """T108"""
    headers = acme.get("/api/v1/people").headers

    assert {"Host", "Authorization", "X-Tenant-ID", "X-Tenant-Slug"} <= set(headers["Vary"].split(", "))
    assert "private" in headers["Cache-Control"]


def test_every_guarded_api_route_refuses_a_stranger(app: Flask, acme: Visitor) -> None:
    for rule in app.url_map.iter_rules():
        exempt = app.extensions["tenancy"].exempt_endpoints(app)
        if not rule.rule.startswith("/api/") or rule.endpoint in exempt:
            continue
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}:
            path = re.sub(r"<(?:(\w+):)?\w+>", lambda found: str(uuid4()) if found[1] == "uuid" else "1", rule.rule)
            stranger = acme.client.open(path, method=method, base_url=f"http://{acme.slug}.localhost")

            assert codes(stranger) == (401, "not_signed_in"), (method, rule.rule)
