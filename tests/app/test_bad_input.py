"""Bad input: a 4xx problem that names the field and the fix, and nothing written."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from tests.app.conftest import PASSWORD, Truth, Visitor, add_person, codes, fields, new_email

PEOPLE = "/api/v1/people"
REGISTER = "/api/v1/auth/register-organization"


def people_of(visitor: Visitor, truth: Truth) -> int:
    row = truth.execute("SELECT count(*) FROM people WHERE tenant_id = %s", [visitor.tenant_id]).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": 7}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "nul\0"}, "name"),
        ({"name": "half \ud800"}, "name"),
        ({"name": "Ada", "email": "nowhere"}, "email"),
        ({"name": "Ada", "email": "a@b@c.example"}, "email"),
        ({"name": "Ada", "company_id": "42"}, "company_id"),
        ({"name": "Ada", "surname": "L"}, "surname"),
        ({"name": "Ada", "id": str(uuid4())}, "id"),
        ({"name": "Ada", "tenant_id": str(uuid4())}, "tenant_id"),
    ],
)
def test_unusable_field_is_named_and_nothing_is_written(
    acme: Visitor, truth: Truth, body: dict[str, Any], field: str
) -> None:
    """T083, T119"""
    response = acme.post(PEOPLE, data=json.dumps(body), content_type="application/json")

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == [field]
    assert response.get_json()["errors"][0]["message"]
    assert people_of(acme, truth) == 0


@pytest.mark.parametrize("field", ["tenant_id", "id", "surname", "created_at"])
def test_change_of_a_field_that_is_not_offered_changes_nothing(acme: Visitor, field: str) -> None:
    """T083, T119"""
    path = f"{PEOPLE}/{add_person(acme)}"
    before = acme.get(path).get_json()

    response = acme.call("PATCH", path, json={"name": "Other", field: str(uuid4())})

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == [field]
    assert acme.get(path).get_json() == before


def test_tenant_id_in_a_body_says_where_the_tenant_comes_from(acme: Visitor) -> None:
    response = acme.post(PEOPLE, json={"name": "Ada", "tenant_id": str(acme.tenant_id)})

    assert "comes from the address" in response.get_json()["errors"][0]["message"]


@pytest.mark.parametrize("path", [PEOPLE, "/api/v1/me", f"{PEOPLE}/7b44e290-1c14-4b7e-8480-bde5a89e31b4"])
def test_tenant_id_in_the_query_is_refused(acme: Visitor, path: str) -> None:
    """T119"""
    response = acme.get(f"{path}?tenant_id={acme.tenant_id}")

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == ["query.tenant_id"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("sort=tenant_id", "query.sort"),
        ("sort=company.tenant_id", "query.sort"),
        ("sort=name;drop", "query.sort"),
        ("include=company", "query.include"),
        ("filter[tenant_id]=x", "query.filter[tenant_id]"),
        ("company.tenant_id=x", "query.company.tenant_id"),
        ("limit=0", "query.limit"),
        ("limit=10000", "query.limit"),
        ("limit=ten", "query.limit"),
        ("company_id=42", "query.company_id"),
        ("q=a%00b", "query.q"),
        ("cursor=x", "query.cursor"),
        ("cursor=%C3%A9", "query.cursor"),
        ("cursor=bnVsbA", "query.cursor"),
        ("cursor=WzEsMl0", "query.cursor"),
        ("cursor=WyJuYW1lIiwiYSIsIm5vIl0", "query.cursor"),
        ("cursor=WyJuYW1lIiw3LCI3YjQ0ZTI5MC0xYzE0LTRiN2UtODQ4MC1iZGU1YTg5ZTMxYjQiXQ", "query.cursor"),
    ],
)
def test_query_that_is_not_offered_is_refused_and_named(acme: Visitor, query: str, field: str) -> None:
    """T119"""
    response = acme.get(f"{PEOPLE}?{query}")

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == [field]


def test_cursor_of_another_sort_is_refused(acme: Visitor) -> None:
    for name in ("A", "B"):
        add_person(acme, name)
    cursor = acme.get(f"{PEOPLE}?limit=1&sort=name").get_json()["next_cursor"]

    assert fields(acme.get(f"{PEOPLE}?sort=created_at&cursor={cursor}")) == ["query.cursor"]


@pytest.mark.parametrize("value", ["42", "nope", "{7b44e290-1c14-4b7e-8480-bde5a89e31b4}", "%00", "é"])
def test_malformed_id_in_a_path_is_told_apart_from_a_missing_row(acme: Visitor, value: str) -> None:
    response = acme.get(f"{PEOPLE}/{value}")

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == ["id"]


@pytest.mark.parametrize("data", [b"{", b"", b"\xff", b"{'a': 1}", b'{"a": }', b"[" * 100_000])
def test_malformed_json_is_a_bad_request(acme: Visitor, truth: Truth, data: bytes) -> None:
    response = acme.post(PEOPLE, data=data, content_type="application/json")

    assert response.status_code == 400
    assert response.mimetype == "application/problem+json"
    assert people_of(acme, truth) == 0


@pytest.mark.parametrize("data", [b"[]", b'"text"', b"null", b"7"])
def test_json_that_is_no_object_is_refused(acme: Visitor, data: bytes) -> None:
    response = acme.post(PEOPLE, data=data, content_type="application/json")

    assert codes(response) == (400, "invalid_input")
    assert "one JSON object" in response.get_json()["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/xml"])
def test_other_content_types_than_json_are_unsupported(acme: Visitor, truth: Truth, kind: str) -> None:
    response = acme.post(PEOPLE, data=b'{"name": "Ada"}', content_type=kind)

    assert codes(response) == (415, "unsupported_media_type")
    assert people_of(acme, truth) == 0


def test_body_without_content_type_is_unsupported(acme: Visitor) -> None:
    assert codes(acme.post(PEOPLE, data=b'{"name": "Ada"}')) == (415, "unsupported_media_type")


def test_oversize_body_is_refused(acme: Visitor, truth: Truth) -> None:
    response = acme.post(PEOPLE, json={"name": "Ada", "phone": "1" * 2_000_000})

    assert codes(response) == (413, "request_entity_too_large")
    assert people_of(acme, truth) == 0


def test_wrong_method_names_the_right_ones(acme: Visitor) -> None:
    response = acme.call("PUT", PEOPLE)

    assert codes(response) == (405, "method_not_allowed")
    assert {"GET", "POST"} <= set(response.headers["Allow"].replace(" ", "").split(","))


def test_unknown_path_is_a_problem_too(acme: Visitor) -> None:
    assert codes(acme.get("/api/v1/nothing")) == (404, "not_found")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"admin_password": "short"}, "admin_password"),
        ({"admin_password": "x" * 201}, "admin_password"),
        ({"admin_email": "nobody"}, "admin_email"),
        ({"plan": "free"}, "plan"),
        ({"organization_name": ""}, "organization_name"),
        ({"organization_name": "\n\t"}, "organization_name"),
        ({"slug": "mine"}, "slug"),
    ],
)
def test_registration_names_each_unusable_field_and_writes_nothing(
    client: FlaskClient, truth: Truth, changes: dict[str, str], field: str
) -> None:
    email = new_email()
    given = {"organization_name": "Acme", "admin_email": email, "admin_password": PASSWORD} | changes

    response = client.post(REGISTER, json=given)

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == [field]
    assert PASSWORD not in response.get_data(as_text=True)
    assert truth.execute("SELECT count(*) FROM accounts WHERE email = %s", [email]).fetchone() == (0,)


@pytest.mark.parametrize("host", ["", "a b.localhost", "ac_me.localhost", "a\u00e9.localhost", "-x.localhost"])
def test_malformed_host_is_a_bad_request(client: FlaskClient, host: str) -> None:
    """T094"""
    response = client.get("/api/v1/me", environ_overrides={"HTTP_HOST": host})

    assert response.status_code in (400, 404)
    assert response.mimetype == "application/problem+json"


@pytest.mark.parametrize(
    "headers",
    [{"X-Tenant-ID": "42"}, {"X-Tenant-Slug": "UPPER"}, {"X-Tenant-Slug": "a,b"}, {"X-Tenant-Slug": "a--b"}],
)
def test_malformed_tenant_header_is_a_bad_request(client: FlaskClient, headers: dict[str, str]) -> None:
    """T097"""
    assert codes(client.get("/api/v1/me", headers=headers)) == (400, "malformed_reference")


def test_query_cannot_choose_the_tenant_of_a_write(acme: Visitor, truth: Truth) -> None:
    """T097"""
    response = acme.post(f"{PEOPLE}?tenant={acme.slug}", json={"name": "Ada"})

    assert codes(response) == (400, "malformed_reference")
    assert people_of(acme, truth) == 0


def test_numbers_beyond_the_column_are_refused(acme: Visitor) -> None:
    response = acme.post("/api/v1/opportunities", json={"name": "Huge", "amount_cents": 10**30})

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == ["amount_cents"]


def test_many_unknown_fields_with_long_names_do_not_come_back_whole(acme: Visitor) -> None:
    body = {"name": "Ada"} | {f"{number}{'x' * 1000}": 1 for number in range(100)}

    response = acme.post(PEOPLE, json=body)

    assert codes(response) == (400, "invalid_input")
    assert len(fields(response)) == 20
    assert max(map(len, fields(response))) == 100
