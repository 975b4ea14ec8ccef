"""Tenants through the admin API: listing, searching, creating, changing, and their states."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from app.staff.permissions import StaffRole
from tests.app.conftest import Truth, Visitor, codes, fields
from tests.app.staffing import Staffer, staff_client

REASON = {"reason": "asked for by the customer"}


@pytest.fixture
def ana(app: Flask) -> Staffer:
    return staff_client(app)


def create(staffer: Staffer, **given: Any) -> dict[str, Any]:
    answer = staffer.post("/tenants", json={"name": "Initech", "plan": "basic", **REASON, **given})
    assert answer.status_code == 201, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()
    return found


def names(staffer: Staffer, **query: Any) -> list[str]:
    answer = staffer.get("/tenants", query_string=query)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return [item["name"] for item in answer.get_json()["items"]]


def unique(word: str) -> str:
    return f"{word} {uuid4().hex[:10]}"


# Searching --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_search_finds_a_part_of_the_name_in_either_case(ana: Staffer, case: Callable[[str], str]) -> None:
    name = unique("Vandelay")
    create(ana, name=name)

    assert names(ana, search=case(name[4:-2])) == [name]


def test_search_finds_a_part_of_the_slug(ana: Staffer) -> None:
    slug = f"slug-{uuid4().hex[:12]}"
    create(ana, name="Hooli", slug=slug)

    assert names(ana, search=slug[3:-1]) == ["Hooli"]


def test_search_finds_a_whole_id(ana: Staffer) -> None:
    made = create(ana)

    assert names(ana, search=made["id"]) == ["Initech"]
    assert names(ana, search=made["id"], status="active") == []


def test_two_characters_find_the_beginning_only(ana: Staffer) -> None:
    name = f"\N{GREEK SMALL LETTER XI}q{uuid4().hex}"
    create(ana, name=name, slug=f"zz-{uuid4().hex[:12]}")

    assert names(ana, search=name[:2]) == [name]
    assert names(ana, search="q\N{GREEK SMALL LETTER XI}") == []
    assert name not in names(ana, search=name[1:3])


@pytest.mark.parametrize("pattern", ["%%%", "_____", "\\", "%", "_", "'; --", "😀😀😀"])
def test_search_takes_no_pattern(ana: Staffer, pattern: str) -> None:
    create(ana)

    assert names(ana, search=pattern) == []


def test_search_follows_a_rename(ana: Staffer) -> None:
    old, new = unique("Before"), unique("After")
    made = create(ana, name=old)
    assert names(ana, search=old) == [old]

    ana.patch(f"/tenants/{made['id']}", json={"name": new, **REASON})

    assert names(ana, search=old) == []
    assert names(ana, search=new) == [new]


def test_pages_of_a_search_hold_each_tenant_once(ana: Staffer) -> None:
    mark = uuid4().hex
    made = [create(ana, name=f"{letter} {mark}")["name"] for letter in "cabed"]

    found, cursor = [], None
    for _ in range(3):
        page = ana.get(
            "/tenants", query_string={"search": mark, "sort": "name", "limit": 2, "cursor": cursor}
        ).get_json()
        found += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]

    assert found == sorted(made)
    assert cursor is None


def test_newest_tenants_come_first(ana: Staffer) -> None:
    mark = uuid4().hex
    create(ana, name=f"first {mark}")
    create(ana, name=f"second {mark}")

    first = ana.get("/tenants", query_string={"search": mark, "limit": 1}).get_json()
    second = ana.get("/tenants", query_string={"search": mark, "limit": 1, "cursor": first["next_cursor"]}).get_json()

    assert [item["name"] for item in first["items"]] == [f"second {mark}"]
    assert [item["name"] for item in second["items"]] == [f"first {mark}"]


def test_filters_narrow_what_is_found(ana: Staffer) -> None:
    mark = uuid4().hex
    create(ana, name=f"small {mark}")
    big = create(ana, name=f"big {mark}", plan="enterprise")
    assert ana.post(f"/tenants/{big['id']}/provision", json=REASON).status_code == 200

    assert names(ana, search=mark, plan="enterprise") == [f"big {mark}"]
    assert names(ana, search=mark, status="pending") == [f"small {mark}"]
    assert names(ana, search=mark, status="active", plan="basic") == []


@pytest.mark.parametrize(
    ("query", "at_fault"),
    [({"sort": "slug"}, "query.sort"), ({"cursor": "nonsense"}, "query.cursor"), ({"status": "open"}, "query.status")],
)
def test_query_that_cannot_be_used_is_named(ana: Staffer, query: dict[str, str], at_fault: str) -> None:
    answer = ana.get("/tenants", query_string=query)

    assert codes(answer) == (400, "invalid_input")
    assert fields(answer) == [at_fault]


def test_search_is_closed_to_the_app_role(database: Any, acme: Visitor) -> None:
    with (
        database.connect("tenancy_app") as connection,
        pytest.raises(Exception, match="permission denied for function"),
    ):
        connection.execute("SELECT * FROM search_tenants('acme', NULL, NULL, 'name', NULL, NULL, 10)")


@pytest.mark.parametrize("call", ["search_tenants('acme', NULL, NULL, 'name', NULL, NULL, 10)", "count_tenants()"])
def test_search_needs_an_open_platform_session(database: Any, acme: Visitor, call: str) -> None:
    with database.connect("tenancy_platform") as connection, pytest.raises(Exception, match="open platform session"):
        connection.execute(f"SELECT * FROM {call}")


@pytest.mark.parametrize("role", ["tenancy_app", "tenancy_platform", "tenancy_lookup"])
def test_what_the_search_reads_is_granted_to_nobody(truth: Truth, role: str) -> None:
    granted = truth.execute(
        "SELECT has_table_privilege(%s, 'searched_tenants', 'SELECT, INSERT, UPDATE, DELETE') "
        "OR has_any_column_privilege(%s, 'searched_tenants', 'SELECT, INSERT, UPDATE')",
        [role, role],
    ).fetchone()

    assert granted == (False,)


# Counting ---------------------------------------------------------------------------------------------


def test_counts_follow_at_once_where_none_are_kept(make_app: Callable[..., Flask]) -> None:
    ana = staff_client(make_app(tenant_counts_ttl_s=0))
    before = ana.get("/stats").get_json()

    create(ana, plan="premium")

    after = ana.get("/stats").get_json()
    assert after["tenants"] == before["tenants"] + 1
    assert after["by_status"]["pending"] == before["by_status"]["pending"] + 1
    assert after["by_plan"]["premium"] == before["by_plan"]["premium"] + 1
    assert ana.get("/tenants").get_json()["counts"] == after["by_status"]


def test_counts_are_kept_for_a_while(make_app: Callable[..., Flask]) -> None:
    ana = staff_client(make_app(tenant_counts_ttl_s=3600))
    before = ana.get("/stats").get_json()

    create(ana)

    assert ana.get("/stats").get_json() == before


# Making and changing ----------------------------------------------------------------------------------


def test_created_tenant_is_pending_until_it_is_provisioned(ana: Staffer) -> None:
    made = create(ana)
    assert made["status"] == "pending"
    assert {step["step"]: step["state"] for step in made["steps"]}["seed"] == "waiting"

    answer = ana.post(f"/tenants/{made['id']}/provision", json=REASON)

    assert answer.get_json()["status"] == "active"
    assert {step["state"] for step in answer.get_json()["steps"]} == {"done"}


def test_created_tenant_is_found_at_its_location(ana: Staffer) -> None:
    answer = ana.post("/tenants", json={"name": "Initech", "plan": "premium", **REASON})

    found = ana.get(answer.headers["Location"].removeprefix("/api/v1/admin")).get_json()
    assert (found["id"], found["plan"]) == (answer.get_json()["id"], "premium")


def test_slug_in_use_is_refused_and_nothing_is_made(ana: Staffer) -> None:
    name, slug = unique("Twice"), f"s-{uuid4().hex[:12]}"
    create(ana, slug=slug)

    answer = ana.post("/tenants", json={"name": name, "plan": "basic", "slug": slug, **REASON})

    assert codes(answer) == (409, "taken")
    assert names(ana, search=name) == []


def test_changed_slug_leads_to_the_tenant(ana: Staffer) -> None:
    made, slug = create(ana), f"s-{uuid4().hex[:12]}"

    answer = ana.patch(f"/tenants/{made['id']}", json={"slug": slug, **REASON})

    assert answer.get_json()["slug"] == slug
    assert ana.get(f"/tenants/{made['id']}").get_json()["slug"] == slug


@pytest.mark.parametrize("body", [{}, {"name": None}, {"plan": "premium"}, {"status": "active"}])
def test_change_of_nothing_or_of_what_has_its_own_route_is_refused(ana: Staffer, body: dict[str, Any]) -> None:
    made = create(ana)

    answer = ana.patch(f"/tenants/{made['id']}", json=REASON | body)

    assert codes(answer) == (400, "invalid_input")
    assert ana.get(f"/tenants/{made['id']}").get_json()["updated_at"] == made["updated_at"]


@pytest.mark.parametrize("reason", ["", "   ", None, "\0"])
def test_change_without_a_reason_is_refused(ana: Staffer, acme: Visitor, reason: str | None) -> None:
    answer = ana.post(f"/tenants/{acme.tenant_id}/suspend", json={"reason": reason})

    assert codes(answer) == (400, "invalid_input")
    assert acme.get("/api/v1/me").status_code == 200


# The states -------------------------------------------------------------------------------------------


def within_a_second(visitor: Visitor, status: int) -> bool:
    """Tell whether the tenant is answered so before a second has passed, in which every process must have heard."""
    until = time.monotonic() + 1
    while visitor.get("/api/v1/me").status_code != status:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_suspended_tenant_is_closed_until_it_is_resumed(ana: Staffer, acme: Visitor) -> None:
    assert acme.get("/api/v1/me").status_code == 200

    assert ana.post(f"/tenants/{acme.tenant_id}/suspend", json=REASON).get_json()["status"] == "suspended"
    assert within_a_second(acme, 403)

    assert ana.post(f"/tenants/{acme.tenant_id}/resume", json=REASON).get_json()["status"] == "active"
    assert within_a_second(acme, 200)


def test_status_that_cannot_follow_is_refused_with_what_can(ana: Staffer) -> None:
    made = create(ana)

    answer = ana.put(f"/tenants/{made['id']}/status", json={"status": "archived", **REASON})

    assert codes(answer) == (409, "invalid_transition")
    assert answer.get_json()["allowed"] == ["active", "deleting"]


def test_deletion_is_scheduled_and_can_be_undone(ana: Staffer, acme: Visitor) -> None:
    answer = ana.delete(f"/tenants/{acme.tenant_id}", query_string=REASON)

    assert answer.status_code == 202
    assert answer.get_json()["status"] == "deleting"
    assert answer.get_json()["erase_after"] is not None
    undone = ana.post(f"/tenants/{acme.tenant_id}/cancel-deletion", json=REASON).get_json()
    assert (undone["status"], undone["erase_after"]) == ("active", None)


@pytest.mark.parametrize("role", [StaffRole.SUPPORT, StaffRole.BILLING, StaffRole.READ_ONLY])
def test_deletion_takes_its_own_permission(app: Flask, acme: Visitor, role: StaffRole) -> None:
    staffer = staff_client(app, role)
    assert staffer.get(f"/tenants/{acme.tenant_id}").status_code == 200

    assert codes(staffer.delete(f"/tenants/{acme.tenant_id}", query_string=REASON)) == (403, "forbidden")
    by_status = staffer.put(f"/tenants/{acme.tenant_id}/status", json={"status": "deleting", **REASON})
    assert codes(by_status) == (403, "forbidden")
    assert acme.get("/api/v1/me").status_code == 200


@pytest.mark.parametrize("role", [StaffRole.BILLING, StaffRole.READ_ONLY])
def test_staff_who_may_only_read_change_nothing(app: Flask, acme: Visitor, role: StaffRole) -> None:
    staffer = staff_client(app, role)

    assert codes(staffer.post(f"/tenants/{acme.tenant_id}/suspend", json=REASON)) == (403, "forbidden")
    assert acme.get("/api/v1/me").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", "?reason=none"),
        ("POST", "/provision"),
        ("POST", "/suspend"),
        ("POST", "/resume"),
        ("POST", "/archive"),
        ("POST", "/cancel-deletion"),
        ("PUT", "/status"),
    ],
)
def test_unknown_tenant_is_not_found(ana: Staffer, method: str, path: str) -> None:
    extra = {"PATCH": {"name": "None"}, "PUT": {"status": "active"}}.get(method, {})
    body = {} if method in ("GET", "DELETE") else {"json": REASON | extra}

    answer = ana.call(method, f"/tenants/{uuid4()}{path}", **body)

    assert codes(answer) == (404, "not_found")


def test_what_staff_did_is_in_the_tenants_audit_with_the_reason(ana: Staffer, acme: Visitor, truth: Truth) -> None:
    ana.post(f"/tenants/{acme.tenant_id}/suspend", json=REASON)

    entry = truth.execute(
        "SELECT actor_kind, actor_label, reason FROM audit_entries WHERE tenant_id = %s AND action = %s "
        "AND after->>'status' = 'suspended'",
        [acme.tenant_id, "tenant.status_changed"],
    ).fetchall()

    assert entry == [("staff", ana.email, "asked for by the customer")]


def test_every_call_opens_a_platform_session_in_the_actors_name(ana: Staffer, acme: Visitor, truth: Truth) -> None:
    ana.get(f"/tenants/{acme.tenant_id}")

    reasons = truth.execute(
        "SELECT reason FROM tenancy.platform_session WHERE actor = %s", [f"staff:{ana.email}"]
    ).fetchall()

    assert ("admin API: show tenant",) in reasons
