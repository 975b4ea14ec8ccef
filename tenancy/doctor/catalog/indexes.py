"""Indexes: whether they begin with the tenant, and whether row-level security lets them be used."""

from __future__ import annotations

from tenancy.doctor.findings import Rule

TENANT_INDEX_MISSING = Rule(
    "TEN127",
    "tenant-index-missing",
    "warning",
    "Every statement is limited to one tenant; without an index that begins with it, each reads the whole table.",
)
TENANT_CAST = Rule(
    "TEN128",
    "tenant-cast",
    "warning",
    "With a cast on the tenant column no index that begins with it can be used.",
)
INDEX_LOST = Rule(
    "TEN129",
    "index-lost",
    "note",
    "An operator that is not leakproof may only see rows that passed the policies, so its index is not used under them.",
)

RULES: tuple[Rule, ...] = (
    TENANT_INDEX_MISSING,
    TENANT_CAST,
    INDEX_LOST,
)
