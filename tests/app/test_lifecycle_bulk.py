"""Many at once: looked at first, run over exactly those, one failure apart from the next, and resumed after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from app.errors import InvalidInputError
from app.staff.permissions import StaffPermission, StaffRole
from app.tenants.bulk import BulkChangedError, Wanted, carry_on, outcome, preview, start_run
from app.tenants.operations import suspend
from app.tenants.registrar import Hooks, Registrar
from app.tenants.states import Status
from tests.app.conftest import Truth, Visitor, codes
from tests.app.lives import WHY, KilledError, as_staff, killed_after, ready_tenant, registrar_of
from tests.app.staffing import Staffer, staff_client


@pytest.fixture
def registrar(app: Flask) -> Registrar:
    return registrar_of(app)


@pytest.fixture
def three(registrar: Registrar) -> Wanted:
    return Wanted(ids=tuple(sorted(ready_tenant(registrar).id for _ in range(3))))


def statuses(truth: Truth, ids: tuple[UUID, ...]) -> list[str]:
    rows = truth.execute("SELECT status FROM tenants WHERE tenant_id = ANY(%s) ORDER BY tenant_id", [list(ids)])
    return [str(row[0]) for row in rows.fetchall()]


def started(registrar: Registrar, wanted: Wanted, to: Status = Status.SUSPENDED) -> UUID:
    return start_run(registrar, wanted, to, token=preview(registrar, wanted, to).token, reason="unpaid")


def test_dry_run_says_who_would_change_and_changes_nobody(registrar: Registrar, three: Wanted, truth: Truth) -> None:
    with as_staff():
        suspend(registrar, three.ids[0], reason=WHY)

        found = preview(registrar, three, Status.SUSPENDED)

    assert (found.changed, found.refused) == (2, 1)
    assert [tenant_id for tenant_id, _slug, _status in found.shown] == list(three.ids[1:])
    assert statuses(truth, three.ids) == ["suspended", "active", "active"]


def test_run_changes_those_that_were_looked_at_each_with_its_own_trace(
    registrar: Registrar, three: Wanted, truth: Truth
) -> None:
    with as_staff():
        run_id = started(registrar, three)
        steps = [(one.done, one.failed, one.waiting) for one in carry_on(registrar, run_id)]

    reasons = truth.execute(
        "SELECT reason FROM tenant_transitions WHERE tenant_id = ANY(%s) AND to_status = 'suspended'",
        [list(three.ids)],
    ).fetchall()
    audit = truth.execute("SELECT action FROM platform_entries WHERE target_id = %s ORDER BY at", [run_id]).fetchall()
    assert steps == [(1, 0, 2), (2, 0, 1), (3, 0, 0)]
    assert statuses(truth, three.ids) == ["suspended"] * 3
    assert reasons == [("unpaid",)] * 3
    assert audit == [("tenants.bulk_started",), ("tenants.bulk_finished",)]


def test_run_over_others_than_were_looked_at_does_nothing(registrar: Registrar, three: Wanted, truth: Truth) -> None:
    with as_staff():
        token = preview(registrar, three, Status.SUSPENDED).token
        suspend(registrar, three.ids[0], reason=WHY)

        with pytest.raises(BulkChangedError) as refused:
            start_run(registrar, three, Status.SUSPENDED, token=token, reason=WHY)

    assert refused.value.members == {"changed": 2, "refused": 1}
    assert statuses(truth, three.ids) == ["suspended", "active", "active"]


def test_token_of_one_status_starts_no_run_to_another(registrar: Registrar, three: Wanted) -> None:
    with as_staff():
        token = preview(registrar, three, Status.SUSPENDED).token

        with pytest.raises(BulkChangedError):
            start_run(registrar, three, Status.DELETING, token=token, reason=WHY)


def test_tenant_that_fails_stops_no_other_and_says_why(registrar: Registrar, three: Wanted, truth: Truth) -> None:
    def fail_for_second(_session: Session, tenant_id: UUID, _to: str) -> None:
        if tenant_id == three.ids[1]:
            raise OSError("the queue is down")

    with as_staff():
        run_id = started(registrar, three)
        list(carry_on(replace(registrar, hooks=Hooks(listeners=(fail_for_second,))), run_id))
        found = outcome(registrar, run_id)

    assert statuses(truth, three.ids) == ["suspended", "active", "suspended"]
    assert (found.done, found.failed, found.waiting) == (2, 1, 0)
    assert found.errors == {three.ids[1]: "OSError"}


@pytest.mark.parametrize("commits", [2, 3, 4, 5])
def test_run_that_was_killed_goes_on_and_changes_nobody_twice(
    registrar: Registrar, three: Wanted, truth: Truth, commits: int
) -> None:
    with as_staff():
        run_id = started(registrar, three)
        with pytest.raises(KilledError), killed_after(commits):
            list(carry_on(registrar, run_id))

        list(carry_on(registrar, run_id))
        found = outcome(registrar, run_id)

    count = truth.execute(
        "SELECT count(*) FROM tenant_transitions WHERE tenant_id = ANY(%s) AND to_status = 'suspended'",
        [list(three.ids)],
    ).fetchone()
    assert (found.done, found.failed, found.waiting) == (3, 0, 0)
    assert count == (3,)


def test_filter_matches_all_that_is_given(registrar: Registrar, three: Wanted) -> None:
    with as_staff():
        suspend(registrar, three.ids[0], reason=WHY)

        by_status = preview(registrar, replace(three, status=Status.SUSPENDED), Status.ACTIVE)
        by_plan = preview(registrar, replace(three, plan="premium"), Status.SUSPENDED)
        by_age = preview(registrar, replace(three, created_before=datetime(2020, 1, 1, tzinfo=UTC)), Status.SUSPENDED)

    assert [one[0] for one in by_status.shown] == [three.ids[0]]
    assert (by_plan.changed, by_age.changed) == (0, 0)


def test_filter_that_names_nothing_means_nobody_rather_than_everybody(registrar: Registrar) -> None:
    with as_staff(), pytest.raises(InvalidInputError):
        preview(registrar, Wanted(), Status.SUSPENDED)


# Over HTTP --------------------------------------------------------------------------------------------


@pytest.fixture
def owner(app: Flask) -> Staffer:
    return staff_client(app)


def body(three: Wanted, **more: Any) -> dict[str, Any]:
    return {"filter": {"ids": [str(one) for one in three.ids]}, "status": "suspended"} | more


def test_order_with_the_token_of_a_dry_run_is_taken(owner: Staffer, three: Wanted, truth: Truth) -> None:
    shown = owner.post("/tenants/bulk/preview", json=body(three))
    assert shown.status_code == 200, shown.get_data(as_text=True)

    started = owner.post("/tenants/bulk", json=body(three, token=shown.get_json()["token"], reason="unpaid"))

    assert shown.get_json()["changed"] == 3
    assert started.status_code == 202, started.get_data(as_text=True)
    run = started.get_json()
    assert (run["total"], run["waiting"]) == (3, 3)
    assert owner.get(f"/tenants/bulk/{run['id']}").get_json() == run
    assert statuses(truth, three.ids) == ["active"] * 3  # a worker does it


def test_order_without_a_fitting_token_is_refused(owner: Staffer, three: Wanted) -> None:
    assert codes(owner.post("/tenants/bulk", json=body(three, token="x", reason="unpaid"))) == (
        409,
        "selection_changed",
    )


def test_support_may_suspend_many_and_delete_none(app: Flask, three: Wanted) -> None:
    support = staff_client(app, StaffRole.SUPPORT)
    token = support.post("/tenants/bulk/preview", json=body(three) | {"status": "deleting"}).get_json()["token"]

    refused = support.post("/tenants/bulk", json=body(three, token=token, reason=WHY) | {"status": "deleting"})

    assert codes(refused)[0] == 403
    assert StaffPermission.TENANTS_DELETE in refused.get_json()["detail"]


def test_staff_see_history_domains_and_erasures(
    owner: Staffer, registrar: Registrar, acme: Visitor, register: Callable[..., Visitor]
) -> None:
    acme.post("/api/v1/domains", json={"domain": f"crm.{acme.slug}.example"})

    history = owner.get(f"/tenants/{acme.tenant_id}/transitions").get_json()["items"]
    domains = owner.get(f"/tenants/{acme.tenant_id}/domains").get_json()["items"]

    assert [one["to_status"] for one in history] == ["active", "pending"]
    assert [one["state"] for one in domains] == ["waiting"]
    assert owner.get("/erasures").status_code == 200
    released = owner.post(
        f"/tenants/{acme.tenant_id}/domains/{domains[0]['id']}/release", json={"reason": "a trade mark"}
    )
    assert released.status_code == 204
    assert acme.get("/api/v1/domains").get_json() == {"items": []}
