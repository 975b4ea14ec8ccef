"""What carries rows out of the database: publications and replication slots."""

from __future__ import annotations

from tenancy.doctor.findings import Rule

PUBLICATION = Rule(
    "TEN153",
    "publication",
    "warning",
    "A publication sends every tenant's rows to its subscribers, without policies.",
)
REPLICATION_SLOT = Rule(
    "TEN154",
    "replication-slot",
    "warning",
    "Who reads a logical slot reads every change of every tenant, without policies.",
)

RULES: tuple[Rule, ...] = (
    PUBLICATION,
    REPLICATION_SLOT,
)
