"""What platform staff may do: one table of roles. A key has the permissions it was made with, and no role."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class StaffRole(StrEnum):
    """The standing of a person who runs the service."""

    OWNER = "owner"
    SUPPORT = "support"
    BILLING = "billing"
    READ_ONLY = "read_only"


class StaffPermission(StrEnum):
    """One thing staff may or may not do; also the scope of an API key."""

    TENANTS_READ = "tenants.read"
    TENANTS_WRITE = "tenants.write"
    TENANTS_DELETE = "tenants.delete"
    PLANS_READ = "plans.read"
    PLANS_WRITE = "plans.write"
    CONFIG_READ = "config.read"
    CONFIG_WRITE = "config.write"
    USAGE_READ = "usage.read"
    AUDIT_READ = "audit.read"
    JOBS_READ = "jobs.read"
    JOBS_WRITE = "jobs.write"
    KEYS_ROTATE = "keys.rotate"
    IMPERSONATE = "members.impersonate"
    STAFF_MANAGE = "staff.manage"


_READS = frozenset(permission for permission in StaffPermission if permission.endswith(".read"))

MATRIX: Mapping[StaffRole, frozenset[StaffPermission]] = {
    StaffRole.READ_ONLY: _READS,
    StaffRole.BILLING: _READS | {StaffPermission.PLANS_WRITE},
    StaffRole.SUPPORT: _READS
    | {
        StaffPermission.TENANTS_WRITE,
        StaffPermission.CONFIG_WRITE,
        StaffPermission.JOBS_WRITE,
        StaffPermission.IMPERSONATE,
    },
    StaffRole.OWNER: frozenset(StaffPermission),
}
