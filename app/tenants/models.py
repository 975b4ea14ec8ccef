"""The registry of tenants, and their custom domains."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import ForeignKeyConstraint, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Timestamped, one_of
from tenancy.directory import DomainMixin, TenantMixin
from tenancy.lookups import lookups_of
from tenancy.tables import TenantTable


class Plan(StrEnum):
    """What a tenant bought."""

    BASIC = "basic"
    PREMIUM = "premium"
    ENTERPRISE = "enterprise"
    CUSTOM = "custom"


class Tenant(TenantMixin, Base):
    """One customer organisation. Status, plan and slug change through the platform only."""

    __tablename__ = "tenants"
    __table_args__ = (one_of("plan", Plan),)
    __directory_columns__ = ("plan",)

    plan: Mapped[str] = mapped_column(Text)


class Domain(TenantTable, Timestamped, DomainMixin, Base):
    """A domain a tenant claims as its own; it leads to the tenant once `verified_at` is set."""

    __tablename__ = "domains"
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),)


tenant_by_slug = next(lookup for lookup in lookups_of(Base.metadata) if lookup.name == "tenant_by_slug")
