"""Roles: what each may do, and that every route asks for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from flask import Flask
from uuid_utils.compat import uuid7
from werkzeug.test import TestResponse

from app.auth.access import access_of, check_routes
from app.auth.desk import Desk
from app.auth.operations import sign_in
from app.members.models import Account, Member
from app.members.permissions import Permission, Role, permissions_of
from tenancy.context import tenant_scope
from tests.app.conftest import PASSWORD, Truth, Visitor, add_person, codes, new_email


@pytest.fixture
def join(app: Flask) -> Callable[..., Visitor]:
    """Add a member to a tenant and sign her in."""
    desk: Desk = app.extensions["auth"]

    def add(host: Visitor, role: Role, **permissions: bool) -> Visitor:
        account_id, email = uuid7(), new_email()
        with tenant_scope(host.tenant_id, account=account_id), desk.database.sessions.begin() as session:
            session.add(Account(id=account_id, email=email, password_hash=desk.passwords.hash(PASSWORD)))
            session.flush()
            named = {name.replace("_", "."): value for name, value in permissions.items()}
            session.add(Member(account_id=account_id, email=email, role=role, permissions=named))
        found = sign_in(desk, email=email, password=PASSWORD, tenant=None)
        return Visitor(host.client, host.tenant_id, host.slug, email, found.access_token, found.refresh_token)

    return add


MEMBERS = {"crm.read", "crm.write", "cards.read", "cards.write", "members.read"}
MANAGERS = {"crm.delete", "cards.delete", "usage.read"}
ADMINS = {"members.manage", "audit.read", "settings.read", "settings.manage", "domains.manage"}


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (Role.MEMBER, MEMBERS),
        (Role.MANAGER, MEMBERS | MANAGERS),
        (Role.ADMIN, MEMBERS | MANAGERS | ADMINS),
        (Role.OWNER, MEMBERS | MANAGERS | ADMINS),
    ],
)
def test_roles_hold_these_permissions(role: Role, expected: set[str]) -> None:
    assert permissions_of(role, {}) == expected


def test_exceptions_grant_and_withdraw_and_unknown_ones_do_nothing() -> None:
    found = permissions_of(Role.MEMBER, {"crm.delete": True, "crm.write": False, "everything": True})

    assert found == {"crm.read", "crm.delete", "cards.read", "cards.write", "members.read"}


@pytest.mark.parametrize("value", [None, 1, "yes", []])
def test_exception_that_is_not_true_grants_nothing(value: object) -> None:
    found = permissions_of(Role.MEMBER, {"crm.delete": value})  # type: ignore[dict-item]

    assert Permission.CRM_DELETE not in found


def test_member_may_write_but_not_delete(acme: Visitor, join: Callable[..., Visitor]) -> None:
    member = join(acme, Role.MEMBER)
    person = add_person(member)

    refused = member.call("DELETE", f"/api/v1/people/{person}")

    assert codes(refused) == (403, "forbidden")
    assert "crm.delete" in refused.get_json()["detail"]
    assert acme.get(f"/api/v1/people/{person}").status_code == 200


def test_manager_may_delete(acme: Visitor, join: Callable[..., Visitor]) -> None:
    manager = join(acme, Role.MANAGER)

    assert manager.call("DELETE", f"/api/v1/people/{add_person(acme)}").status_code == 204


def test_withdrawn_permission_counts_on_the_next_request(acme: Visitor, join: Callable[..., Visitor]) -> None:
    reader = join(acme, Role.MEMBER, crm_write=False)

    assert reader.get("/api/v1/people").status_code == 200
    assert codes(reader.post("/api/v1/people", json={"name": "Ada"})) == (403, "forbidden")


def test_every_crm_route_asks_for_the_permission_of_its_verb(app: Flask) -> None:
    wanted = {
        "list": "crm.read",
        "read": "crm.read",
        "create": "crm.write",
        "change": "crm.write",
        "delete": "crm.delete",
    }
    routes = {
        endpoint.removeprefix("crm."): access
        for endpoint, access in check_routes(app).items()
        if endpoint.startswith("crm.")
    }

    assert len(routes) == 15
    for name, access in routes.items():
        assert access.permission == wanted[name.partition("_")[0]], name


def test_every_open_route_says_why(app: Flask) -> None:
    opened = {endpoint: access for endpoint, access in check_routes(app).items() if not access.needs_sign_in}

    assert all(len(access.reason) > 10 for access in opened.values())
    assert {"auth.login", "auth.refresh", "auth.register_organization"} <= opened.keys()


def test_route_without_a_mark_is_refused_at_start(make_app: Callable[..., Flask]) -> None:
    app = make_app()
    app.add_url_rule("/forgotten", endpoint="forgotten", view_func=lambda: "")

    with pytest.raises(RuntimeError, match="forgotten"):
        check_routes(app)


def test_unmarked_route_added_later_is_not_served(make_app: Callable[..., Flask], acme: Visitor) -> None:
    app = make_app()
    app.add_url_rule("/api/v1/forgotten", endpoint="forgotten", view_func=lambda: "open")

    response = app.test_client().get("/api/v1/forgotten", base_url=f"http://{acme.slug}.localhost")

    assert access_of(app.view_functions["forgotten"]) is None
    assert codes(response)[0] == 401


# Changing and removing --------------------------------------------------------------------------------


def member_id(visitor: Visitor) -> str:
    found: str = visitor.get("/api/v1/me").get_json()["user"]["member_id"]
    return found


def change(actor: Visitor, whom: str, **json: object) -> TestResponse:
    return actor.call("PATCH", f"/api/v1/members/{whom}", json=json)


def remove(actor: Visitor, whom: str) -> TestResponse:
    return actor.call("DELETE", f"/api/v1/members/{whom}")


def test_members_are_listed_with_what_each_may_do(acme: Visitor, join: Callable[..., Visitor]) -> None:
    join(acme, Role.MEMBER, crm_delete=True)

    owner, member = acme.get("/api/v1/members?sort=created_at").get_json()["items"]

    assert (owner["role"], member["role"]) == ("owner", "member")
    assert member["permissions"] == {"crm.delete": True}
    assert "crm.delete" in member["granted"]
    assert len(acme.get("/api/v1/members?role=owner").get_json()["items"]) == 1


def test_change_of_role_counts_on_the_next_request_of_a_live_token(acme: Visitor, join: Callable[..., Visitor]) -> None:
    manager = join(acme, Role.MANAGER)
    assert manager.call("DELETE", f"/api/v1/people/{add_person(acme)}").status_code == 204

    changed = change(acme, member_id(manager), role="member")

    assert changed.get_json()["role"] == "member"
    assert codes(manager.call("DELETE", f"/api/v1/people/{add_person(acme)}")) == (403, "forbidden")


def test_exception_withdraws_a_permission_at_once(acme: Visitor, join: Callable[..., Visitor]) -> None:
    member = join(acme, Role.MEMBER)
    add_person(member)

    assert change(acme, member_id(member), permissions={"crm.write": False}).status_code == 200

    assert codes(member.post("/api/v1/people", json={"name": "Ada"})) == (403, "forbidden")


def test_removed_member_is_signed_out_and_her_refresh_token_dead(acme: Visitor, join: Callable[..., Visitor]) -> None:
    member = join(acme, Role.MEMBER)
    assert member.get("/api/v1/people").status_code == 200

    assert remove(acme, member_id(member)).status_code == 204

    assert codes(member.get("/api/v1/people")) == (401, "not_signed_in")
    refreshed = member.client.post("/api/v1/auth/refresh", json={"refresh_token": member.refresh_token})
    assert codes(refreshed) == (401, "not_signed_in")


def test_last_owner_is_neither_demoted_nor_removed(acme: Visitor) -> None:
    me = member_id(acme)

    assert codes(change(acme, me, role="admin")) == (409, "last_owner")
    assert codes(remove(acme, me)) == (409, "last_owner")
    assert acme.get("/api/v1/me").get_json()["user"]["role"] == "owner"


def test_two_owners_who_demote_each_other_at_once_leave_one(
    app: Flask, acme: Visitor, join: Callable[..., Visitor], truth: Truth
) -> None:
    for _ in range(5):
        other = join(acme, Role.OWNER)
        mine, hers = member_id(acme), member_id(other)
        barrier = Barrier(2)

        def run(actor: Visitor, whom: str, barrier: Barrier = barrier) -> int:
            barrier.wait()
            return change(replace(actor, client=app.test_client(use_cookies=False)), whom, role="admin").status_code

        with ThreadPoolExecutor(2) as pool:
            found = sorted(pool.map(run, (acme, other), (hers, mine)))

        count = "SELECT count(*) FROM members WHERE tenant_id = %s AND role = 'owner'"
        assert found[0] == 200
        assert found[1] in (403, 409)
        assert truth.execute(count, [acme.tenant_id]).fetchone() == (1,)
        truth.execute("UPDATE members SET role = 'owner' WHERE id = %s", [mine])
        truth.execute("DELETE FROM members WHERE id = %s", [hers])


def test_admin_makes_no_owner_and_touches_none(acme: Visitor, join: Callable[..., Visitor]) -> None:
    admin, member, second = join(acme, Role.ADMIN), join(acme, Role.MEMBER), join(acme, Role.OWNER)

    assert codes(change(admin, member_id(member), role="owner")) == (403, "forbidden")
    assert codes(change(admin, member_id(admin), role="owner")) == (403, "forbidden")
    assert codes(change(admin, member_id(second), role="member")) == (403, "forbidden")
    assert codes(remove(admin, member_id(second))) == (403, "forbidden")
    assert change(admin, member_id(member), role="admin").status_code == 200


def test_nobody_gives_a_permission_that_she_has_not(acme: Visitor, join: Callable[..., Visitor]) -> None:
    admin = join(acme, Role.ADMIN, crm_delete=False)
    member = join(acme, Role.MEMBER)

    assert codes(change(admin, member_id(member), permissions={"crm.delete": True})) == (403, "forbidden")
    assert change(acme, member_id(member), permissions={"crm.delete": True}).status_code == 200


def test_member_of_another_tenant_is_not_there(acme: Visitor, globex: Visitor) -> None:
    """T118"""
    theirs = member_id(globex)
    assert globex.get(f"/api/v1/members/{theirs}").status_code == 200

    assert codes(acme.get(f"/api/v1/members/{theirs}")) == (404, "not_found")
    assert codes(change(acme, theirs, role="member")) == (404, "not_found")
    assert codes(remove(acme, theirs)) == (404, "not_found")


def test_changes_of_members_are_in_the_audit(acme: Visitor, join: Callable[..., Visitor], truth: Truth) -> None:
    member = join(acme, Role.MEMBER)
    whom = member_id(member)
    change(acme, whom, role="manager")
    change(acme, whom, role="manager")
    remove(acme, whom)

    entries = truth.execute(
        "SELECT action, before ->> 'role', after ->> 'role', actor_label FROM audit_entries"
        " WHERE tenant_id = %s AND target_id = %s AND action <> 'member.signed_in' ORDER BY at",
        [acme.tenant_id, whom],
    ).fetchall()

    assert entries == [
        ("member.changed", "member", "manager", acme.email),
        ("member.removed", "manager", None, acme.email),
    ]
