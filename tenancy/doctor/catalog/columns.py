"""The tenant's column on each table, and numbers that all tenants share."""

from __future__ import annotations

from tenancy.doctor.findings import Rule

TENANT_NULLABLE = Rule(
    "TEN120",
    "tenant-nullable",
    "error",
    "A row without a tenant belongs to nobody: no policy shows it, and no composite foreign key checks it.",
)
TENANT_TYPE = Rule(
    "TEN121",
    "tenant-type",
    "error",
    "The policies compare a UUID; another type needs a cast, which loses the index, or has two spellings of one tenant.",
)
TENANT_DEFAULT = Rule(
    "TEN122",
    "tenant-default",
    "warning",
    "A constant default gives rows to one fixed tenant when the writer forgot to say whose they are.",
)
PUBLIC_NUMBER = Rule(
    "TEN130",
    "public-number",
    "note",
    "Numbers drawn from a sequence that all tenants share tell each of them how busy the others are.",
)

RULES: tuple[Rule, ...] = (
    TENANT_NULLABLE,
    TENANT_TYPE,
    TENANT_DEFAULT,
    PUBLIC_NUMBER,
)
