"""What a sweep sends: rows to aim at, ids that nobody has, and bodies guessed from the tables."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Column, Index, String, Table, UniqueConstraint

from tenancy.errors import ConfigurationError
from tenancy.tables import TENANT_KEY
from tenancy.testing.routes import Body, Route
from tenancy.testing.world import SeededTenant, World

_NOBODYS_NUMBER = 2_000_000_000
_WRITING = frozenset({"POST", "PUT", "PATCH"})


def own_row(
    world: World, table: Table, tenant: SeededTenant, *, leading_to: Iterable[Mapping[str, Any]] = ()
) -> Mapping[str, Any]:
    """Return a row that only this tenant has; one that the given rows refer to, if they refer to this table.

    Raises: ConfigurationError - the tenant has no such row.
    """
    rows = world.rows.get(table.key, {}).get(tenant.id, [])
    for row in leading_to:
        for target, column in _references(world, row, table):
            for candidate in rows:
                if candidate.get(target) == row.get(column):
                    return candidate
    (other,) = (one for one in world.tenants if one.id != tenant.id)
    theirs = world.rows.get(table.key, {}).get(other.id, [])
    keys = [column.name for column in table.primary_key if column.name != TENANT_KEY]
    taken = [[row[key] for key in keys] for row in theirs] if keys else []
    own = [row for row in rows if [row[key] for key in keys] not in taken]
    if not own:
        raise ConfigurationError(
            f"tenant {tenant.slug!r} has no row of its own in {table.name!r}", hint="give it one in pytest_tenancy_row"
        )
    # The last: what is seeded later refers to what was seeded before, and never to it.
    return own[-1]


def _references(world: World, row: Mapping[str, Any], table: Table) -> Iterator[tuple[str, str]]:
    for holder in world.metadata.tables.values():
        if set(row) != set(holder.columns.keys()):
            continue
        for constraint in holder.foreign_key_constraints:
            if constraint.referred_table is table:
                for element in constraint.elements:
                    if element.parent.name != TENANT_KEY and row.get(element.parent.name) is not None:
                        yield element.column.name, element.parent.name


def missing_like(value: Any) -> Any:
    """Return a value of the same kind that no row has, another one each time."""
    if isinstance(value, UUID):
        return uuid4()
    if isinstance(value, int):
        return _NOBODYS_NUMBER + secrets.randbelow(100_000_000)
    try:
        UUID(value)
    except ValueError:
        return f"missing-{secrets.token_hex(4)}"
    return str(uuid4())


def guessed_bodies(world: World, route: Route, table: Table | None, tenant: SeededTenant) -> list[Body]:
    """Return what a route may want, to be tried in this order; the same number for each tenant.

    Writing routes get the columns of their table, with the values of a row the tenant has.
    """
    if route.method not in _WRITING or table is None:
        return [Body()]
    row = world.fresh(table, tenant)
    columns = [table.c[name] for name in row if name in table.c and not _is_key(table.c[name])]
    whole = {column.name: _written(row[column.name]) for column in columns}
    needed = {column.name: whole[column.name] for column in columns if not column.nullable}
    texts = {name: "" if value is None else value for name, value in whole.items()}
    return [Body(json=whole), Body(json=needed), Body(form=texts), Body()]


def _is_key(column: Column[Any]) -> bool:
    return column.primary_key or column.name == TENANT_KEY


def unique_texts(table: Table | None) -> frozenset[str]:
    """Return the columns of text whose values may be taken when a request is sent a second time."""
    if table is None:
        return frozenset()
    keys: list[UniqueConstraint | Index] = [c for c in table.constraints if isinstance(c, UniqueConstraint)]
    keys += [index for index in table.indexes if index.unique]
    texts = [column for column in table.columns if isinstance(column.type, String) and not _is_key(column)]
    return frozenset(c.name for c in texts if c.unique or any(c.name in key.columns for key in keys))


def renewed(body: Body, names: frozenset[str]) -> Body:
    """Return the body with another text in each of these fields."""

    def renew(given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        prefix = secrets.token_hex(4)
        return {k: f"{prefix}{v}" if k in names and isinstance(v, str) and v else v for k, v in given.items()}

    return replace(body, json=renew(body.json), form=renew(body.form)) if names else body


def _written(value: Any) -> Any:
    """Return a value as JSON holds it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | list | dict) else None
