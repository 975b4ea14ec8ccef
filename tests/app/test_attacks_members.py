"""Attacks of members on their own tenant: whoever reaches for more than she was given."""

from __future__ import annotations

from collections.abc import Callable

from tests.app.conftest import Visitor, codes, new_email
from tests.app.test_invitations import accept, invite
from tests.app.test_members import change, member_id, remove
from tests.app.test_members import join as join


def test_admin_does_not_lift_what_was_withdrawn_from_her(acme: Visitor, join: Callable[..., Visitor]) -> None:
    admin = join(acme, "admin", audit_read=False)
    assert codes(admin.get("/api/v1/audit")) == (403, "forbidden")

    assert codes(change(admin, member_id(admin), permissions={})) == (403, "forbidden")

    assert codes(admin.get("/api/v1/audit")) == (403, "forbidden")
    assert change(acme, member_id(admin), permissions={}).status_code == 200
    assert admin.get("/api/v1/audit").status_code == 200


def test_admin_does_not_give_by_a_role_what_was_withdrawn_from_her(acme: Visitor, join: Callable[..., Visitor]) -> None:
    admin, member = join(acme, "admin", audit_read=False), join(acme, "member")

    assert codes(change(admin, member_id(member), role="admin")) == (403, "forbidden")
    both = change(admin, member_id(member), role="admin", permissions={"audit.read": False})

    assert both.status_code == 200
    assert codes(member.get("/api/v1/audit")) == (403, "forbidden")


def test_admin_does_not_invite_beyond_what_was_withdrawn_from_her(acme: Visitor, join: Callable[..., Visitor]) -> None:
    admin = join(acme, "admin", audit_read=False)

    answer = admin.post("/api/v1/invitations", json={"email": new_email(), "role": "admin"})

    assert codes(answer) == (403, "forbidden")
    assert admin.post("/api/v1/invitations", json={"email": new_email(), "role": "manager"}).status_code == 201


def test_invitation_sent_before_a_withdrawal_does_not_bring_it_back(
    acme: Visitor, join: Callable[..., Visitor]
) -> None:
    admin = join(acme, "admin")
    _, token = invite(admin, role="admin")

    assert change(acme, member_id(admin), permissions={"audit.read": False}).status_code == 200

    assert codes(accept(acme.client, token)) == (404, "invitation_ended")


def test_last_owner_who_can_manage_members_stays_one(acme: Visitor, join: Callable[..., Visitor]) -> None:
    """An owner who may not manage is none: nobody could ever mend it."""
    second = join(acme, "owner", members_manage=False)

    assert codes(change(acme, member_id(acme), permissions={"members.manage": False})) == (409, "last_owner")
    assert codes(change(acme, member_id(acme), role="admin")) == (409, "last_owner")
    assert codes(remove(acme, member_id(acme))) == (409, "last_owner")

    assert change(acme, member_id(second), permissions={}).status_code == 200
    assert change(acme, member_id(acme), role="admin").status_code == 200


def test_admin_revokes_no_invitation_of_an_owner(acme: Visitor, join: Callable[..., Visitor]) -> None:
    """Who may not make an owner may not keep one out either."""
    admin = join(acme, "admin")
    invited, token = invite(acme, role="owner")

    assert codes(admin.call("DELETE", f"/api/v1/invitations/{invited['id']}")) == (403, "forbidden")
    assert codes(admin.post(f"/api/v1/invitations/{invited['id']}/resend")) == (403, "forbidden")

    assert accept(acme.client, token).status_code == 201
