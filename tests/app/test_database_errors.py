"""What the database refuses is answered without its words: no SQL, table, detail or value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy import text

from app.auth.access import signed_in
from app.db import session
from tests.app.conftest import Visitor, add_person, codes, fields

SECRET = "topsecret@rival.example"
NEW_ROW = "INSERT INTO people (tenant_id, id, name, email, company_id) SELECT tenant_id, gen_random_uuid(), "
PROVOCATIONS = {
    "unique": (NEW_ROW + "'x', email, NULL FROM people LIMIT 1", 409, ["email"]),
    "foreign key": (NEW_ROW + "'x', NULL, gen_random_uuid() FROM people LIMIT 1", 400, ["company_id"]),
    "check": (
        "INSERT INTO opportunities (tenant_id, id, name, stage, amount_cents, currency)"
        " SELECT tenant_id, gen_random_uuid(), email, 'lead', -1, 'EUR' FROM people LIMIT 1",
        400,
        [],
    ),
    "not null": ("UPDATE people SET name = NULL", 400, ["name"]),
    "malformed value": ("SELECT CAST(email AS uuid) FROM people", 400, []),
    "forbidden": ("UPDATE people SET tenant_id = gen_random_uuid()", 500, []),
    "other tenant": ("INSERT INTO people (tenant_id, id, name) VALUES (gen_random_uuid(), id, 'x')", 500, []),
    "no such table": ("SELECT * FROM nothing_here", 500, []),
}
TELLTALE = (
    "select",
    "insert",
    "update",
    "people",
    "opportunities",
    "amount",
    "sqlstate",
    "psycopg",
    "constraint",
    "policy",
    "permission",
    "key (",
)


@pytest.mark.parametrize("name", PROVOCATIONS)
def test_refusal_of_the_database_shows_nothing_of_it(make_app: Callable[..., Flask], acme: Visitor, name: str) -> None:
    """T047"""
    sql, status, named = PROVOCATIONS[name]
    add_person(acme, email=SECRET)
    provoked = make_app()

    def provoke() -> str:
        session().execute(text(sql))
        return "nothing happened"

    provoked.add_url_rule("/api/v1/provoke", view_func=signed_in(provoke))
    response = replace(acme, client=provoked.test_client()).get("/api/v1/provoke")

    said = response.get_data(as_text=True).lower()
    assert codes(response)[0] == status
    assert fields(response) == named
    assert [word for word in (SECRET, *TELLTALE) if word in said] == []
