"""Privileges on guarded tables: what the library gives, no more and no less."""

from __future__ import annotations

from tenancy.doctor.findings import Rule

GRANT_MISSING = Rule(
    "TEN107",
    "grant-missing",
    "warning",
    "The application fails with a permission error where its model says that it may read or write.",
)
GRANT_EXTRA = Rule(
    "TEN108",
    "grant-extra",
    "error",
    "A privilege that the library did not give lets a role do what its model refuses.",
)
GRANT_PAST_POLICIES = Rule(
    "TEN109",
    "grant-past-policies",
    "error",
    "TRUNCATE, REFERENCES, TRIGGER and MAINTAIN are not subject to row-level security: they reach every tenant's rows.",
)
GRANT_ON_KEY = Rule(
    "TEN110",
    "grant-on-key",
    "error",
    "Who may update the tenant key can move rows from one tenant to another.",
)
GRANT_ON_SEQUENCE = Rule(
    "TEN115",
    "grant-on-sequence",
    "warning",
    "Without USAGE on its sequence nothing can be inserted into the table; with UPDATE its numbers can be set back.",
)

RULES: tuple[Rule, ...] = (
    GRANT_MISSING,
    GRANT_EXTRA,
    GRANT_PAST_POLICIES,
    GRANT_ON_KEY,
    GRANT_ON_SEQUENCE,
)
