"""What a tenant has by its plan, and what a change of plan does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from sqlalchemy import event, text
from sqlalchemy.exc import ProgrammingError

from app.plans.changes import register_counter
from app.plans.limits import Quota, effective_limit
from app.plans.overrides import override
from app.plans.standing import standing_of
from app.plans.terms import Feature, TermKind
from app.staff.permissions import StaffRole
from tenancy.context import tenant_scope
from tests.app.conftest import Truth, Visitor, add_person, codes, fields
from tests.app.entitled import REASON, catalogue_with_second_basic, sell, staff_in
from tests.app.staffing import staff_client

PLAN = "/api/v1/plan"


def bought(truth: Truth, visitor: Visitor) -> tuple[object, ...]:
    row = truth.execute("SELECT plan, plan_version FROM tenants WHERE tenant_id = %s", [visitor.tenant_id]).fetchone()
    assert row is not None
    return row


def limits_of(answer: dict[str, list[dict[str, object]]]) -> dict[object, object]:
    return {one["name"]: one["limit"] for one in answer["limits"]}


def test_tenant_reads_what_its_plan_gives_and_why(register: Callable[..., Visitor]) -> None:
    acme = register("Acme", plan="premium")

    found = acme.get(PLAN).get_json()

    assert (found["plan"], found["version"]) == ("premium", 1)
    assert {one["name"] for one in found["features"] if one["is_included"]} == {"biometric_auth", "custom_branding"}
    assert limits_of(found)["users"] == 1_000
    assert found["limits"][0]["steps"] == [
        {"source": "default", "value": 0, "counts": True, "why": "nothing is allowed until a plan says so"},
        {"source": "plan", "value": 1_000, "counts": True, "why": "plan premium, version 1"},
    ]


def test_new_tenant_gets_the_newest_version(acme: Visitor, truth: Truth) -> None:
    assert bought(truth, acme) == ("basic", 1)


def test_tenant_keeps_the_version_it_bought(
    make_app: Callable[..., Flask], acme: Visitor, truth: Truth, tmp_path: Path
) -> None:
    later = make_app()
    sell(later, catalogue_with_second_basic(tmp_path))
    headers = {"Authorization": f"Bearer {acme.access_token}"}

    found = later.test_client().get(PLAN, headers=headers).get_json()

    assert (found["plan"], found["version"]) == ("basic", 1)
    assert limits_of(found)["users"] == 100


def test_tenant_moves_to_the_newest_version_of_its_own_plan(
    make_app: Callable[..., Flask], acme: Visitor, truth: Truth, tmp_path: Path
) -> None:
    later = make_app()
    sell(later, catalogue_with_second_basic(tmp_path))
    ana = staff_client(later)

    response = ana.post(f"/tenants/{acme.tenant_id}/migrate", json={"plan": "basic", "reason": REASON})

    assert response.status_code == 200, response.get_data(as_text=True)
    assert response.get_json()["direction"] == "same"
    assert response.get_json()["gained"] == ["priority_support"]
    assert bought(truth, acme) == ("basic", 2)


def test_version_that_was_taken_out_of_the_catalogue_grants_nothing(app: Flask, acme: Visitor, truth: Truth) -> None:
    truth.execute("UPDATE tenants SET plan_version = 9 WHERE tenant_id = %s", [acme.tenant_id])

    assert codes(staff_client(app).get(f"/tenants/{acme.tenant_id}/plan"))[0] == 500


@pytest.mark.parametrize("change", ["plan = 'custom'", "plan_version = 2"])
def test_tenant_cannot_change_its_own_plan(app: Flask, acme: Visitor, change: str) -> None:
    database = app.extensions["auth"].database

    with tenant_scope(acme.tenant_id), database.sessions() as session, pytest.raises(ProgrammingError) as refused:
        session.execute(text(f"UPDATE tenants SET {change}"))

    assert isinstance(refused.value.orig, psycopg.errors.InsufficientPrivilege)


# The rehearsal and the change -------------------------------------------------------------------------


def test_rehearsal_says_what_an_upgrade_gains_and_changes_nothing(app: Flask, acme: Visitor, truth: Truth) -> None:
    ana = staff_client(app, StaffRole.READ_ONLY)

    found = ana.get(f"/tenants/{acme.tenant_id}/migrate?plan=enterprise").get_json()

    assert found["direction"] == "upgrade"
    assert found["gained"] == [
        "biometric_auth",
        "ai_verification",
        "advanced_analytics",
        "custom_branding",
        "priority_support",
    ]
    assert found["lost"] == []
    assert {"quota": "users", "before": 100, "after": 10_000, "used": 1, "blocks": False} in found["limits"]
    assert {"key": "session.timeout", "before": 3_600, "after": 14_400} in found["settings"]
    assert found["is_blocked"] is False
    assert bought(truth, acme) == ("basic", 1)


def test_upgrade_counts_at_once_and_touches_no_data(app: Flask, acme: Visitor, truth: Truth) -> None:
    person = add_person(acme)
    assert limits_of(acme.get(PLAN).get_json())["users"] == 100

    response = staff_client(app).post(f"/tenants/{acme.tenant_id}/migrate", json={"plan": "premium", "reason": REASON})

    assert response.status_code == 200, response.get_data(as_text=True)
    assert bought(truth, acme) == ("premium", 1)
    assert acme.get(f"/api/v1/people/{person}").status_code == 200


def test_change_of_plan_is_in_the_audit(app: Flask, acme: Visitor, truth: Truth) -> None:
    ana = staff_client(app)

    ana.post(f"/tenants/{acme.tenant_id}/migrate", json={"plan": "premium", "reason": "they grew"})

    row = truth.execute(
        "SELECT actor_label, reason, before, after FROM audit_entries WHERE tenant_id = %s AND action = 'plan.changed'",
        [acme.tenant_id],
    ).fetchone()
    assert row == (
        ana.email,
        "they grew",
        {"plan": "basic", "plan_version": 1},
        {"plan": "premium", "plan_version": 1, "lost": []},
    )


def test_downgrade_is_refused_while_the_tenant_has_more_than_the_plan_allows(
    make_app: Callable[..., Flask], register: Callable[..., Visitor], truth: Truth
) -> None:
    app, acme = make_app(), register("Acme", plan="premium")
    register_counter(app, Quota.CARDS, lambda _session: 1_001)
    ana = staff_client(app)

    rehearsed = ana.get(f"/tenants/{acme.tenant_id}/migrate?plan=basic").get_json()
    response = ana.post(f"/tenants/{acme.tenant_id}/migrate", json={"plan": "basic", "reason": REASON})

    assert rehearsed["is_blocked"] is True
    assert rehearsed["lost"] == ["biometric_auth", "custom_branding"]
    assert codes(response) == (409, "plan_change_blocked")
    assert response.get_json()["blockers"] == [{"quota": "cards", "used": 1_001, "limit": 1_000, "over": 1}]
    assert bought(truth, acme) == ("premium", 1)


def test_downgrade_at_exactly_the_new_limit_goes_through(
    make_app: Callable[..., Flask], register: Callable[..., Visitor], truth: Truth
) -> None:
    app, acme = make_app(), register("Acme", plan="premium")
    register_counter(app, Quota.CARDS, lambda _session: 1_000)

    response = staff_client(app).post(f"/tenants/{acme.tenant_id}/migrate", json={"plan": "basic", "reason": REASON})

    assert response.status_code == 200, response.get_data(as_text=True)
    assert bought(truth, acme) == ("basic", 1)


def test_members_are_counted_and_block(
    make_app: Callable[..., Flask], acme: Visitor, truth: Truth, tmp_path: Path
) -> None:
    app = make_app()
    sell(app, catalogue_with_second_basic(tmp_path))
    add_members(truth, acme, 50)

    response = staff_client(app).post(f"/tenants/{acme.tenant_id}/migrate", json={"plan": "basic", "reason": REASON})

    assert response.get_json()["blockers"] == [{"quota": "users", "used": 51, "limit": 50, "over": 1}]


def add_members(truth: Truth, visitor: Visitor, count: int) -> None:
    for _ in range(count):
        truth.execute(
            """WITH account AS (INSERT INTO accounts (id, email, password_hash)
                                SELECT id, id || '@people.test', '-' FROM (SELECT uuidv7() AS id) AS made
                                RETURNING id, email)
               INSERT INTO members (tenant_id, id, account_id, email, role, permissions)
               SELECT %s, uuidv7(), id, email, 'member', '{}' FROM account""",
            [visitor.tenant_id],
        )


@pytest.mark.parametrize("plan", ["gold", "basic"])
def test_unknown_plan_and_the_one_there_is_are_refused(app: Flask, acme: Visitor, plan: str) -> None:
    response = staff_client(app).post(f"/tenants/{acme.tenant_id}/migrate", json={"plan": plan, "reason": REASON})

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == ["plan"]


def test_change_without_a_reason_is_refused(app: Flask, acme: Visitor) -> None:
    response = staff_client(app).post(f"/tenants/{acme.tenant_id}/migrate", json={"plan": "premium", "reason": " "})

    assert fields(response) == ["reason"]


def test_support_may_rehearse_but_not_move(app: Flask, acme: Visitor) -> None:
    sam = staff_client(app, StaffRole.SUPPORT)

    assert sam.get(f"/tenants/{acme.tenant_id}/migrate?plan=premium").status_code == 200
    assert codes(sam.post(f"/tenants/{acme.tenant_id}/migrate", json={"plan": "premium", "reason": REASON}))[0] == 403


def test_tenant_that_does_not_exist_has_no_plan(app: Flask, acme: Visitor) -> None:
    ana = staff_client(app)
    assert ana.get(f"/tenants/{acme.tenant_id}/plan").status_code == 200

    assert codes(ana.get("/tenants/00000000-0000-7000-8000-000000000000/plan")) == (404, "not_found")


def test_staff_read_the_whole_catalogue(app: Flask) -> None:
    found = staff_client(app).get("/plans").get_json()["items"]

    assert [(one["plan"], one["version"]) for one in found] == [
        ("basic", 1),
        ("premium", 1),
        ("enterprise", 1),
        ("custom", 1),
    ]
    assert found[3]["limits"]["cards"] is None


# What costs a flight ----------------------------------------------------------------------------------


def test_second_question_of_a_request_sends_no_statement(app: Flask, acme: Visitor) -> None:
    database = app.extensions["auth"].database
    assert acme.get(PLAN).status_code == 200  # the directory knows the tenant now, and the standing is remembered
    seen: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))

    with app.app_context(), tenant_scope(acme.tenant_id), database.sessions() as session:
        limit = effective_limit(session, Quota.USERS)

    assert limit == 100
    assert seen == []


def test_staff_in_a_new_scope_read_what_they_just_wrote(app: Flask, acme: Visitor) -> None:
    assert acme.get(PLAN).status_code == 200

    with staff_in(app, acme) as session:
        override(session, TermKind.FEATURE, Feature.AI_VERIFICATION, True, reason=REASON, expires_at=None)

        assert standing_of(session).has_feature(Feature.AI_VERIFICATION) is True
