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
    CARDS_READ = "cards.read"
    CARDS_WRITE = "cards.write"
    CARDS_DELETE = "cards.delete"
    MEMBERS_READ = "members.read"
    MEMBERS_MANAGE = "members.manage"
    USAGE_READ = "usage.read"
    AUDIT_READ = "audit.read"
    SETTINGS_READ = "settings.read"
    SETTINGS_MANAGE = "settings.manage"
    DOMAINS_MANAGE = "domains.manage"


_MEMBER = frozenset(
    {
        Permission.CRM_READ,
        Permission.CRM_WRITE,
        Permission.CARDS_READ,
        Permission.CARDS_WRITE,
        Permission.MEMBERS_READ,
    }
)
_MANAGER = _MEMBER | {Permission.CRM_DELETE, Permission.CARDS_DELETE, Permission.USAGE_READ}
_ADMIN = _MANAGER | {
    Permission.MEMBERS_MANAGE,
    Permission.AUDIT_READ,
    Permission.SETTINGS_READ,
    Permission.SETTINGS_MANAGE,
    Permission.DOMAINS_MANAGE,
}

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
