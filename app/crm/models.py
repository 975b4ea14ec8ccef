"""People, companies and opportunities."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Date, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Timestamped, one_of
from tenancy.tables import TenantForeignKey, TenantIndex, TenantTable, TenantUnique, tenant_relationship


class Stage(StrEnum):
    """How far an opportunity has come."""

    LEAD = "lead"
    QUALIFIED = "qualified"
    PROPOSAL = "proposal"
    WON = "won"
    LOST = "lost"


class Company(TenantTable, Timestamped, Base):
    """A firm the tenant deals with."""

    __tablename__ = "companies"
    __table_args__ = (TenantIndex("name"), TenantIndex("created_at"))

    name: Mapped[str] = mapped_column(Text)
    website: Mapped[str | None] = mapped_column(Text)
    people: Mapped[list[Person]] = tenant_relationship(
        "Person.company_id", back_populates="company", passive_deletes=True
    )
    opportunities: Mapped[list[Opportunity]] = tenant_relationship(
        "Opportunity.company_id", back_populates="company", passive_deletes=True
    )


class Person(TenantTable, Timestamped, Base):
    """A person the tenant deals with."""

    __tablename__ = "people"
    __table_args__ = (
        TenantForeignKey("company_id", "companies", ondelete="SET NULL"),
        TenantUnique("email"),
        TenantIndex("company_id"),
        TenantIndex("name"),
        TenantIndex("created_at"),
    )

    name: Mapped[str] = mapped_column(Text)
    email: Mapped[str | None] = mapped_column(Text)
    phone: Mapped[str | None] = mapped_column(Text)
    company_id: Mapped[UUID | None] = mapped_column(Uuid)
    company: Mapped[Company | None] = tenant_relationship("company_id", back_populates="people")


class Opportunity(TenantTable, Timestamped, Base):
    """A deal the tenant hopes to close."""

    __tablename__ = "opportunities"
    __table_args__ = (
        TenantForeignKey("company_id", "companies", ondelete="SET NULL"),
        TenantForeignKey("person_id", "people", ondelete="SET NULL"),
        TenantIndex("company_id"),
        TenantIndex("person_id"),
        TenantIndex("stage"),
        TenantIndex("created_at"),
        one_of("stage", Stage),
        CheckConstraint("amount_cents >= 0", name="amount_positive"),
    )

    name: Mapped[str] = mapped_column(Text)
    stage: Mapped[str] = mapped_column(Text)
    amount_cents: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(Text)
    closes_on: Mapped[date | None] = mapped_column(Date)
    company_id: Mapped[UUID | None] = mapped_column(Uuid)
    person_id: Mapped[UUID | None] = mapped_column(Uuid)
    company: Mapped[Company | None] = tenant_relationship("company_id", back_populates="opportunities")
    person: Mapped[Person | None] = tenant_relationship("person_id")
