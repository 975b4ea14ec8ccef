"""What a table is, as far as the matrix must know: its mapped class, its keys, and what the app role may do to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import JSON, Column, ForeignKeyConstraint, MetaData, Table, TableClause, column, table
from sqlalchemy.orm import Mapper, RelationshipProperty

from tenancy.lookups import lookups_of
from tenancy.rls import GuardedTable, Roles, grants, guarded_table
from tenancy.tables import TENANT_KEY, TenantTable
from tenancy.testing.mappers import mappers_of
from tenancy.testing.rows import (
    across_tenants,
    foreign_keys,
    guarded_in_order,
    identity_columns,
    is_always_counted,
    is_counted,
    is_single,
    pairs_of,
    unique_keys,
)


@dataclass(frozen=True, eq=False)
class Shape:
    """One guarded table. `mapper` is None for a table without a class of its own."""

    table: Table
    mapper: Mapper[Any] | None
    guarded: GuardedTable

    @property
    def name(self) -> str:
        return self.table.key

    @property
    def sql_name(self) -> str:
        return self.guarded.sql_name

    @cached_property
    def plain(self) -> TableClause:
        """The table without its defaults: an UPDATE of it writes no column but those named."""
        return table(self.table.name, *(column(c.name, c.type) for c in self.table.columns), schema=self.table.schema)

    @cached_property
    def identity(self) -> list[Column[Any]]:
        """The primary key, the tenant first; all columns when there is none."""
        return [self.table.c[name] for name in identity_columns(self.table)]

    @cached_property
    def key(self) -> list[Column[Any]]:
        """The columns a row is found by: the primary key, else another unique key of the tenant, else all columns."""
        for names in unique_keys(self.table):
            if TENANT_KEY in names:
                return [self.table.c[name] for name in (TENANT_KEY, *(name for name in names if name != TENANT_KEY))]
        return [one for one in self.identity if not isinstance(one.type, JSON)]

    @cached_property
    def has_key(self) -> bool:
        return any(TENANT_KEY in names for names in unique_keys(self.table))

    @cached_property
    def writable(self) -> list[Column[Any]]:
        """The columns an insert may name."""
        return [c for c in self.table.columns if c.computed is None and not is_always_counted(c)]

    @cached_property
    def is_single(self) -> bool:
        return is_single(self.table)

    @cached_property
    def counts_its_key(self) -> bool:
        """Whether only the server can say what a new row's key is."""
        return any(is_counted(one) for one in self.key)

    @cached_property
    def keeps_its_key(self) -> bool:
        """Whether an insert may not name the key at all."""
        return any(is_always_counted(one) for one in self.key)

    @cached_property
    def uniques(self) -> list[tuple[str, ...]]:
        """The unique keys within the tenant whose value can be chosen freely."""
        pointing = {local for key in foreign_keys(self.table) for local, _ in pairs_of(key)}
        found = []
        for names in unique_keys(self.table):
            free = [name for name in names if name != TENANT_KEY and name not in pointing]
            is_noticed = any(crossing <= set(names) for crossing in across_tenants(self.table))
            is_fixed = any(is_always_counted(self.table.c[name]) for name in names)
            if TENANT_KEY in names and free and not is_noticed and not is_fixed:
                found.append(names)
        return list(dict.fromkeys(found))

    @cached_property
    def pointers(self) -> list[ForeignKeyConstraint]:
        """The foreign keys that carry the tenant to another tenant table, and more than the tenant."""
        return [
            key
            for key in foreign_keys(self.table)
            if TENANT_KEY in key.referred_table.c
            and pairs_of(key)
            and len(pairs_of(key)) < len(key.elements)
            and (not self.is_single or self.updates(pairs_of(key)[0][0]))
        ]

    @cached_property
    def relationships(self) -> list[RelationshipProperty[Any]]:
        """Those to other tenant tables, loaded the ordinary way."""
        if self.mapper is None:
            return []
        self.mapper.registry.configure(cascade=True)
        return [prop for _, prop in sorted(self.mapper.relationships.items()) if _is_followed(prop)]

    @property
    def is_named_by_sessions(self) -> bool:
        """Whether a session names its tenant in each statement on the class."""
        return self.mapper is not None and issubclass(self.mapper.class_, TenantTable)

    @cached_property
    def _app_updates(self) -> frozenset[str]:
        found = grants(self.guarded, Roles())
        return frozenset(str(g.column) for g in found if g.privilege == "UPDATE" and g.role == Roles().app)

    def updates(self, name: str) -> bool:
        """Whether the app role may update this column."""
        return name in self._app_updates

    @cached_property
    def updated(self) -> Column[Any]:
        """A column to write: one the app role may update, or any other when there is none."""
        allowed = [one for one in self.writable if self.updates(one.name)]
        return (allowed or self.key)[0]

    @property
    def can_update(self) -> bool:
        return self.updates(self.updated.name)

    @property
    def can_insert(self) -> bool:
        return self._app_may("INSERT")

    @property
    def can_delete(self) -> bool:
        return self._app_may("DELETE")

    def _app_may(self, privilege: str) -> bool:
        roles = Roles()
        return any(g.role == roles.app and g.privilege == privilege for g in grants(self.guarded, roles))


def shapes_of(metadata: MetaData) -> list[Shape]:
    """Return the shape of every table with policies, in the order of foreign keys."""
    mappers = mappers_of(metadata)
    return [
        Shape(found, mappers.get(found), guarded_table(found, lookups_of(metadata)))
        for found in guarded_in_order(metadata)
    ]


def _is_followed(prop: RelationshipProperty[Any]) -> bool:
    target = prop.mapper.local_table
    return (
        isinstance(target, Table)
        and TENANT_KEY in target.c
        and prop.mapper.inherits is None
        and prop.lazy not in ("dynamic", "write_only", "noload", None)
    )
