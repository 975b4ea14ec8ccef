"""The API's description, and the viewer that needs no network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from flask import Flask
from flask.testing import FlaskClient


def document(client: FlaskClient) -> dict[str, Any]:
    response = client.get("/api/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = response.get_json()
    return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def operations(found: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_document_is_openapi_3_1_and_has_the_parts_it_must(client: FlaskClient) -> None:
    found = document(client)

    assert found["openapi"] == "3.1.0"
    assert found["info"].keys() >= {"title", "version"}
    assert found.keys() <= {"openapi", "info", "servers", "paths", "components", "security", "tags", "webhooks"}
    assert found["components"].keys() <= {"schemas", "securitySchemes"}


def test_every_api_route_is_described(app: Flask, client: FlaskClient) -> None:
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/v1/")
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}
    }

    assert {(path, method) for path, method, _ in operations(document(client))} == served
    assert len(served) > 60


def test_every_reference_leads_somewhere(client: FlaskClient) -> None:
    found = document(client)
    known = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}

    used = set(references(found))

    assert len(used) > 10
    assert used <= known


def test_operation_ids_are_unique_and_path_parameters_are_declared(client: FlaskClient) -> None:
    found = list(operations(document(client)))

    ids = [operation["operationId"] for _, _, operation in found]
    assert len(ids) == len(set(ids))
    for path, _, operation in found:
        declared = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        assert all(p["required"] for p in operation["parameters"] if p["in"] == "path")


def test_parameters_have_schemas_and_only_known_places(client: FlaskClient) -> None:
    for _, _, operation in operations(document(client)):
        for parameter in operation["parameters"]:
            assert parameter["in"] in ("path", "query") or parameter["name"] == "Idempotency-Key"
            assert isinstance(parameter["schema"], dict)
            assert parameter.keys() <= {"name", "in", "required", "schema", "description"}


def test_admin_routes_ask_for_a_token_of_staff_and_no_others_do(client: FlaskClient) -> None:
    asked = {
        (path.startswith("/api/v1/admin/"), *scheme)
        for path, _, o in operations(document(client))
        for scheme in o["security"]
    }

    assert asked == {(True, "staff"), (False, "bearer")}


def test_every_post_of_the_admin_api_takes_an_idempotency_key(client: FlaskClient) -> None:
    for path, method, operation in operations(document(client)):
        takes_key = any(parameter["in"] == "header" for parameter in operation["parameters"])
        is_repeatable = path.startswith("/api/v1/admin/") and method == "post" and operation["security"] != []
        assert takes_key == is_repeatable
        assert ("422" in operation["responses"]) == is_repeatable


def test_every_refusal_is_a_problem_document(client: FlaskClient) -> None:
    for _, _, operation in operations(document(client)):
        refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert refusals.keys() >= {"400", "401", "403", "404", "409", "413", "415"}
        for answer in refusals.values():
            assert answer["content"].keys() == {"application/problem+json"}


def test_only_the_open_routes_need_no_token(client: FlaskClient) -> None:
    unprotected = {path for path, _, operation in operations(document(client)) if operation["security"] == []}

    assert unprotected == {
        "/api/v1/admin/auth/first-owner",
        "/api/v1/admin/auth/login",
        "/api/v1/admin/auth/set-password",
        "/api/v1/auth/accept-invitation",
        "/api/v1/auth/login",
        "/api/v1/auth/refresh",
        "/api/v1/auth/register-organization",
        "/api/v1/slugs/availability",
    }


def test_schemas_allow_no_unknown_field_in_a_body(client: FlaskClient) -> None:
    found = document(client)

    for _, _, operation in operations(found):
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            assert found["components"]["schemas"][reference.rpartition("/")[2]]["additionalProperties"] is False


def test_pictures_are_described_as_bytes(client: FlaskClient) -> None:
    image = document(client)["paths"]["/api/v1/cards/{row_id}/image"]

    assert image["put"]["requestBody"] == {"required": True, "content": {"image/*": {}}}
    assert image["get"]["responses"]["200"]["content"] == {"image/*": {}}
    assert "304" in image["get"]["responses"]


def test_viewer_loads_everything_from_here(client: FlaskClient) -> None:
    page = client.get("/api/docs").get_data(as_text=True)
    addresses = re.findall(r'(?:src|href|data-url)="([^"]+)"', page)

    assert len(addresses) == 5
    assert all(address.startswith("/") for address in addresses)
    for address in addresses:
        with client.get(address) as response:
            assert response.status_code == 200


def test_description_below_a_tenants_path_names_it_as_the_server(client: FlaskClient) -> None:
    below = client.get("/t/nobody/api/openapi.json").get_json()

    assert below["servers"] == [{"url": "/t/nobody"}]
    assert below["paths"] == document(client)["paths"]


def test_description_says_nothing_of_the_tenant_that_asks(client: FlaskClient) -> None:
    assert client.get("/api/openapi.json", headers={"X-Tenant-Slug": "nobody"}).get_json() == document(client)
