"""Row-level security: whether each table of tenants is guarded as its model asks."""

from __future__ import annotations

from tenancy.doctor.findings import Rule

NOT_INSTALLED = Rule(
    "TEN100",
    "not-installed",
    "error",
    "Without schema `tenancy` no policy can name the tenant, so nothing in this database is kept apart by it.",
)
ROW_SECURITY_OFF = Rule(
    "TEN101",
    "row-security-off",
    "error",
    "With row-level security off the policies of a table are not applied, and every role with a grant reads every tenant's rows.",
)
ROW_SECURITY_NOT_FORCED = Rule(
    "TEN102",
    "row-security-not-forced",
    "error",
    "Without FORCE the owner passes the policies, and with it every migration, view and definer function that runs with its rights.",
)
POLICY_MISSING = Rule(
    "TEN103",
    "policy-missing",
    "error",
    "Each policy holds one side of the wall; without it rows of other tenants open, or the platform's reads find nothing.",
)
POLICY_CHANGED = Rule(
    "TEN104",
    "policy-changed",
    "error",
    "A policy that is not the library's text may show or accept another tenant's rows.",
)
POLICY_PERMISSIVE = Rule(
    "TEN105",
    "policy-permissive",
    "error",
    "Permissive policies are joined by OR: only the guard keeps this one from opening every tenant's rows.",
)
TABLE_UNDECLARED = Rule(
    "TEN106",
    "table-undeclared",
    "warning",
    "Nobody said whose rows this table holds, and a runtime role can reach them all.",
)
PARTITION_UNGUARDED = Rule(
    "TEN111",
    "partition-unguarded",
    "error",
    "Policies of a parent do not hold for who reads a partition or an inheriting table directly.",
)
TABLE_OWNER = Rule(
    "TEN117",
    "table-owner",
    "error",
    "The owner of a table can switch its policies off, and grant it to anyone.",
)

RULES: tuple[Rule, ...] = (
    NOT_INSTALLED,
    ROW_SECURITY_OFF,
    ROW_SECURITY_NOT_FORCED,
    POLICY_MISSING,
    POLICY_CHANGED,
    POLICY_PERMISSIVE,
    TABLE_UNDECLARED,
    PARTITION_UNGUARDED,
    TABLE_OWNER,
)
