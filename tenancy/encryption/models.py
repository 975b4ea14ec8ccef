"""The table of data keys. The application maps it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CheckConstraint, DateTime, Integer, LargeBinary, Table, Text, UniqueConstraint, event, func
from sqlalchemy.orm import Mapped, Mapper, mapped_column

from tenancy.marks import is_limited, limit_grants


class DataKeyMixin:
    """Columns of a tenant table of data keys, one row for each version; beside TenantTable.

    The app role may read and add keys; to wrap them anew or destroy them is for the platform.
    wrapped: the key under its master key; None once it was destroyed.
    """

    version: Mapped[int] = mapped_column(Integer)
    master_key_id: Mapped[str] = mapped_column(Text)
    wrapped: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    destroyed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


@event.listens_for(DataKeyMixin, "instrument_class", propagate=True)
def _complete_table(mapper: Mapper[Any], _model: type[DataKeyMixin]) -> None:
    table = cast("Table", mapper.local_table)
    table.append_constraint(UniqueConstraint(table.c.tenant_id, table.c.version))
    table.append_constraint(CheckConstraint("version > 0", name="version_positive"))
    table.append_constraint(CheckConstraint("(wrapped IS NULL) = (destroyed_at IS NOT NULL)", name="destroyed_or_not"))
    if not is_limited(table):
        limit_grants(app=("SELECT", "INSERT"))(table)
