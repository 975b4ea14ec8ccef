"""What carries rows out of the database: publications and replication slots."""

from __future__ import annotations

from collections.abc import Iterator

from tenancy.doctor.catalog.guards import Catalog
from tenancy.doctor.checks import Check, rules_of
from tenancy.doctor.findings import Finding, Rule
from tenancy.rls import quote

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


def examine_publications(catalog: Catalog) -> Iterator[Finding]:
    """Look for publications of guarded tables, and of all tables to come."""
    for name, is_for_all, relations in catalog.publications:
        published = [catalog.relations[oid].sql_name for oid in relations if oid in catalog.guards]
        if is_for_all or published:
            what = "it is FOR ALL TABLES" if is_for_all else f"it publishes {_shown(published)}"
            yield PUBLICATION.finding(f"publication {quote(name)}", what, remedy=f"DROP PUBLICATION {quote(name)};")


def _shown(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(sorted(names)[:3])}{rest}"


def examine_slots(catalog: Catalog) -> Iterator[Finding]:
    """Look for logical replication slots of this database."""
    for name, plugin in catalog.slots:
        remedy = f"SELECT pg_drop_replication_slot('{name}');"
        yield REPLICATION_SLOT.finding(f"replication slot {name}", f"it decodes changes by {plugin}", remedy=remedy)


CHECKS = (
    Check((PUBLICATION,), examine_publications),
    Check((REPLICATION_SLOT,), examine_slots),
)
RULES: tuple[Rule, ...] = rules_of(CHECKS)
