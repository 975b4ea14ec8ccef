"""Roles: what each may do, and that every route asks for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from app.auth.access import access_of, check_routes
from app.auth.desk import Desk
from app.auth.operations import sign_in
from app.members.models import Account, Member
from app.members.permissions import Permission, Role, permissions_of
from tenancy.context import tenant_scope
from tests.app.conftest import PASSWORD, Visitor, add_person, codes, new_email


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
