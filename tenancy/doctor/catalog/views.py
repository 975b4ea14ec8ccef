"""What reads tables with somebody else's rights: views, materialized views, foreign tables, rules."""

from __future__ import annotations

from collections.abc import Iterator

from tenancy.doctor.catalog.guards import Catalog
from tenancy.doctor.catalog.objects import Relation
from tenancy.doctor.checks import Check, rules_of
from tenancy.doctor.findings import Finding, Rule
from tenancy.rls import quote
from tenancy.rls.views import is_window
from tenancy.tables import TENANT_KEY

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


def examine_views(catalog: Catalog) -> Iterator[Finding]:
    """Look for views over tenants' rows that read them with their owner's rights."""
    for oid in sorted(catalog.tenant_readers):
        view = catalog.relations[oid]
        if view.kind == "v" and not view.has_option("security_invoker") and not _is_window(catalog, view):
            what = f"it reads tenants' rows with the rights of {view.owner}"
            remedy = f"ALTER VIEW {view.sql_name} SET (security_invoker = true);"
            yield VIEW_WITHOUT_INVOKER.finding(view.label, what, remedy=remedy)


def _is_window(catalog: Catalog, view: Relation) -> bool:
    """Whether it is the library's own window on a materialized view, which filters by the tenant itself."""
    text = catalog.barrier_views.get(view.oid)
    return text is not None and view.owner == catalog.roles.owner and is_window(text)


def examine_materialized_views(catalog: Catalog) -> Iterator[Finding]:
    """Look for materialized views of tenants' rows that anyone but their owner and the backup may read."""
    for oid in sorted(catalog.tenant_readers):
        view = catalog.relations[oid]
        granted = catalog.grants_to(oid, (*catalog.exposed, catalog.roles.lookup))
        if view.kind == "m" and granted:
            what = f"it keeps rows of every tenant, and {', '.join(sorted({g.role for g in granted}))} may read them"
            remedy = f"REVOKE ALL ON {view.sql_name} FROM {', '.join(sorted({g.role for g in granted}))};"
            yield MATERIALIZED_VIEW.finding(view.label, what, remedy=remedy)


def examine_foreign_tables(catalog: Catalog) -> Iterator[Finding]:
    """Look for foreign tables that hold tenants' rows, or that runtime roles may read."""
    for relation in catalog.relations.values():
        if relation.kind != "f":
            continue
        granted = catalog.grants_to(relation.oid, catalog.exposed)
        has_tenant = TENANT_KEY in relation.columns or any(parent in catalog.guards for parent in relation.parents)
        if granted or has_tenant:
            roles = ", ".join(sorted({grant.role for grant in granted}))
            what = f"it has no row-level security{f', and {roles} may use it' if roles else ''}"
            revoked = ", ".join(("PUBLIC", *catalog.runtime))
            yield FOREIGN_TABLE.finding(
                relation.label, what, remedy=f"REVOKE ALL ON {relation.sql_name} FROM {revoked};  -- or drop it"
            )


def examine_rules(catalog: Catalog) -> Iterator[Finding]:
    """Look for rules on guarded tables and on views of them."""
    for oid, name in catalog.rules:
        if oid in catalog.guards or oid in catalog.tenant_readers:
            relation = catalog.relations[oid]
            remedy = f"DROP RULE {quote(name)} ON {relation.sql_name};  -- a trigger does what it did"
            label = f"rule {quote(name)} on {relation.label}"
            yield RULE_ON_TABLE.finding(label, "it rewrites statements", remedy=remedy)


CHECKS = (
    Check((VIEW_WITHOUT_INVOKER,), examine_views),
    Check((MATERIALIZED_VIEW,), examine_materialized_views),
    Check((FOREIGN_TABLE,), examine_foreign_tables),
    Check((RULE_ON_TABLE,), examine_rules),
)
RULES: tuple[Rule, ...] = rules_of(CHECKS)
