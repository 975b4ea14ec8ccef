"""Schema `tenancy` itself: its functions, its tables and the lookups."""

from __future__ import annotations

from collections.abc import Iterator

from tenancy.doctor.catalog.guards import SCHEMA, Catalog
from tenancy.doctor.checks import Check, rules_of
from tenancy.doctor.findings import Finding, Rule
from tenancy.lookups import Lookup, lookups_of
from tenancy.rls import announce_sql
from tenancy.rls.migrations import Routine, recover_lookup

LIBRARY_FUNCTION_CHANGED = Rule(
    "TEN112",
    "library-function-changed",
    "error",
    "The policies are as good as the functions they call: a changed one can name another tenant.",
)
LIBRARY_TABLE_CHANGED = Rule(
    "TEN113",
    "library-table-changed",
    "error",
    "The audit of platform sessions proves nothing when it can be changed, or entered by another role.",
)
ANNOUNCEMENT_MISSING = Rule(
    "TEN114",
    "announcement-missing",
    "warning",
    "Without the trigger no process learns that a tenant was suspended before its cache expires.",
)
LOOKUP_CHANGED = Rule(
    "TEN116",
    "lookup-changed",
    "error",
    "Lookups read past the policies, so each must return exactly the columns of one key that its declaration says.",
)


def examine_functions(catalog: Catalog) -> Iterator[Finding]:
    """Compare each function that policies and triggers call with a fresh one."""
    for name, wanted in catalog.fresh_library.routines.items():
        there = catalog.routines.get(name)
        if there is None or not there.answers(wanted):
            what = "it is missing" if there is None else f"{_what_differs(there, wanted)} not the library's"
            label = f"function {SCHEMA}.{name}({wanted.arguments})"
            remedy = "op.reinstall_tenancy()"
            if there is not None and there.owner != wanted.owner:  # nobody but the owner can replace it
                remedy = f"ALTER {label.upper().split()[0]} {SCHEMA}.{name} OWNER TO {wanted.owner};"
            yield LIBRARY_FUNCTION_CHANGED.finding(label, what, remedy=remedy)


def _what_differs(there: Routine, wanted: Routine) -> str:
    parts = {
        "its arguments are": there.arguments != wanted.arguments,
        "its owner is": there.owner != wanted.owner,
        "its text is": there.source != wanted.source,
        "its traits are": there.traits != wanted.traits,
        "its callers are": there.callers & (wanted.callers | {"PUBLIC"}) != wanted.callers,
    }
    return ", ".join(part for part, differs in parts.items() if differs)


def examine_library_tables(catalog: Catalog) -> Iterator[Finding]:
    """Compare the tables of schema `tenancy`, and the schema's own privileges, with fresh ones."""
    roles = catalog.roles
    ours = (*catalog.exposed, roles.lookup, roles.backup, roles.migrator)
    wanted = catalog.fresh_library.facts
    kept = {thing for thing, _ in wanted}
    lacking = sorted(wanted - catalog.facts)
    for thing, fact in lacking:
        yield LIBRARY_TABLE_CHANGED.finding(thing, f"it lacks: {fact}", remedy=_restoring(thing, fact))
    for thing in sorted({thing for thing, _ in catalog.facts} - kept):
        what, remedy = "it is not the library's, and stands in its schema", f"DROP {thing};  -- or move it elsewhere"
        yield LIBRARY_TABLE_CHANGED.finding(thing, what, remedy=remedy)
    told = {(thing, _subject(fact)) for thing, fact in lacking}
    for thing, fact in sorted(catalog.facts - wanted):
        is_of_concern = thing in kept and (thing, _subject(fact)) not in told
        privilege, _, grantee = fact.rpartition(" to ")
        if _is_grant(fact) and is_of_concern and grantee in ours:
            remedy = f"REVOKE {privilege} ON {thing.removeprefix('table ')} FROM {grantee};"
            yield LIBRARY_TABLE_CHANGED.finding(thing, f"{grantee} has {privilege}, not given by it", remedy=remedy)
        elif not _is_grant(fact) and is_of_concern:
            remedy = f"-- take it off again: {fact}"
            yield LIBRARY_TABLE_CHANGED.finding(thing, f"not the library's: {fact}", remedy=remedy)


def _is_grant(fact: str) -> bool:
    return " to " in fact and fact.split(" ", 1)[0].isupper()


def _subject(fact: str) -> str:
    """What a fact is about: a column, a trigger, the owner; of a grant, the grant itself."""
    return fact if _is_grant(fact) else " ".join(fact.split(" ")[: 1 if fact.startswith("owner ") else 2])


def _restoring(thing: str, fact: str) -> str:
    """Return what brings a fact back that a fresh installation has."""
    kind, _, rest = fact.partition(" ")
    if kind == "owner":
        return f"ALTER {thing} OWNER TO {rest};"
    if kind == "column":
        name, default = rest.split(" ", 1)[0], rest.partition(" DEFAULT ")[2]
        changes = [f"ALTER {name} SET NOT NULL"] if " NOT NULL" in rest else []
        changes += [f"ALTER {name} SET DEFAULT {default}"] if default else []
        return f"ALTER {thing} {', '.join(changes) or f'ADD {rest}'};"
    if kind == "constraint":
        return f"ALTER {thing} ADD {rest};"
    return "op.reinstall_tenancy()"


def examine_announcements(catalog: Catalog) -> Iterator[Finding]:
    """Look for the trigger that tells every process of a change to a tenant."""
    for guard in catalog.guards.values():
        if (
            guard.wanted.kind != "registry"
            or guard.parent is not None
            or not catalog.states[guard.relation.oid].policies
        ):
            continue
        announced = any(
            trigger.table == guard.relation.oid
            and trigger.name == "tenancy_announce"
            and trigger.is_enabled
            and (function := catalog.functions.get(trigger.function)) is not None
            and (function.schema, function.name) == (SCHEMA, "announce_tenant")
            for trigger in catalog.triggers
        )
        if not announced:
            (remedy,) = announce_sql(guard.relation.name, schema=guard.relation.schema)
            what = "trigger tenancy_announce is missing or disabled"
            yield ANNOUNCEMENT_MISSING.finding(guard.relation.label, what, remedy=f"{remedy};")


def examine_lookups(catalog: Catalog) -> Iterator[Finding]:
    """Compare each lookup with its declaration; without the models, with the text that a declaration gives."""
    fresh, metadata = catalog.fresh_library, catalog.subject.metadata
    declared = {lookup.name: lookup for lookup in lookups_of(metadata)} if metadata is not None else {}
    for name, lookup in declared.items():
        there, wanted = catalog.routines.get(name), fresh.lookups.get(name)
        if there is None or wanted is None or not there.answers(wanted):
            changed = there is not None and wanted is not None
            # Both are there when it has changed; the types do not follow the flag.
            what = f"{_what_differs(there, wanted)} not the declaration's" if changed else "it is missing"  # type: ignore[arg-type]
            yield LOOKUP_CHANGED.finding(_label(name, there, wanted), what, remedy=_recreate(lookup))
    for name, there in catalog.routines.items():
        if name in declared or name in fresh.routines or there.owner != catalog.roles.lookup:
            continue
        if metadata is not None or not _is_ours(there, catalog):
            what = "no model declares this function of the lookup role"
            remedy = f"DROP FUNCTION {SCHEMA}.{name};"
            yield LOOKUP_CHANGED.finding(_label(name, there, None), what, remedy=remedy)


def _is_ours(routine: Routine, catalog: Catalog) -> bool:
    """Whether a function is one that `create_lookup` writes, callable by the runtime roles alone."""
    return recover_lookup(routine, catalog.roles) is not None and "PUBLIC" not in routine.callers


def _label(name: str, there: Routine | None, wanted: Routine | None) -> str:
    known = there or wanted
    return f"function {SCHEMA}.{name}({known.arguments if known is not None else ''})"


def _recreate(lookup: Lookup) -> str:
    arguments = [repr(lookup.name), repr(lookup.table), f"key={lookup.key!r}", f"returns={list(lookup.returns)!r}"]
    arguments += [f"key_type={lookup.key_type!r}"] if lookup.key_type != "text" else []
    arguments += ["by_account=True"] if lookup.by_account else []
    arguments += [f"requires={list(lookup.requires)!r}"] if lookup.requires else []
    return f"op.recreate_lookup({', '.join(arguments)})"


CHECKS = (
    Check((LIBRARY_FUNCTION_CHANGED,), examine_functions),
    Check((LIBRARY_TABLE_CHANGED,), examine_library_tables),
    Check((ANNOUNCEMENT_MISSING,), examine_announcements),
    Check((LOOKUP_CHANGED,), examine_lookups),
)
RULES: tuple[Rule, ...] = rules_of(CHECKS)
