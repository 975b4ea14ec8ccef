"""The API against its own description: what schemathesis makes of it is answered as the document says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from tests.app.conftest import Visitor
from tests.app.staffing import staff_client

pytestmark = pytest.mark.timeout(600)
EXAMPLES = 6
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
# They end the sign-in that the rest is called with.
ENDINGS = {"/api/v1/auth/logout", "/api/v1/admin/auth/logout"}


def operations(app: Flask) -> Iterator[Any]:
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", app)
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path not in ENDINGS:
            yield operation


def faults(operation: Any, headers: dict[str, str], checks: list[Any]) -> list[str]:
    """Return what is wrong with the answers to some calls that the description allows, or nearly allows."""
    found: list[str] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def call(case: Any) -> None:
        response = case.call(headers=headers)
        try:
            case.validate_response(response, checks=checks)
        except BaseExceptionGroup as group:
            said = "; ".join(str(error).partition("\n")[0] for error in group.exceptions)
            found.append(f"{operation.label}: {said} ({response.status_code})")

    call()
    return sorted(set(found))


def test_every_answer_is_one_that_the_description_names(app: Flask, register: Callable[..., Visitor]) -> None:
    tenant = {"Authorization": f"Bearer {register().access_token}"}
    staff = {"Authorization": f"Bearer {staff_client(app).token}"}

    found = [
        fault
        for operation in operations(app)
        for fault in faults(operation, staff if operation.path.startswith("/api/v1/admin/") else tenant, CHECKS)
    ]

    assert found == []


def test_no_route_that_asks_for_a_token_answers_without_one(app: Flask) -> None:
    protected = [operation for operation in operations(app) if operation.definition.raw["security"]]
    assert len(protected) > 60

    client, some_id = app.test_client(), "00000000-0000-7000-8000-000000000000"
    answers = {}
    for operation in protected:
        parts = [some_id if part.startswith("{") else part for part in operation.path.split("/")]
        answers[operation.label] = client.open("/".join(parts), method=operation.method.upper()).status_code

    assert {label: status for label, status in answers.items() if status not in (401, 404)} == {}
