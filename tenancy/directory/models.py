"""The two tables a directory reads: tenants, and their custom domains. The application maps them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, Index, Table, Text, UniqueConstraint, Uuid, event
from sqlalchemy import func as sql
from sqlalchemy.orm import Mapped, Mapper, mapped_column

from tenancy.lookups import Lookup, declare_lookup
from tenancy.tables import new_id, registry_table

STATUSES = ("pending", "active", "suspended", "archived", "deleting", "deleted")
_SLUG_SYNTAX = """slug COLLATE "C" ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND slug ~ '[a-z]' AND length(slug) <= 63"""


class TenantMixin:
    """Columns of the table of tenants. A new tenant is `pending`, and so closed, until someone activates it.

    The key column is called `tenant_id`, so that a tenant sees its own row by the same policy as
    everywhere. `__directory_columns__` names further columns the directory should return.
    """

    __directory_columns__: tuple[str, ...] = ()

    id: Mapped[UUID] = mapped_column("tenant_id", Uuid, primary_key=True, default=new_id, sort_order=-20)
    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, default="pending", server_default="pending")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=sql.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=sql.now(), onupdate=sql.now())


class DomainMixin:
    """Columns of a tenant table of custom domains. Only a row with `verified_at` ever answers.

    A domain may be claimed by many tenants, and verified by one.
    """

    domain: Mapped[str] = mapped_column(Text)
    verified_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


@event.listens_for(TenantMixin, "instrument_class", propagate=True)
def _declare_registry(mapper: Mapper[Any], model: type[TenantMixin]) -> None:
    table = table_of(mapper)
    # On the table, not on the columns, where a migration written from the models would not see them.
    table.append_constraint(CheckConstraint(_SLUG_SYNTAX, name="slug_syntax"))
    table.append_constraint(CheckConstraint(f"status IN ({', '.join(map(repr, STATUSES))})", name="status_known"))
    registry_table(app_update=("name", "updated_at"))(table)
    returns = ("tenant_id", "slug", "name", "status", *model.__directory_columns__)
    declare_lookup(table.metadata, Lookup("tenant_by_id", table.name, "tenant_id", returns, key_type="uuid"))
    declare_lookup(table.metadata, Lookup("tenant_by_slug", table.name, "slug", returns))


@event.listens_for(DomainMixin, "instrument_class", propagate=True)
def _declare_domains(mapper: Mapper[Any], _model: type[DomainMixin]) -> None:
    table = table_of(mapper)
    table.append_constraint(UniqueConstraint(table.c.tenant_id, table.c.domain))
    Index(
        f"{table.name}_verified_domain_key",
        table.c.domain,
        unique=True,
        postgresql_where=table.c.verified_at.is_not(None),
        info={"across_tenants": True},
    )
    declare_lookup(
        table.metadata,
        Lookup("tenant_by_domain", table.name, "domain", ("tenant_id",), requires=("verified_at",)),
    )


def table_of(mapper: Mapper[Any]) -> Table:
    return cast("Table", mapper.local_table)
