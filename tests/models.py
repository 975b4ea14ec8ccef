"""The tables that the library's tests run on: every shape a model can take."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, DateTime, MetaData, String, Table, Text, UniqueConstraint, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenancy.directory import TenantMixin
from tenancy.lookups import Lookup, declare_lookup
from tenancy.tables import (
    TenantForeignKey,
    TenantIndex,
    TenantTable,
    TenantUnique,
    platform_table,
    registry_table,
    tenant_column,
    tenant_relationship,
)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


@registry_table(app_update=("name", "updated_at"))
class Tenant(TenantMixin, Base):
    __tablename__ = "tenants"


class Domain(TenantTable, Base):
    __tablename__ = "domains"
    domain: Mapped[str] = mapped_column(Text)
    verified_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    __table_args__ = (UniqueConstraint("domain", info={"across_tenants": "a domain serves one tenant"}),)


@platform_table(reason="a person signs in before choosing a tenant", account_key="id")
class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(Text, unique=True)


class Company(TenantTable, Base):
    __tablename__ = "companies"
    name: Mapped[str]
    people: Mapped[list[Person]] = tenant_relationship("Person.company_id", back_populates="company")
    __table_args__ = (TenantUnique("name"),)


class Person(TenantTable, Base):
    __tablename__ = "people"
    name: Mapped[str]
    email: Mapped[str]
    company_id: Mapped[UUID | None]
    manager_id: Mapped[UUID | None]
    company: Mapped[Company | None] = tenant_relationship("company_id", back_populates="people")
    manager: Mapped[Person | None] = tenant_relationship("manager_id", back_populates="reports")
    reports: Mapped[list[Person]] = tenant_relationship("Person.manager_id", back_populates="manager")
    tags: Mapped[list[Tag]] = tenant_relationship(secondary="person_tags", back_populates="people")
    __table_args__ = (
        TenantForeignKey("company_id", "companies", ondelete="SET NULL"),
        TenantForeignKey("manager_id", "people", ondelete="SET NULL"),
        TenantUnique("email"),
        TenantIndex("name"),
    )


class Tag(TenantTable, Base):
    __tablename__ = "tags"
    label: Mapped[str]
    people: Mapped[list[Person]] = tenant_relationship(secondary="person_tags", back_populates="tags")


class Note(TenantTable, Base):
    """Goes with its person when she is deleted."""

    __tablename__ = "notes"
    body: Mapped[str]
    person_id: Mapped[UUID]
    __table_args__ = (TenantForeignKey("person_id", "people", ondelete="CASCADE"),)


class Todo(TenantTable, Base):
    """A model that had its own serial key before it became a tenant table."""

    __tablename__ = "todos"
    id: Mapped[int] = mapped_column(  # type: ignore[assignment]
        primary_key=True, info={"across_tenants": "numbered before there were tenants"}
    )
    title: Mapped[str] = mapped_column(String(100))
    __table_args__ = (TenantIndex("title"),)  # the serial number leads its primary key


person_tags = Table(
    "person_tags",
    Base.metadata,
    tenant_column(),
    Column("person_id", Uuid, primary_key=True),
    Column("tag_id", Uuid, primary_key=True),
    TenantForeignKey("person_id", "people", ondelete="CASCADE"),
    TenantForeignKey("tag_id", "tags", ondelete="CASCADE"),
)

TENANT_BY_ID = declare_lookup(
    Base.metadata,
    Lookup("tenant_by_id", "tenants", "tenant_id", ("tenant_id", "slug", "name", "status"), key_type="uuid"),
)
TENANT_BY_SLUG = declare_lookup(
    Base.metadata, Lookup("tenant_by_slug", "tenants", "slug", ("tenant_id", "slug", "name", "status"))
)
TENANT_BY_DOMAIN = declare_lookup(
    Base.metadata, Lookup("tenant_by_domain", "domains", "domain", ("tenant_id",), requires=("verified_at",))
)
ACCOUNT_OF_EMAIL = declare_lookup(Base.metadata, Lookup("account_of_email", "accounts", "email", ("id",)))
