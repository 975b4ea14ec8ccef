"""Tenant tables: what a model declares, and the walk of the metadata everything else derives from."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Constraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    Uuid,
    and_,
    event,
    quoted_name,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Mapper, Relationship, foreign, mapped_column, relationship, remote

from tenancy.context import require_tenant
from tenancy.errors import ModelError, WrongTenantError
from tenancy.marks import (
    TENANT_KEY,
    TableMark,
    is_limited,
    limit_grants,
    mark_of,
    platform_table,
    registry_table,
    staff_table,
)

__all__ = [
    "TENANT_KEY",
    "TableMark",
    "TenantForeignKey",
    "TenantIndex",
    "TenantTable",
    "TenantUnique",
    "check_metadata",
    "faults_of",
    "guarded_tables",
    "limit_grants",
    "mark_of",
    "new_id",
    "platform_table",
    "registry_table",
    "staff_table",
    "tenant_column",
    "tenant_relationship",
    "tenant_tables",
]

_Keyed = UniqueConstraint | PrimaryKeyConstraint | ExcludeConstraint | ForeignKeyConstraint | Index


def new_id() -> UUID:
    """Return a UUIDv7 of this moment. It counts nothing: the bits after its time, to a quarter of a µs, are random.

    Generators that count within a millisecond tell a tenant how many ids others took between two of its own.
    Source: RFC 9562, section 6.2, method 3.
    """
    ms, rest_ns = divmod(time.time_ns(), 1_000_000)
    return UUID(int=ms << 80 | 0x7 << 76 | (rest_ns << 12) // 1_000_000 << 64 | 0b10 << 62 | secrets.randbits(62))


class TenantTable:
    """Mixin that makes a model a tenant table: `tenant_id`, `id` (UUIDv7) and the composite primary key.

    Objects are stamped with the tenant in scope when they are constructed, and keep it for life. A model
    that brings its own `id` column keeps it; the primary key becomes `(tenant_id, id)`.
    """

    tenant_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=require_tenant, sort_order=-20)
    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id, sort_order=-10)


def tenant_column() -> Column[UUID]:
    """Return the `tenant_id` column of a link table that has no model."""
    return Column(TENANT_KEY, Uuid, primary_key=True, default=require_tenant)


def tenant_tables(metadata: MetaData) -> list[Table]:
    """Return every table with a `tenant_id`, referenced tables before those that refer to them."""
    return [table for table in metadata.sorted_tables if TENANT_KEY in table.c]


def guarded_tables(metadata: MetaData) -> list[Table]:
    """Return every table that carries policies: those of tenants, accounts and staff, and the registry, in FK order."""
    return [t for t in metadata.sorted_tables if (m := mark_of(t)) is not None and m.kind != "platform"]


def check_metadata(metadata: MetaData) -> None:
    """Refuse a metadata in which some table is not, or cannot be, isolated.

    Raises: ModelError - lists every fault: a table neither tenant nor marked; a `tenant_id` that is
    nullable or no UUID; a key, unique or exclusion constraint, or a foreign key between tenant tables
    that leaves the tenant out; an `app_update` without a column that SQLAlchemy writes in every update.
    """
    faults = [fault for table in metadata.tables.values() for fault in faults_of(table)]
    if faults:
        raise ModelError(
            "; ".join(faults), hint="use TenantTable, TenantUnique, TenantForeignKey, or mark it with platform_table"
        )


def faults_of(table: Table) -> Iterator[str]:
    """Say what `check_metadata` would refuse in one table."""
    mark = mark_of(table)
    if mark is None:
        yield f"table {table.name!r} has no tenant_id and is not marked as a platform table"
        return
    if mark.account_key is not None and mark.account_key not in table.c:
        yield f"account table {table.name!r} has no column {mark.account_key!r}"
    if is_limited(table) and mark.kind not in ("tenant", "account"):
        yield f"{mark.kind} table {table.name!r} has limit_grants, which is for tables of tenants and of accounts"
    if TENANT_KEY not in table.c:
        return
    column = table.c[TENANT_KEY]
    if mark.kind in ("platform", "account", "staff"):
        yield f"table {table.name!r} is marked as a {mark.kind} table but has a tenant_id"
    if not isinstance(column.type, Uuid):
        yield f"{table.name}.tenant_id is {column.type!r}, not a UUID"
    if column.nullable:
        yield f"{table.name}.tenant_id is nullable"
    # Not granted in silence: what a tenant may write of its own entry is for the model to say.
    unwritable = [c.name for c in table.columns if c.onupdate is not None and c.name not in (mark.app_update or ())]
    if mark.app_update and unwritable:
        yield (
            f"every update by the app role of registry table {table.name!r} would fail: SQLAlchemy sets "
            f"{', '.join(unwritable)} in each, and app_update leaves it out"
        )
    for constraint in table.constraints:
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint | ExcludeConstraint):
            if TENANT_KEY not in constraint.columns and not _spans_tenants(mark, constraint):
                yield f"{type(constraint).__name__} on {_columns(table, constraint)} leaves tenant_id out"
        elif isinstance(constraint, ForeignKeyConstraint):
            yield from _foreign_key_faults(table, mark, constraint)
    for index in table.indexes:
        if index.unique and TENANT_KEY not in index.columns and not _spans_tenants(mark, index):
            yield f"unique index on {_columns(table, index)} leaves tenant_id out"


def _spans_tenants(mark: TableMark, key: Constraint | Index) -> bool:
    """A key a tenant is found by is unique across tenants on purpose, and says so in its `info`."""
    return mark.kind == "registry" or bool(key.info.get("across_tenants"))


def _foreign_key_faults(table: Table, mark: TableMark, constraint: ForeignKeyConstraint) -> Iterator[str]:
    try:
        target = constraint.referred_table
    except SQLAlchemyError:
        yield f"foreign key on {_columns(table, constraint)} points at an unknown table"
        return
    if TENANT_KEY not in target.c:
        return
    pairs = {(element.parent.name, element.column.name) for element in constraint.elements}
    if (TENANT_KEY, TENANT_KEY) not in pairs:
        yield f"foreign key on {_columns(table, constraint)} does not carry tenant_id to {target.name!r}"
    # The server does it with the owner's rights, whatever the role that deletes may do here.
    done = {"CASCADE": "DELETE", "SET": "UPDATE"}.get((constraint.ondelete or "").upper().partition(" ")[0])
    above = mark_of(target)
    if done is None or above is None or constraint.info.get("past_limits"):
        return
    deleting = {"app": above.app if above.kind != "registry" else (), "platform": above.platform}
    for role, below in (("app", mark.app), ("platform", mark.platform)):
        if "DELETE" in deleting[role] and done not in below:
            yield (
                f"foreign key on {_columns(table, constraint)} lets the {role} role {done} here by a DELETE on "
                f"{target.name!r}, past limit_grants; if that is meant, say info={{'past_limits': True}}"
            )


def _columns(
    table: Table, constraint: UniqueConstraint | PrimaryKeyConstraint | ExcludeConstraint | ForeignKeyConstraint | Index
) -> str:
    return f"{table.name}({', '.join(column.name for column in constraint.columns)})"


# Constraints -----------------------------------------------------------------------------------------


class TenantForeignKey(ForeignKeyConstraint):
    """A foreign key that carries `tenant_id`, so that no row can point at another tenant's row.

    column: the local column; target: the table it points at, by its `id`. ondelete="SET NULL" blanks
    only `column` and keeps the tenant (PostgreSQL 15 and later).
    """

    inherit_cache = True

    def __init__(self, column: str, target: str, *, ondelete: str | None = None, **options: Any) -> None:
        if ondelete is not None and ondelete.upper() == "SET NULL":
            ondelete = f"SET NULL ({column})"
        super().__init__([TENANT_KEY, column], [f"{target}.{TENANT_KEY}", f"{target}.id"], ondelete=ondelete, **options)


class TenantUnique(UniqueConstraint):
    """A unique constraint within the tenant: `tenant_id` leads the columns."""

    inherit_cache = True

    def __init__(self, *columns: str, **options: Any) -> None:
        super().__init__(TENANT_KEY, *columns, **options)


class TenantIndex(Index):
    """An index whose first column is `tenant_id`; named `ix_<table>_<columns>` unless named.

    columns: names, or SQL expressions (then `name` is needed).
    """

    inherit_cache = True

    def __init__(self, *columns: Any, name: str | None = None, **options: Any) -> None:
        self._suffix = None if name else "_".join(c for c in columns if isinstance(c, str))
        if name is None and not all(isinstance(column, str) for column in columns):
            raise ModelError("an index over an expression has no natural name", hint="pass name=... to TenantIndex")
        super().__init__(name or "ix_unnamed", TENANT_KEY, *columns, **options)

    def _set_parent(self, parent: Any, **kw: Any) -> None:
        if self._suffix:
            self.name = quoted_name(f"ix_{parent.name}_{self._suffix}", quote=None)
        super()._set_parent(parent, **kw)


# Relationships ---------------------------------------------------------------------------------------


def tenant_relationship(via: str | None = None, *, secondary: str | None = None, **options: Any) -> Any:
    """Relate two tenant tables within the tenant; the join carries `tenant_id`, which is never blanked.

    via: the foreign key's column. `"company_id"` on the side that has it (many-to-one),
        `"Person.company_id"` on the other (one-to-many). With `secondary`, the link's column that points
        here, needed only when the link points twice at one table.
    secondary: name of the link table, for many-to-many.
    Other options are those of `sqlalchemy.orm.relationship`.
    Source: a plain relationship over the composite key blanks tenant_id when it is set to None.
    """
    if via is None and secondary is None:
        raise ModelError(
            "tenant_relationship needs a foreign key column or a link table",
            hint='write tenant_relationship("company_id") or tenant_relationship(secondary="person_tags")',
        )
    prop: Relationship[Any]
    if secondary is not None:
        options |= {"secondary": secondary, "secondaryjoin": lambda: _far_join(prop.parent, secondary, via)}
        prop = relationship(primaryjoin=lambda: _near_join(prop.parent, secondary, via), **options)
    else:
        prop = relationship(primaryjoin=lambda: _direct_join(prop.parent, str(via)), **options)
    return prop


def _direct_join(owner: Mapper[Any], via: str) -> ColumnElement[bool]:
    # Only tables are read here: a lazy join that reads the target's mapper configures it, and recurses.
    here = cast("Table", owner.local_table)
    class_name, _, column = via.rpartition(".")
    if not class_name:
        there = _foreign_key(here, column).referred_table
        return and_(here.c[TENANT_KEY] == remote(there.c[TENANT_KEY]), foreign(here.c[column]) == remote(there.c.id))
    there = _table_of(owner, class_name)
    _foreign_key(there, column, to=here)
    return and_(here.c[TENANT_KEY] == remote(there.c[TENANT_KEY]), here.c.id == remote(foreign(there.c[column])))


def _near_join(owner: Mapper[Any], secondary: str, via: str | None) -> ColumnElement[bool]:
    here = cast("Table", owner.local_table)
    link = here.metadata.tables[secondary]
    column = link.c[_near_column(link, here, via)]
    return and_(here.c[TENANT_KEY] == foreign(link.c[TENANT_KEY]), here.c.id == foreign(column))


def _far_join(owner: Mapper[Any], secondary: str, via: str | None) -> ColumnElement[bool]:
    here = cast("Table", owner.local_table)
    link = here.metadata.tables[secondary]
    near = _near_column(link, here, via)
    far = [c for c in _linking_columns(link) if c != near]
    if len(far) != 1:
        raise ModelError(
            f"link table {secondary!r} has {len(far)} foreign keys besides {near!r}, not one",
            hint="a link table joins two tenant tables by two TenantForeignKey constraints",
        )
    there = _foreign_key(link, far[0]).referred_table
    return and_(there.c[TENANT_KEY] == link.c[TENANT_KEY], there.c.id == foreign(link.c[far[0]]))


def _near_column(link: Table, here: Table, via: str | None) -> str:
    columns = [via] if via else [c for c in _linking_columns(link) if _foreign_key(link, c).referred_table is here]
    if len(columns) != 1:
        raise ModelError(
            f"link table {link.name!r} points {len(columns)} times at {here.name!r}",
            hint='name the column that points here: tenant_relationship("person_id", secondary=...)',
        )
    return columns[0]


def _linking_columns(link: Table) -> list[str]:
    return [column.name for column in link.columns if column.name != TENANT_KEY and column.foreign_keys]


def _foreign_key(table: Table, column: str, *, to: Table | None = None) -> ForeignKeyConstraint:
    for constraint in table.foreign_key_constraints:
        if {TENANT_KEY, column} == {c.name for c in constraint.columns} and to in (None, constraint.referred_table):
            return constraint
    raise ModelError(
        f"no tenant foreign key on {table.name}.{column}{f' to {to.name!r}' if to is not None else ''}",
        hint=f'add TenantForeignKey("{column}", ...) to __table_args__',
    )


def _table_of(owner: Mapper[Any], class_name: str) -> Table:
    for mapper in owner.registry.mappers:
        if mapper.class_.__name__ == class_name:
            return cast("Table", mapper.local_table)
    raise ModelError(f"no mapped class is named {class_name!r}", hint='write "ClassName.column", and import its module')


# Stamping --------------------------------------------------------------------------------------------


@event.listens_for(TenantTable, "init", propagate=True)
def _stamp(target: TenantTable, _args: object, given: dict[str, Any]) -> None:
    tenant = require_tenant()
    stamped = given.setdefault(TENANT_KEY, tenant)
    if stamped is not tenant and stamped != tenant:
        raise WrongTenantError(
            f"{type(target).__name__} was constructed for tenant {stamped!r}, but the scope is {tenant!r}",
            hint="leave tenant_id out: an object belongs to the tenant in scope",
        )


@event.listens_for(TenantTable, "attribute_instrument", propagate=True)
def _freeze(_class: type, key: str, attribute: Any) -> None:
    if key == TENANT_KEY:
        event.listen(attribute, "set", _refuse_other_tenant)
        event.listen(attribute, "remove", _refuse_removal)


def _refuse_other_tenant(target: TenantTable, value: object, _old: object, _initiator: object) -> None:
    stamped = target.__dict__.get(TENANT_KEY)  # of a key column, SQLAlchemy loads an expired value first
    if stamped is not None and value != stamped:
        raise WrongTenantError(
            f"{type(target).__name__} belongs to tenant {stamped!r} and cannot move to {value!r}",
            hint="make a new object inside the other tenant's scope",
        )


def _refuse_removal(target: TenantTable, value: object, _initiator: object) -> None:
    raise WrongTenantError(
        f"{type(target).__name__} belongs to tenant {value!r} and cannot be without one",
        hint="make a new object inside the other tenant's scope",
    )


@event.listens_for(TenantTable, "instrument_class", propagate=True)
def _keep_serial_id(mapper: Mapper[Any], _class: type) -> None:
    """Let a model's own integer `id` go on counting: SQLAlchemy stops that in a composite key."""
    table = mapper.local_table
    if not isinstance(table, Table) or "id" not in table.c:
        return
    column = table.c.id
    if isinstance(column.type, Integer) and column.autoincrement == "auto" and not column.foreign_keys:
        column.autoincrement = True
