"""Rows for every table, guessed from the metadata: how many, with which keys, pointing at which others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Sequence,
    Table,
    UniqueConstraint,
)
from sqlalchemy.schema import sort_tables_and_constraints

from tenancy.tables import TENANT_KEY, mark_of
from tenancy.testing.mappers import kinds_of, mappers_of
from tenancy.testing.values import Guess

RowFactory = Callable[[Table, Mapping[str, Any]], Mapping[str, Any] | None]
Row = dict[str, Any]
# Seeded rows are numbered from 0. The first has the same id in both tenants, the second one of its own; any
# further ones exist to be pointed at by a fresh row, through a foreign key that is unique.
SHARED, OWN, SPARE = 0, 1, 2
FRESH = 12
# Keys that a sequence will not reach while the suite runs.
_COUNTED_FROM = 1_000_000
_SMALL_COUNTED_FROM = 30_000


def in_order(metadata: MetaData) -> tuple[list[Table], list[ForeignKeyConstraint]]:
    """Return all tables, referenced ones first, and the foreign keys that have to be filled in later."""
    tables: list[Table] = []
    late: list[ForeignKeyConstraint] = []
    known = sorted(metadata.tables.values(), key=lambda table: table.key)
    for table, keys in sort_tables_and_constraints(known):  # type: ignore[no-untyped-call]  # SQLAlchemy's
        if table is None:
            late += keys
        else:
            tables.append(table)
    return tables, sorted(late, key=_name_of)


def guarded_in_order(metadata: MetaData) -> list[Table]:
    """Return every table with policies, in the same order each time; cycles are no hindrance."""
    return [table for table in in_order(metadata)[0] if mark_of(table) is not None and kind_of(table) != "platform"]


def kind_of(table: Table) -> str:
    mark = mark_of(table)
    return "platform" if mark is None else mark.kind


def unique_keys(table: Table) -> Iterator[tuple[str, ...]]:
    """Return the columns of each unique key, the primary key first; none that holds for a part of the rows only."""
    if table.primary_key.columns:
        yield tuple(table.primary_key.columns.keys())
    constraints = (c for c in table.constraints if isinstance(c, UniqueConstraint))
    keys = [tuple(c.name for c in constraint.columns) for constraint in constraints]
    for index in table.indexes:
        if index.unique and not is_partial(index) and all(isinstance(e, Column) for e in index.expressions):
            keys.append(tuple(column.name for column in index.columns))
    yield from sorted(keys)


def is_partial(index: Index) -> bool:
    return index.dialect_options["postgresql"].get("where") is not None


def keyed_columns(table: Table) -> list[set[str]]:
    """Return the columns of everything that may not repeat, for a part of the rows or by an expression too."""
    found = [set(key) for key in unique_keys(table)]
    return found + [{column.name for column in index.columns} for index in table.indexes if index.unique]


def across_tenants(table: Table) -> list[set[str]]:
    """Return the columns of each key that is declared to be unique across tenants: there, a taken value is noticed."""
    keys = [key for key in (*table.constraints, *table.indexes) if key.info.get("across_tenants")]
    return [{str(column.name) for column in key.columns} for key in keys if isinstance(key, UniqueConstraint | Index)]


def foreign_keys(table: Table) -> list[ForeignKeyConstraint]:
    return sorted(table.foreign_key_constraints, key=_name_of)


def pairs_of(key: ForeignKeyConstraint) -> list[tuple[str, str]]:
    """Return the local and the referred column names, without the tenant's where it stands for itself."""
    pairs = [(element.parent.name, element.column.name) for element in key.elements]
    return [pair for pair in pairs if pair != (TENANT_KEY, TENANT_KEY)]


def is_single(table: Table) -> bool:
    """Whether a tenant can have one row of it and no more."""
    return any(set(key) == {TENANT_KEY} for key in unique_keys(table))


def is_counted(column: Column[Any]) -> bool:
    """Whether the server counts its values: serial, identity, or a sequence's."""
    return (
        column.identity is not None
        or column.table.autoincrement_column is column
        or isinstance(column.default, Sequence)
        or (isinstance(column.type, Integer) and column.primary_key and column.server_default is not None)
    )


def is_always_counted(column: Column[Any]) -> bool:
    return column.identity is not None and bool(column.identity.always)


class RowPlan:
    """What rows to make, and with which values, as far as Python can tell."""

    def __init__(self, metadata: MetaData, factory: RowFactory | None) -> None:
        self.tables, self.late = in_order(metadata)
        self.factory = factory
        self.spares = cache(self._spares)
        # Tables of tenants that are no registry, by the column that a `tenant_id` points at.
        self.named = {
            element.column.table: element.column.name
            for table in self.tables
            for key in foreign_keys(table)
            for element in key.elements
            if element.parent.name == TENANT_KEY and TENANT_KEY not in element.column.table.c
        }
        self.kinds = {table: kinds_of(mapper) for table, mapper in mappers_of(metadata).items()}

    def count(self, table: Table) -> int:
        return 1 if is_single(table) or table in self.named else SPARE + self.spares(table)

    def _spares(self, table: Table) -> int:
        """Two rows beyond what other tables' own spares take up, when some foreign key to it is unique."""
        pointing = (key for other in self.tables for key in foreign_keys(other) if key.referred_table is table)
        return max(
            (2 + self.spares(key.table) for key in pointing if is_unique(key) and self._leads_down(key)), default=0
        )

    def _leads_down(self, key: ForeignKeyConstraint) -> bool:
        return key not in self.late and self.tables.index(key.referred_table) < self.tables.index(key.table)

    def guessed(self, table: Table, marker: str, side: int, number: int) -> Row:
        """Guess a row's values, all but those of foreign keys.

        side: 0 or 1, for the owner or the stranger. number: of the seeded row, or FRESH and above.
        """
        pointing = {local for key in foreign_keys(table) for local, _ in pairs_of(key)}
        keyed = {name for key in keyed_columns(table) for name in key}
        row: Row = {}
        for column in table.columns:
            if column.name in (*pointing, TENANT_KEY, self.named.get(table)) or not _is_given(column, number, keyed):
                continue
            in_key = column.primary_key and TENANT_KEY in table.primary_key.columns
            if in_key and number == SHARED:
                row[column.name] = _keyed(column, "shared", 1)
            elif column.primary_key:
                row[column.name] = _keyed(column, marker, 2 + 2 * number + side)
            else:
                row[column.name] = Guess(column, marker, 2 + 2 * number + side).value()
        return row | self.kinds.get(table, {})

    def target(self, key: ForeignKeyConstraint, number: int) -> int | None:
        """Return which row of the referred table the row of this number points at; None when at none.

        In its own table the second and later rows point at the first, so that deleting needs no order.
        """
        if key.referred_table is key.table:
            if number == SHARED or (is_unique(key) and number != OWN):
                return None
            return SHARED
        last = self.count(key.referred_table) - 1
        if number >= FRESH:
            wanted = SPARE + self.spares(key.table) + number - FRESH if is_unique(key) else SHARED
        else:
            wanted = number if number <= last else SHARED
        return min(wanted, last)


def is_unique(key: ForeignKeyConstraint) -> bool:
    """Whether two rows may not point at one: a column of the foreign key is part of a unique key."""
    columns = {local for local, _ in pairs_of(key)}
    return any(columns & unique for unique in keyed_columns(key.table))


def filled(key: ForeignKeyConstraint, target: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """Return the local columns with the values that point at the target; NULL where there is none."""
    for local, referred in pairs_of(key):
        yield local, None if target is None else target[referred]


def identity_of(table: Table, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the text of a row's primary key, the tenant first; of all its columns, when it has no key."""
    return tuple(str(row[name]) for name in identity_columns(table))


def identity_columns(table: Table) -> list[str]:
    names = [c.name for c in table.primary_key.columns] or [c.name for c in table.columns]
    return [name for name in names if name == TENANT_KEY] + [name for name in names if name != TENANT_KEY]


def _is_given(column: Column[Any], number: int, keyed: Iterable[str]) -> bool:
    if column.computed is not None:
        return False
    if is_counted(column):
        return column.primary_key and number < FRESH
    if column.primary_key:
        return True
    # A default that is one value for all rows would not do in a unique key.
    scalar = getattr(column.default, "is_scalar", False)
    return (column.default is None or (scalar and column.name in keyed)) and column.server_default is None


class _Statement:
    """What a default that looks at the other values asks of SQLAlchemy's execution context."""

    def __init__(self, row: Row) -> None:
        self.current_parameters = row

    def get_current_parameters(self, isolate_multiinsert_params: bool = True) -> Row:
        return self.current_parameters


def defaults_of(table: Table, given: Row) -> Row:
    """Return what the model's own defaults give to the other columns, as far as they need no statement to do so."""
    found: Row = {}
    for column in table.columns:
        default: Any = column.default
        if column.name in given or default is None or is_counted(column):
            continue
        if getattr(default, "is_scalar", False):
            found[column.name] = default.arg
        elif getattr(default, "is_callable", False):
            found[column.name] = default.arg(_Statement(given))
    return found


def _keyed(column: Column[Any], marker: str, number: int) -> Any:
    if isinstance(column.type, Integer):
        return number + (_SMALL_COUNTED_FROM if "small" in type(column.type).__name__.lower() else _COUNTED_FROM)
    return Guess(column, marker, number).value()


def _name_of(key: ForeignKeyConstraint) -> tuple[str, ...]:
    return (key.table.key, *(element.parent.name for element in key.elements), str(key.name or ""))
