"""Row-level security: whether each table of tenants is guarded as its model asks."""

from __future__ import annotations

from collections.abc import Iterator

from tenancy.doctor.catalog.guards import SCHEMA, Catalog, Guard
from tenancy.doctor.checks import Check, rules_of
from tenancy.doctor.findings import NOT_CHECKED, Finding, Rule
from tenancy.marks import EVERY_PRIVILEGE
from tenancy.rls import Difference, Policy, policies, quote
from tenancy.rls.catalog import compare_row_security
from tenancy.tables import TENANT_KEY

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
    "With row-level security off no policy applies, and every role with a grant reads every tenant's rows.",
)
ROW_SECURITY_NOT_FORCED = Rule(
    "TEN102",
    "row-security-not-forced",
    "error",
    "Without FORCE the owner passes the policies, and so does every view and function with its rights.",
)
POLICY_MISSING = Rule(
    "TEN103",
    "policy-missing",
    "error",
    "Each policy holds one side of the wall; without it other tenants' rows open, or nobody finds any.",
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


def examine_tables(catalog: Catalog) -> Iterator[Finding]:
    """Compare the switches and policies of every table with what guards it."""
    for guard in catalog.guards.values():
        state = catalog.states[guard.relation.oid]
        if guard.parent is not None:
            yield from _examine_child(catalog, guard)
        elif not state.policies and not state.is_enabled and not state.is_forced:
            if guard.is_declared or catalog.grants_to(guard.relation.oid, _reachers(catalog)):
                yield _never_guarded(guard)
        else:
            for difference in compare_row_security(guard.wanted, state, _names(catalog, guard), catalog.flavour):
                if difference.kind != "policy_changed":
                    yield _finding(guard, difference)


def examine_policies(catalog: Catalog) -> Iterator[Finding]:
    """Compare the text of the library's policies with what this server makes of a fresh one."""
    for guard in catalog.guards.values():
        state = catalog.states[guard.relation.oid]
        wanted = catalog.wanted_policies(guard)
        for difference in compare_row_security(guard.wanted, state, wanted, catalog.flavour):
            if difference.kind == "policy_changed":
                yield _finding(guard, difference)


def _names(catalog: Catalog, guard: Guard) -> tuple[Policy, ...]:
    """The wanted policies as far as their names: the text is compared where it can be."""
    return policies(guard.wanted, catalog.roles, catalog.flavour)


def _reachers(catalog: Catalog) -> tuple[str, ...]:
    return (*catalog.exposed, catalog.roles.lookup)


def _examine_child(catalog: Catalog, guard: Guard) -> Iterator[Finding]:
    relation, state = guard.relation, catalog.states[guard.relation.oid]
    found = list(compare_row_security(guard.wanted, state, _names(catalog, guard), catalog.flavour))
    for difference in found:
        if difference.kind == "policy_permissive":
            yield _finding(guard, difference)
    lacking = [d.what for d in found if d.kind in ("rls_disabled", "rls_not_forced", "policy_missing")]
    if lacking:
        parent = guard.parent.sql_name if guard.parent is not None else ""
        what = f"it belongs to {parent}, and has no guard of its own: {'; '.join(lacking)}"
        yield PARTITION_UNGUARDED.finding(relation.label, what, remedy=guard_op(guard))


def examine_others(catalog: Catalog) -> Iterator[Finding]:
    """Look for tables without a tenant that runtime roles reach and nobody declared."""
    others = [
        relation
        for relation in catalog.relations.values()
        if relation.is_table
        and relation.oid not in catalog.guards
        and relation.schema != SCHEMA
        and not relation.is_extension
        and not catalog.is_platform(relation)
        and catalog.grants_to(relation.oid, catalog.exposed)
    ]
    if others and catalog.subject.metadata is None:
        names = ", ".join(relation.sql_name for relation in others)
        yield NOT_CHECKED.finding(
            f"check {TABLE_UNDECLARED.id} {TABLE_UNDECLARED.name}",
            f"without the models nobody can tell whether these belong to the platform: {names}",
            remedy="examine with the metadata of the models",
        )
        return
    for relation in others:
        granted = catalog.grants_to(relation.oid, catalog.exposed)
        reach = ", ".join(sorted({f"{grant.privilege} to {grant.role}" for grant in granted}))
        yield TABLE_UNDECLARED.finding(
            relation.label,
            f"no model declares it, it has no tenant_id, and there is {reach}",
            remedy=f"REVOKE ALL ON {relation.sql_name} FROM PUBLIC, {', '.join(catalog.runtime)};"
            '  -- or declare its model: @platform_table(reason="...")',
        )


def examine_owners(catalog: Catalog) -> Iterator[Finding]:
    """Look for guarded tables in other hands than the owner's."""
    owner = catalog.roles.owner
    for guard in catalog.guards.values():
        relation = guard.relation
        if relation.owner != owner and not _is_out_of_reach(catalog, guard):
            remedy = f"ALTER TABLE {relation.sql_name} OWNER TO {owner};"
            yield TABLE_OWNER.finding(relation.label, f"it belongs to {relation.owner}, not to {owner}", remedy=remedy)


def _is_out_of_reach(catalog: Catalog, guard: Guard) -> bool:
    """A table that nobody declared or guarded and no runtime role reaches, such as a loader's staging table."""
    return (
        not guard.is_declared
        and guard.parent is None
        and not catalog.states[guard.relation.oid].policies
        and not catalog.grants_to(guard.relation.oid, _reachers(catalog))
    )


def guard_op(guard: Guard, verb: str = "guard_table") -> str:
    """Return the Alembic operation that guards a table as it should be."""
    wanted, relation = guard.wanted, guard.relation
    arguments = [repr(relation.name)]
    arguments += [f"kind={wanted.kind!r}"] if wanted.kind != "tenant" else []
    arguments += [f"key={wanted.key!r}"] if wanted.key != TENANT_KEY else []
    arguments += [f"app_update={list(wanted.app_update)!r}"] if wanted.app_update is not None else []
    arguments += [f"app={list(wanted.app)!r}"] if wanted.app not in ((), EVERY_PRIVILEGE) else []
    arguments += [f"platform={list(wanted.platform)!r}"] if wanted.platform != EVERY_PRIVILEGE else []
    arguments += [f"lookup_columns={list(wanted.lookup_columns)!r}"] if wanted.lookup_columns else []
    arguments += [f"sequences={list(wanted.sequences)!r}"] if wanted.sequences else []
    arguments += [f"schema={relation.schema!r}"] if relation.schema != "public" else []
    return f"op.{verb}({', '.join(arguments)})"


def _never_guarded(guard: Guard) -> Finding:
    what = "row-level security is off, and there is no policy"
    return ROW_SECURITY_OFF.finding(guard.relation.label, what, remedy=guard_op(guard))


def _finding(guard: Guard, difference: Difference) -> Finding:
    relation = guard.relation
    if difference.kind == "policy_permissive":
        policy = quote(str(difference.policy))
        remedy = f"DROP POLICY {policy} ON {relation.sql_name};"
        return POLICY_PERMISSIVE.finding(f"policy {policy} on {relation.label}", difference.what, remedy=remedy)
    rule = {
        "rls_disabled": ROW_SECURITY_OFF,
        "rls_not_forced": ROW_SECURITY_NOT_FORCED,
        "policy_missing": POLICY_MISSING,
        "policy_changed": POLICY_CHANGED,
    }[difference.kind]
    named = f"policy {difference.policy} on {relation.label}" if difference.policy else relation.label
    switch = {"rls_disabled": "ENABLE", "rls_not_forced": "FORCE"}.get(difference.kind)
    remedy = (
        f"ALTER TABLE {relation.sql_name} {switch} ROW LEVEL SECURITY;" if switch else guard_op(guard, "reguard_table")
    )
    return rule.finding(named, difference.what, remedy=remedy)


CHECKS = (
    Check(
        (ROW_SECURITY_OFF, ROW_SECURITY_NOT_FORCED, POLICY_MISSING, POLICY_PERMISSIVE, PARTITION_UNGUARDED),
        examine_tables,
    ),
    Check((POLICY_CHANGED,), examine_policies),
    Check((TABLE_UNDECLARED,), examine_others),
    Check((TABLE_OWNER,), examine_owners),
)
RULES: tuple[Rule, ...] = (NOT_INSTALLED, *rules_of(CHECKS))
