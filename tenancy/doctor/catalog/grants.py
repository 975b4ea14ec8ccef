"""Privileges on guarded tables: what the library gives, no more and no less."""

from __future__ import annotations

from collections.abc import Iterator

from tenancy.doctor.catalog.guards import Catalog, Guard
from tenancy.doctor.catalog.row_security import guard_op
from tenancy.doctor.checks import Check, rules_of
from tenancy.doctor.findings import Finding, Rule
from tenancy.marks import EVERY_PRIVILEGE
from tenancy.rls import Grant, TableState, quote
from tenancy.rls.catalog import compare_grants

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

PAST_POLICIES = frozenset({"TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"})


def examine_grants(catalog: Catalog) -> Iterator[Finding]:
    """Compare the privileges of the library's roles and PUBLIC with what guarding the table gives."""
    for guard in catalog.guards.values():
        state = catalog.states[guard.relation.oid]
        if guard.is_declared and guard.parent is None and state.policies:
            for difference in compare_grants(guard.wanted, state, catalog.roles):
                if difference.grant is not None and _concerns(guard, difference.grant, difference.kind):
                    yield _finding(guard, difference.grant, difference.kind, catalog)
        else:
            for grant in _forbidden(guard, state, catalog):
                yield _finding(guard, grant, "grant_extra", catalog)


def _concerns(guard: Guard, grant: Grant, kind: str) -> bool:
    """Whether the column is known on both sides: a column that only one of them has is drift, not a grant."""
    if grant.column is None:
        return True
    if kind == "grant_missing":
        return grant.column in guard.relation.columns
    return guard.model is not None and grant.column in guard.model.c


def _forbidden(guard: Guard, state: TableState, catalog: Catalog) -> Iterator[Grant]:
    """What no table of any model would be given, nor the parent: for tables whose model is not known."""
    roles = catalog.roles
    for grant in sorted(state.grants, key=str):
        if grant.role in catalog.runtime:
            is_key = grant.privilege == "UPDATE" and grant.column in (None, guard.wanted.key)
            is_wrong = is_key or grant.privilege in PAST_POLICIES or _is_wider(guard, grant, catalog)
        else:
            is_read = grant.privilege == "SELECT"
            is_wrong = grant.role == "PUBLIC" or (grant.role in (roles.lookup, roles.backup) and not is_read)
        if is_wrong:
            yield grant


def _is_wider(guard: Guard, grant: Grant, catalog: Catalog) -> bool:
    """Whether a partition, read by its own name, gives the role what its parent's limits keep from it."""
    if guard.parent is None or grant.privilege not in EVERY_PRIVILEGE:
        return False
    wanted = guard.wanted
    is_app = grant.role == catalog.roles.app
    if grant.privilege not in (wanted.app if is_app else wanted.platform):
        return True
    if not is_app:
        return False
    is_kept = wanted.app_update is not None and grant.column in wanted.update and grant.column not in wanted.app_update
    return is_kept if grant.privilege == "UPDATE" else wanted.kind == "registry" and grant.privilege == "DELETE"


def _finding(guard: Guard, grant: Grant, kind: str, catalog: Catalog) -> Finding:
    table = guard.relation.sql_name
    columns = f" ({quote(grant.column)})" if grant.column else ""
    privilege = f"{grant.privilege}{columns}"
    if kind == "grant_missing":
        remedy = f"GRANT {privilege} ON {table} TO {grant.role};"
        return GRANT_MISSING.finding(guard.relation.label, f"{privilege} to {grant.role} is missing", remedy=remedy)
    is_key = grant.privilege == "UPDATE" and grant.column in (None, guard.wanted.key) and grant.role in catalog.exposed
    rule = GRANT_PAST_POLICIES if grant.privilege in PAST_POLICIES else GRANT_ON_KEY if is_key else GRANT_EXTRA
    # Revoked from the table, UPDATE goes from its columns too; guarding the table anew gives those back.
    is_whole = is_key and grant.column is None
    remedy = guard_op(guard, "reguard_table") if is_whole else f"REVOKE {privilege} ON {table} FROM {grant.role};"
    return rule.finding(guard.relation.label, f"{grant.role} has {privilege}, not given by the library", remedy=remedy)


def examine_sequences(catalog: Catalog) -> Iterator[Finding]:
    """Look at who draws from, reads and sets the sequences behind guarded tables."""
    for numbering in catalog.sequences:
        guard = catalog.guards.get(numbering.table)
        if guard is None or guard.parent is not None or not catalog.states[guard.relation.oid].policies:
            continue
        sequence = catalog.relations[numbering.oid]
        given = catalog.grants_to(numbering.oid, catalog.exposed)
        for grant in given:
            if grant.privilege != "USAGE" or grant.role == "PUBLIC":
                what = f"{grant.role} has {grant.privilege}, not given by the library"
                remedy = f"REVOKE {grant.privilege} ON SEQUENCE {sequence.sql_name} FROM {grant.role};"
                yield GRANT_ON_SEQUENCE.finding(sequence.label, what, remedy=remedy)
        drawing = {grant.role for grant in given if grant.privilege == "USAGE"}
        for role in catalog.runtime:
            if not numbering.is_identity and role not in drawing:
                remedy = f"GRANT USAGE ON SEQUENCE {sequence.sql_name} TO {role};"
                yield GRANT_ON_SEQUENCE.finding(sequence.label, f"USAGE to {role} is missing", remedy=remedy)


CHECKS = (
    Check((GRANT_MISSING, GRANT_EXTRA, GRANT_PAST_POLICIES, GRANT_ON_KEY), examine_grants),
    Check((GRANT_ON_SEQUENCE,), examine_sequences),
)
RULES: tuple[Rule, ...] = rules_of(CHECKS)
