"""The registry of tenants, their custom domains, and what is noted of their lives."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, ForeignKeyConstraint, Index, Integer, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.audit.actors import ActorKind
from app.db import Base, Timestamped, one_of
from app.plans.catalogue import newest_version
from app.tenants.states import Status
from tenancy.directory import DomainMixin, TenantMixin
from tenancy.lookups import Lookup, declare_lookup, lookups_of
from tenancy.tables import TenantIndex, TenantTable, TenantUnique, limit_grants, new_id, staff_table


class Plan(StrEnum):
    """What a tenant bought."""

    BASIC = "basic"
    PREMIUM = "premium"
    ENTERPRISE = "enterprise"
    CUSTOM = "custom"


def _newest_version(context: Any) -> int:
    """Return the version of the plan that is sold now; a tenant keeps it until somebody changes its plan."""
    return newest_version(context.get_current_parameters()["plan"])


class Tenant(TenantMixin, Base):
    """One customer organisation. Status, plan and slug change through the platform only.

    former_status: what it was before its deletion was scheduled, to go back to. erase_after: when that deletion
    falls due. erasing_since: set when the erasure began; from then on nothing can be undone.
    """

    __tablename__ = "tenants"
    __table_args__ = (
        one_of("plan", Plan),
        Index("ix_tenants_erase_after", "erase_after", postgresql_where=text("erase_after IS NOT NULL")),
    )
    # `updated_at` tells the caches of what a tenant may have, see app/plans/standing.py, that they are out of date.
    __directory_columns__ = ("plan", "plan_version", "updated_at")

    plan: Mapped[str] = mapped_column(Text)
    plan_version: Mapped[int] = mapped_column(Integer, default=_newest_version)
    former_status: Mapped[str | None] = mapped_column(Text)
    erase_after: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    erasing_since: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


@limit_grants(app=("SELECT",), platform=("SELECT", "INSERT", "DELETE"))
class Transition(TenantTable, Base):
    """One change of a tenant's status. Nobody changes it; it goes with the rest of the tenant."""

    __tablename__ = "tenant_transitions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
        one_of("from_status", Status),
        one_of("to_status", Status),
        one_of("actor_kind", ActorKind),
        TenantIndex("at"),
    )

    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    from_status: Mapped[str | None] = mapped_column(Text)
    to_status: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    actor_kind: Mapped[str] = mapped_column(Text)
    actor_label: Mapped[str] = mapped_column(Text)


class StepState(StrEnum):
    """How far one step of provisioning has come."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@limit_grants(app=("SELECT",))
class ProvisioningStep(TenantTable, Timestamped, Base):
    """One step in making a tenant ready. A step that failed is tried again; one that is done never runs twice.

    given: what the step works with, such as the owner's address; kept so that any process can go on.
    """

    __tablename__ = "provisioning_steps"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
        TenantUnique("step"),
        one_of("state", StepState),
    )

    step: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    given: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    error: Mapped[str | None] = mapped_column(Text)
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class DomainState(StrEnum):
    """What is known of a claim to a domain. Only a verified or failing one is served."""

    WAITING = "waiting"
    WRONG_VALUE = "wrong_value"
    VERIFIED = "verified"
    FAILING = "failing"
    LOST = "lost"


@limit_grants(app=("SELECT",))
class Domain(TenantTable, Timestamped, DomainMixin, Base):
    """A domain a tenant claims as its own; it leads to the tenant once `verified_at` is set, by the platform only.

    challenge: what the TXT record has to hold. found: what it held when last looked at. failures: checks in a row
    that found another value or none since it was verified. lost_at: when so many failed that it was given up.
    """

    __tablename__ = "domains"
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),)

    challenge: Mapped[UUID] = mapped_column(Uuid, server_default=func.gen_random_uuid())
    found: Mapped[list[str]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    checked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    lost_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    @property
    def state(self) -> DomainState:
        if self.verified_at is not None:
            return DomainState.FAILING if self.failures else DomainState.VERIFIED
        if self.lost_at is not None:
            return DomainState.LOST
        return DomainState.WRONG_VALUE if self.found else DomainState.WAITING


@staff_table(reason="a slug stays reserved after the tenant that had it has another one, or is erased")
class ReservedSlug(Base):
    """A slug that nobody may have, but the tenant that had it before.

    held_by: that tenant; None where the platform keeps the name for itself.
    """

    __tablename__ = "reserved_slugs"

    slug: Mapped[str] = mapped_column(Text, primary_key=True)
    held_by: Mapped[UUID | None] = mapped_column(Uuid)
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


@staff_table(reason="the proof that a tenant was erased outlives the tenant")
class Erasure(Base):
    """The erasure of one tenant: how far it is, what was deleted, and that nothing was left.

    counted: rows by table when it began. remaining: rows by table at the end; all 0 in one that has finished.
    """

    __tablename__ = "erasures"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id)
    erased_tenant: Mapped[UUID] = mapped_column(Uuid, unique=True)
    slug: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    counted: Mapped[dict[str, int]] = mapped_column(JSONB, default=dict)
    remaining: Mapped[dict[str, int]] = mapped_column(JSONB, default=dict)


@staff_table(reason="one run changes many tenants")
class BulkRun(Base):
    """One change of many tenants' status: what was asked, by whom and why."""

    __tablename__ = "bulk_runs"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id)
    to_status: Mapped[str] = mapped_column(Text)
    wanted: Mapped[dict[str, Any]] = mapped_column(JSONB)
    reason: Mapped[str] = mapped_column(Text)
    actor_label: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class BulkState(StrEnum):
    """What became of one tenant in a run."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@staff_table(reason="part of a run that changes many tenants")
class BulkItem(Base):
    """One tenant in a run."""

    __tablename__ = "bulk_items"
    __table_args__ = (
        ForeignKeyConstraint(["run_id"], ["bulk_runs.id"], ondelete="CASCADE"),
        one_of("state", BulkState),
    )

    run_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    target: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    state: Mapped[str] = mapped_column(Text, default=BulkState.WAITING)
    error: Mapped[str | None] = mapped_column(Text)


tenant_by_slug = next(lookup for lookup in lookups_of(Base.metadata) if lookup.name == "tenant_by_slug")
tenant_by_domain = next(lookup for lookup in lookups_of(Base.metadata) if lookup.name == "tenant_by_domain")
reserved_slug = declare_lookup(Base.metadata, Lookup("reserved_slug", "reserved_slugs", "slug", ("held_by",)))
