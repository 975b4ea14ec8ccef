"""The audit of each tenant and that of the platform: entries, the links that chain them, and each chain's head."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Index, LargeBinary, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.audit.actors import ActorKind
from app.db import Base, one_of
from tenancy.tables import TenantIndex, TenantTable, TenantUnique, limit_grants, new_id, staff_table


class EntryColumns:
    """What an entry says: who did what, to which row, and why."""

    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    action: Mapped[str] = mapped_column(Text)
    actor_kind: Mapped[str] = mapped_column(Text)
    actor_id: Mapped[str] = mapped_column(Text)
    actor_label: Mapped[str] = mapped_column(Text)
    impersonator: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    target_kind: Mapped[str | None] = mapped_column(Text)
    target_id: Mapped[UUID | None] = mapped_column(Uuid)
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB)


class LinkColumns:
    """One link of a chain, under the id of its entry. The database makes it when the entry's transaction commits.

    at: when, by the server's clock; what retention counts from. An entry's own `at` was said by its writer.
    """

    number: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    previous_hash: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class HeadColumns:
    """Where a chain ends, and from where on it is still kept: the links up to `pruned_number` were removed."""

    number: Mapped[int] = mapped_column(BigInteger)
    previous_hash: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    pruned_number: Mapped[int] = mapped_column(BigInteger)
    pruned_hash: Mapped[bytes] = mapped_column(LargeBinary)


# Of each tenant ---------------------------------------------------------------------------------------


@limit_grants(app=("SELECT", "INSERT"), platform=("SELECT", "INSERT", "DELETE"))
class AuditEntry(EntryColumns, TenantTable, Base):
    """One thing that was done in one tenant. A trigger refuses every change, and every removal but two.

    Those are what retention has pruned, and a tenant that is being erased.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (
        one_of("actor_kind", ActorKind),
        TenantIndex("at"),
        TenantIndex("action", "at"),
        TenantIndex("target_id"),
    )


@limit_grants(app=("SELECT",), platform=("SELECT", "DELETE"))
class AuditLink(LinkColumns, TenantTable, Base):
    """A link of a tenant's chain."""

    __tablename__ = "audit_links"
    __table_args__ = (TenantUnique("number"),)


@limit_grants(app=("SELECT",), platform=("SELECT", "UPDATE", "DELETE"))
class AuditHead(HeadColumns, TenantTable, Base):
    """The head of a tenant's chain; there is one, and its id is the tenant's own."""

    __tablename__ = "audit_heads"


# Of the platform --------------------------------------------------------------------------------------


@staff_table(reason="what staff do to no tenant, such as to plans and to each other")
class PlatformEntry(EntryColumns, Base):
    """One thing that staff did which belongs to no tenant."""

    __tablename__ = "platform_entries"
    __table_args__ = (
        one_of("actor_kind", ActorKind),
        Index("ix_platform_entries_at", "at"),
        Index("ix_platform_entries_action", "action", "at"),
        Index("ix_platform_entries_target_id", "target_id"),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id, sort_order=-10)


@staff_table(reason="the chain of the platform's own audit")
class PlatformLink(LinkColumns, Base):
    """A link of the platform's chain."""

    __tablename__ = "platform_links"
    __table_args__ = (Index("uq_platform_links_number", "number", unique=True),)

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id, sort_order=-10)


@staff_table(reason="the head of the platform's chain, the only one")
class PlatformHead(HeadColumns, Base):
    """The head of the platform's chain; its id is the nil UUID."""

    __tablename__ = "platform_heads"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id, sort_order=-10)
