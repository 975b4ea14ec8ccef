"""Autogenerate: what the models ask for against what the database carries, and the operations in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import (
    CreateForeignKeyOp,
    CreateTableOp,
    DropConstraintOp,
    DropTableOp,
    MigrateOperation,
    ModifyTableOps,
    UpgradeOps,
)
from alembic.util import PriorityDispatchResult, to_list
from sqlalchemy import MetaData

from tenancy import rls
from tenancy.alembic.comparison import Comparison, read_comparison
from tenancy.alembic.guards import DropPermissivePolicyOp, GuardTableOp, ReguardTableOp, UnguardTableOp
from tenancy.alembic.operations import (
    CreateLookupOp,
    DropLookupOp,
    InstallTenancyOp,
    RecreateLookupOp,
    ReinstallTenancyOp,
)
from tenancy.alembic.rows import LiftedOps, LoweredOps
from tenancy.marks import INFO_KEYS
from tenancy.rls.migrations import recover_lookup
from tenancy.tables import check_metadata, mark_of


def compare_guards(
    context: AutogenContext, upgrade: UpgradeOps, _schemas: Iterable[str | None]
) -> PriorityDispatchResult:
    """Extend a revision by what isolation needs; runs after alembic compared the tables.

    A metadata in which no table is a tenant table or marked belongs to somebody else and is left alone.
    Raises: ModelError - a table is neither a tenant table nor marked.
    """
    metadatas = [m for m in _metadatas(context) if any(mark_of(table) for table in m.sorted_tables)]
    for metadata in metadatas:
        check_metadata(metadata)
    _forget_marks(upgrade)
    if metadatas:
        _keep_own_schema(upgrade)
        found = read_comparison(
            context, metadatas, created=_tables(upgrade, CreateTableOp), dropped=_tables(upgrade, DropTableOp)
        )
        if found.wanted or found.released:
            upgrade.ops[:] = [*_before(found), *_around(upgrade, found), *_after(found)]
    return PriorityDispatchResult.CONTINUE


def _metadatas(context: AutogenContext) -> list[MetaData]:
    return list(to_list(context.metadata))


def _tables(upgrade: UpgradeOps, kind: type[CreateTableOp] | type[DropTableOp]) -> set[tuple[str | None, str]]:
    return {(op.schema, op.table_name) for op in upgrade.ops if isinstance(op, kind)}


def _forget_marks(upgrade: UpgradeOps) -> None:
    # alembic writes Table.info into create_table, where the marks would be names nobody imports.
    for operation in upgrade.ops:
        if isinstance(operation, CreateTableOp):
            for key in INFO_KEYS:
                operation.info.pop(key, None)


def _keep_own_schema(upgrade: UpgradeOps) -> None:
    # With include_schemas alembic finds the tables of schema `tenancy`, which no metadata declares.
    upgrade.ops[:] = [op for op in upgrade.ops if getattr(op, "schema", None) != rls.SCHEMA]


# Before the tables change ----------------------------------------------------------------------------


def _before(found: Comparison) -> Iterator[MigrateOperation]:
    if not found.is_installed:
        yield InstallTenancyOp()
    elif found.is_signed != found.installation.signed:
        yield ReinstallTenancyOp(signed=found.installation.signed)
    elif found.changed_functions:
        yield ReinstallTenancyOp()
    yield from _drop_lookups(found)
    for key in found.released:
        yield UnguardTableOp(found.recovered(key))
    for key in found.wanted:
        if key in found.states:
            yield from _let_go_of_dropped_columns(found, key, found.columns[key] - found.model_columns[key])


def _drop_lookups(found: Comparison) -> Iterator[MigrateOperation]:
    """Drop lookups whose declaration changed or went; a function that is not our text is left alone."""
    declared = {lookup.name: lookup for lookup in found.lookups}
    for name, routine in found.routines.items():
        there = recover_lookup(routine, found.installation.roles)
        if there is None or there == declared.get(name):
            continue
        if name in declared or there.table in found.known_names:
            yield DropLookupOp(there)


def _let_go_of_dropped_columns(
    found: Comparison, key: tuple[str | None, str], dropped: frozenset[str]
) -> Iterator[MigrateOperation]:
    """Narrow a guard before its columns go, so that the downgrade can widen it after they came back."""
    before = found.recovered(key)
    was: dict[str, tuple[str, ...] | None] = {}
    if dropped.intersection(before.lookup_columns):
        was["lookup_columns"] = before.lookup_columns
    if dropped.intersection(before.app_update or ()):
        was["app_update"] = before.app_update
    if was:
        kept: dict[str, Any] = {n: tuple(c for c in columns or () if c not in dropped) for n, columns in was.items()}
        yield ReguardTableOp(dataclasses.replace(before, **kept), was=was)


# Between ---------------------------------------------------------------------------------------------


def _around(upgrade: UpgradeOps, found: Comparison) -> Iterator[MigrateOperation]:
    for operation in upgrade.ops:
        if isinstance(operation, DropTableOp):
            key = (operation.schema, operation.table_name)
            if key in found.states and found.is_guarded(key):
                yield UnguardTableOp(found.recovered(key))  # so that the downgrade guards the table it creates
            yield operation
        elif isinstance(operation, ModifyTableOps):
            yield from _lift_foreign_keys(operation, found)
        else:
            yield operation


def _lift_foreign_keys(modify: ModifyTableOps, found: Comparison) -> Iterator[MigrateOperation]:
    """Take foreign keys between guarded tables out: PostgreSQL validates them by reading both."""
    before, kept, after = [], [], []
    for operation in modify.ops:
        tables = _foreign_key_tables(operation, found)
        alone = ModifyTableOps(modify.table_name, [operation], schema=modify.schema)
        if tables and isinstance(operation, CreateForeignKeyOp):
            after.append(LiftedOps([alone], tables=tables, schema=modify.schema))
        elif tables:
            before.append(LoweredOps([alone], tables=tables, schema=modify.schema))
        else:
            kept.append(operation)
    modify.ops[:] = kept
    yield from before
    if kept:
        yield modify
    yield from after


def _foreign_key_tables(operation: MigrateOperation, found: Comparison) -> tuple[str, ...]:
    if isinstance(operation, DropConstraintOp) and operation.constraint_type == "foreignkey":
        operation = operation.reverse()
    if not isinstance(operation, CreateForeignKeyOp):
        return ()
    child = (operation.kw.get("source_schema"), str(operation.source_table))
    parent = (operation.kw.get("referent_schema"), str(operation.referent_table))
    if child[0] != parent[0]:
        return ()
    return tuple(dict.fromkeys(name for schema, name in (child, parent) if (schema, name) in found.wanted))


# After the tables changed ----------------------------------------------------------------------------


def _after(found: Comparison) -> Iterator[MigrateOperation]:
    for key, table in found.wanted.items():
        if key in found.created or (key in found.states and not found.is_guarded(key)):
            yield GuardTableOp(table)
        elif key in found.states and found.differs(key):
            yield ReguardTableOp(table, was=found.was(key))
        if key in found.states:
            for policy in found.states[key].policies:
                if policy.permissive and policy.name not in rls.POLICY_NAMES:
                    yield DropPermissivePolicyOp(table.name, policy, schema=table.schema)
    yield from _create_lookups(found)


def _create_lookups(found: Comparison) -> Iterator[MigrateOperation]:
    for lookup in found.lookups:
        there = found.routines.get(lookup.name)
        was = None if there is None else recover_lookup(there, found.installation.roles)
        if there is None or (was is not None and was != lookup):
            yield CreateLookupOp(lookup)
        elif lookup.name not in found.fresh or not there.answers(found.fresh[lookup.name]):
            yield RecreateLookupOp(lookup)
