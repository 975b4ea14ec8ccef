"""Features and overrides: what only some plans include, and what staff gave or took for a while."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from flask import Flask, render_template_string
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from app.auth.access import permits
from app.members.permissions import Permission
from app.plans.features import FeatureNotIncludedError, has_feature, needs_feature, require_feature
from app.plans.limits import Quota, effective_limit
from app.plans.terms import Feature, TermKind
from app.staff.permissions import StaffRole
from tenancy.context import tenant_scope
from tests.app.conftest import Truth, Visitor, codes, fields
from tests.app.entitled import REASON, give
from tests.app.staffing import Staffer, staff_client
from tests.app.test_sign_in import wait_until

PLAN = "/api/v1/plan"


def insights() -> dict[str, bool]:
    return {"shown": True}


def branding() -> str:
    return render_template_string("{% if has_feature('custom_branding') %}own{% else %}ours{% endif %}")


@pytest.fixture
def gated(make_app: Callable[..., Flask]) -> Flask:
    """An application with a route that is part of a feature, and a page that asks for another."""
    app = make_app()
    app.add_url_rule(
        "/api/v1/insights", "insights", permits(Permission.CRM_READ)(needs_feature("advanced_analytics")(insights))
    )
    app.add_url_rule("/branding", "branding", permits(Permission.CRM_READ)(branding))
    return app


def ask(app: Flask, visitor: Visitor, path: str) -> Any:
    return app.test_client().get(path, headers={"Authorization": f"Bearer {visitor.access_token}"})


def features_of(visitor: Visitor) -> set[str]:
    return {one["name"] for one in visitor.get(PLAN).get_json()["features"] if one["is_included"]}


def limit_of(visitor: Visitor, quota: str) -> int | None:
    return {one["name"]: one["limit"] for one in visitor.get(PLAN).get_json()["limits"]}[quota]


def test_route_of_a_feature_is_refused_with_the_plans_that_have_it(gated: Flask, acme: Visitor) -> None:
    response = ask(gated, acme, "/api/v1/insights")

    assert codes(response) == (403, "feature_not_included")
    assert response.get_json()["feature"] == "advanced_analytics"
    assert response.get_json()["plans"] == ["enterprise", "custom"]


def test_route_of_a_feature_is_served_where_the_plan_has_it(gated: Flask, register: Callable[..., Visitor]) -> None:
    assert ask(gated, register("Acme", plan="enterprise"), "/api/v1/insights").get_json() == {"shown": True}


def test_template_asks_for_a_feature(gated: Flask, acme: Visitor, register: Callable[..., Visitor]) -> None:
    assert ask(gated, acme, "/branding").text == "ours"
    assert ask(gated, register("Globex", plan="premium"), "/branding").text == "own"


def test_job_asks_for_a_feature_in_its_own_session(app: Flask, acme: Visitor) -> None:
    with app.app_context(), tenant_scope(acme.tenant_id), app.extensions["auth"].database.sessions() as session:
        assert has_feature(Feature.AI_VERIFICATION, session) is False
        with pytest.raises(FeatureNotIncludedError):
            require_feature(Feature.AI_VERIFICATION, session)
        assert effective_limit(session, Quota.USERS) == 100


def test_feature_that_does_not_exist_is_a_mistake_at_import() -> None:
    with pytest.raises(ValueError, match="teleporting"):
        needs_feature("teleporting")


# Overrides --------------------------------------------------------------------------------------------


@pytest.fixture
def ana(app: Flask) -> Staffer:
    return staff_client(app)


def test_staff_give_a_feature_and_the_tenant_reads_why(acme: Visitor, ana: Staffer) -> None:
    assert features_of(acme) == set()

    response = ana.put(
        f"/tenants/{acme.tenant_id}/features/ai_verification", json={"is_included": True, "reason": "a pilot"}
    )

    assert response.status_code == 200, response.get_data(as_text=True)
    wait_until(lambda: features_of(acme) == {"ai_verification"})
    steps = next(one for one in acme.get(PLAN).get_json()["features"] if one["name"] == "ai_verification")["steps"]
    assert [(step["source"], step["value"], step["counts"]) for step in steps] == [
        ("default", False, True),
        ("plan", False, True),
        ("override", True, True),
    ]
    assert steps[2]["why"] == f"a pilot: by {ana.email}"


def test_staff_take_a_feature_away(register: Callable[..., Visitor], ana: Staffer) -> None:
    acme = register("Acme", plan="premium")
    assert features_of(acme) == {"biometric_auth", "custom_branding"}

    ana.put(f"/tenants/{acme.tenant_id}/features/biometric_auth", json={"is_included": False, "reason": REASON})

    wait_until(lambda: features_of(acme) == {"custom_branding"})


def test_withdrawn_override_lets_the_plan_count_again(acme: Visitor, ana: Staffer) -> None:
    ana.put(f"/tenants/{acme.tenant_id}/limits/users", json={"limit": 7, "reason": REASON})
    wait_until(lambda: limit_of(acme, "users") == 7)

    response = ana.delete(f"/tenants/{acme.tenant_id}/limits/users?reason=over")

    assert response.get_json()["limit"] == 100
    wait_until(lambda: limit_of(acme, "users") == 100)
    assert codes(ana.delete(f"/tenants/{acme.tenant_id}/limits/users?reason=again")) == (404, "not_found")


def test_limit_can_be_lifted_altogether(acme: Visitor, ana: Staffer) -> None:
    ana.put(f"/tenants/{acme.tenant_id}/limits/users", json={"limit": None, "reason": REASON})

    wait_until(lambda: limit_of(acme, "users") is None)


def test_second_override_replaces_the_first_and_both_are_in_the_audit(
    acme: Visitor, ana: Staffer, truth: Truth
) -> None:
    path = f"/tenants/{acme.tenant_id}/limits/cards"

    ana.put(path, json={"limit": 5, "reason": "first"})
    ana.put(path, json={"limit": 6, "reason": "second"})

    rows = truth.execute(
        """SELECT before ->> 'value', after ->> 'value', reason FROM audit_entries
           WHERE tenant_id = %s AND action = 'limit.overridden' ORDER BY at""",
        [acme.tenant_id],
    ).fetchall()
    assert rows == [(None, "5", "first"), ("5", "6", "second")]


def test_override_stops_counting_when_it_expires_though_nobody_is_told(app: Flask, acme: Visitor) -> None:
    assert limit_of(acme, "users") == 100

    give(app, acme, TermKind.LIMIT, "users", 7, until=datetime.now(UTC) + timedelta(seconds=1.5))
    wait_until(lambda: limit_of(acme, "users") == 7)

    wait_until(lambda: limit_of(acme, "users") == 100, within_s=5)
    steps = next(one for one in acme.get(PLAN).get_json()["limits"] if one["name"] == "users")["steps"]
    assert (steps[2]["value"], steps[2]["counts"]) == (7, False)
    assert steps[2]["why"].endswith("(expired)")


def test_override_in_the_past_is_refused(acme: Visitor, ana: Staffer, truth: Truth) -> None:
    past = {"limit": 7, "reason": REASON, "expires_at": "2020-01-01T00:00:00Z"}

    response = ana.put(f"/tenants/{acme.tenant_id}/limits/users", json=past)

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == ["expires_at"]
    assert truth.execute("SELECT count(*) FROM overrides WHERE tenant_id = %s", [acme.tenant_id]).fetchone() == (0,)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("limits/users", {"limit": -1, "reason": REASON}, "limit"),
        ("limits/users", {"limit": "7", "reason": REASON}, "limit"),
        ("limits/users", {"limit": 1 << 63, "reason": REASON}, "limit"),
        ("limits/users", {"reason": REASON}, "limit"),
        ("limits/users", {"limit": 7}, "reason"),
        ("limits/users", {"limit": 7, "reason": " "}, "reason"),
        ("limits/users", {"limit": 7, "reason": REASON, "expires_at": "2999-01-01T00:00:00"}, "expires_at"),
        ("features/ai_verification", {"is_included": "yes", "reason": REASON}, "is_included"),
        ("config/session.timeout", {"value": "long", "reason": REASON}, "value"),
        ("config/session.timeout", {"value": 1, "reason": REASON}, "value"),
    ],
)
def test_override_that_makes_no_sense_is_refused(
    acme: Visitor, ana: Staffer, path: str, body: dict[str, object], field: str
) -> None:
    response = ana.put(f"/tenants/{acme.tenant_id}/{path}", json=body)

    assert codes(response)[0] == 400
    assert fields(response) == [field]


@pytest.mark.parametrize("path", ["features/teleporting", "limits/elephants", "config/session.timeuot"])
def test_override_of_what_does_not_exist_is_not_found(acme: Visitor, ana: Staffer, path: str) -> None:
    body = {"is_included": True, "reason": REASON}
    body = body if path.startswith("features") else {"limit": 1, "reason": REASON}
    body = {"value": 1, "reason": REASON} if path.startswith("config") else body

    assert codes(ana.put(f"/tenants/{acme.tenant_id}/{path}", json=body)) == (404, "not_found")


def test_read_only_staff_override_nothing(app: Flask, acme: Visitor) -> None:
    rosa = staff_client(app, StaffRole.READ_ONLY)
    assert rosa.get(f"/tenants/{acme.tenant_id}/limits").status_code == 200

    response = rosa.put(f"/tenants/{acme.tenant_id}/limits/users", json={"limit": 7, "reason": REASON})

    assert codes(response) == (403, "forbidden")


def test_override_is_of_one_tenant(acme: Visitor, globex: Visitor, ana: Staffer) -> None:
    ana.put(f"/tenants/{acme.tenant_id}/limits/users", json={"limit": 7, "reason": REASON})

    wait_until(lambda: limit_of(acme, "users") == 7)
    assert limit_of(globex, "users") == 100
    assert ana.get(f"/tenants/{globex.tenant_id}/limits").get_json()["items"][0]["limit"] == 100


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO overrides (tenant_id, id, kind, name, value, reason, author) "
        "VALUES (:tenant, uuidv7(), 'limit', 'cards', 'null', 'mine', 'me')",
        "UPDATE overrides SET value = 'null'",
        "DELETE FROM overrides",
    ],
)
def test_tenant_reads_its_overrides_and_cannot_write_them(app: Flask, acme: Visitor, statement: str) -> None:
    give(app, acme, TermKind.LIMIT, "users", 7)
    database = app.extensions["auth"].database

    with tenant_scope(acme.tenant_id), database.sessions() as session:
        assert session.execute(text("SELECT value FROM overrides")).scalar() == 7
        with pytest.raises(ProgrammingError) as refused:
            session.execute(text(statement), {"tenant": acme.tenant_id})

    assert isinstance(refused.value.orig, psycopg.errors.InsufficientPrivilege)


def test_other_processes_hear_of_an_override_within_a_second(
    make_app: Callable[..., Flask], app: Flask, acme: Visitor
) -> None:
    other = make_app()
    assert re.search('"limit": ?100', ask(other, acme, PLAN).text)
    directory = other.extensions["auth"].directory
    wait_until(lambda: directory.is_listening)

    give(app, acme, TermKind.LIMIT, "users", 7)
    began = datetime.now(UTC)
    wait_until(lambda: bool(re.search('"limit": ?7\\b', ask(other, acme, PLAN).text)))

    assert datetime.now(UTC) - began < timedelta(seconds=1)
