"""Attacks on what is left of a tenant: writing to it once it is erased, and what is kept of its people elsewhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from app.tenants.erasure import count_rows, erase_tenant
from app.tenants.operations import schedule_deletion
from tests.app.conftest import Truth, Visitor, codes
from tests.app.lives import WHY, as_staff, registrar_of
from tests.app.staffing import Staffer, staff_client

REASON = {"reason": "an attack"}


def erase(app: Flask, whom: Visitor) -> None:
    with app.app_context(), as_staff():
        schedule_deletion(registrar_of(app), whom.tenant_id, reason=WHY, grace=timedelta(0))
        erase_tenant(registrar_of(app), whom.tenant_id, reason=WHY)


def rows_of(app: Flask, whom: Visitor) -> dict[str, int]:
    with app.app_context(), as_staff(), registrar_of(app).in_tenant(whom.tenant_id, reason=WHY) as session:
        return {table: rows for table, rows in count_rows(session, whom.tenant_id).items() if rows}


@pytest.fixture
def ana(app: Flask) -> Staffer:
    return staff_client(app)


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("PATCH", "", {"name": "Somebody's name"}),
    ("PATCH", "", {"slug": "back-again-{slug}"}),
    ("PUT", "/features/ai_verification", {"is_included": True}),
    ("PUT", "/limits/users", {"limit": 3}),
    ("PUT", "/config/session.timeout", {"value": 600}),
    ("POST", "/migrate", {"plan": "enterprise"}),
    ("POST", "/keys/rotate", {}),
    ("POST", "/provision", {}),
]


@pytest.mark.parametrize(("method", "path", "json"), CALLS)
def test_nothing_is_written_to_a_tenant_that_was_erased(
    app: Flask, ana: Staffer, acme: Visitor, method: str, path: str, json: dict[str, Any]
) -> None:
    """The certificate says that nothing is left; a row written after it would make it a lie that nobody looks at."""
    sent = {name: value.format(slug=acme.slug) if isinstance(value, str) else value for name, value in json.items()}
    erase(app, acme)
    assert rows_of(app, acme) == {}

    answer = ana.call(method, f"/tenants/{acme.tenant_id}{path}", json={**sent, **REASON})

    assert codes(answer) == (409, "invalid_transition")
    assert rows_of(app, acme) == {}
    shown = ana.get(f"/tenants/{acme.tenant_id}").get_json()
    assert (shown["name"], shown["slug"], shown["status"]) == ("(erased)", acme.slug, "deleted")


def test_lists_of_an_erased_tenant_can_still_be_read(app: Flask, ana: Staffer, acme: Visitor) -> None:
    erase(app, acme)

    answers = [ana.get(f"/tenants/{acme.tenant_id}{path}") for path in ("", "/transitions", "/audit", "/limits")]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 200]


def test_search_keeps_nothing_of_an_erased_tenants_name(app: Flask, acme: Visitor, truth: Truth) -> None:
    def copies() -> list[Any]:
        return truth.execute("SELECT name FROM searched_tenants WHERE found_id = %s", [acme.tenant_id]).fetchall()

    assert copies() == [("Acme",)]

    erase(app, acme)

    assert copies() == [("(erased)",)]


def test_log_of_platform_scopes_names_no_person_of_a_tenant(acme: Visitor, truth: Truth) -> None:
    """It is append-only, and stays when the tenant and the account have gone: it has the account's id."""
    acme.post("/api/v1/domains", json={"domain": f"{acme.slug}.example.com"})

    named = truth.execute(
        "SELECT count(*) FROM tenancy.platform_session WHERE actor LIKE %s OR reason LIKE %s",
        [f"%{acme.email}%", f"%{acme.email}%"],
    ).fetchone()
    by_id = truth.execute(
        "SELECT count(*) > 0 FROM tenancy.platform_session WHERE actor = %s",
        [f"account:{acme.get('/api/v1/me').get_json()['user']['id']}"],
    ).fetchone()

    assert by_id == (True,)
    assert named == (0,)
