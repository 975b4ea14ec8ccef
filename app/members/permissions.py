"""Who may do what: one table of roles, and a member's own exceptions to it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """A member's standing in one tenant."""

    OWNER = "owner"
    ADMIN = "admin"
    MANAGER = "manager"
    MEMBER = "member"


class Permission(StrEnum):
    """One thing a member may or may not do."""

    CRM_READ = "crm.read"
    CRM_WRITE = "crm.write"
    CRM_DELETE = "crm.delete"
    MEMBERS_MANAGE = "members.manage"


_MEMBER = frozenset({Permission.CRM_READ, Permission.CRM_WRITE})
_MANAGER = _MEMBER | {Permission.CRM_DELETE}
_ADMIN = _MANAGER | {Permission.MEMBERS_MANAGE}

MATRIX: Mapping[Role, frozenset[Permission]] = {
    Role.MEMBER: _MEMBER,
    Role.MANAGER: _MANAGER,
    Role.ADMIN: _ADMIN,
    Role.OWNER: frozenset(Permission),
}


def permissions_of(role: Role, exceptions: Mapping[str, bool]) -> frozenset[Permission]:
    """Return what a member may do: the role's row of the matrix, with the member's exceptions.

    exceptions: permission name to granted (True) or withdrawn (False); an unknown name counts for nothing.
    """
    granted = {permission for permission in Permission if exceptions.get(permission) is True}
    withdrawn = {permission for permission in Permission if exceptions.get(permission, True) is not True}
    return (MATRIX[role] | granted) - withdrawn
