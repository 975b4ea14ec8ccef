"""What reads tables with somebody else's rights: views, materialized views, foreign tables, rules."""

from __future__ import annotations

from tenancy.doctor.findings import Rule

VIEW_WITHOUT_INVOKER = Rule(
    "TEN140",
    "view-without-invoker",
    "error",
    "A view reads with its owner's rights, not the caller's, unless it is a security_invoker view.",
)
MATERIALIZED_VIEW = Rule(
    "TEN141",
    "materialized-view",
    "error",
    "A materialized view keeps rows of every tenant and has no row-level security.",
)
FOREIGN_TABLE = Rule(
    "TEN142",
    "foreign-table",
    "error",
    "A foreign table has no row-level security: its rows come from elsewhere with somebody else's rights.",
)
RULE_ON_TABLE = Rule(
    "TEN143",
    "rule-on-table",
    "error",
    "A rule rewrites statements into others that may run with its owner's rights.",
)

RULES: tuple[Rule, ...] = (
    VIEW_WITHOUT_INVOKER,
    MATERIALIZED_VIEW,
    FOREIGN_TABLE,
    RULE_ON_TABLE,
)
