"""Tables of every shape that the test kit has to make rows for, and could trip over."""

from __future__ import annotations

import enum
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Connection,
    Date,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    Time,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    create_engine,
    func,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import (
    BIT,
    CIDR,
    DATERANGE,
    INET,
    INT4MULTIRANGE,
    INT4RANGE,
    JSON,
    JSONB,
    MACADDR,
    MACADDR8,
    MONEY,
    NUMRANGE,
    OID,
    TSTZRANGE,
    TSVECTOR,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from tenancy.directory import TenantMixin
from tenancy.rls import guard_sql, guarded, install_sql
from tenancy.tables import (
    TENANT_KEY,
    TenantForeignKey,
    TenantTable,
    TenantUnique,
    platform_table,
    tenant_column,
    tenant_relationship,
)
from tests.conftest import ROLES, Database


class OddBase(DeclarativeBase):
    metadata = MetaData()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Reversed(TypeDecorator[str]):
    """Stored backwards: what is read back is what was given, and not what is there."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: object) -> str | None:
        return None if value is None else value[::-1]

    process_result_value = process_bind_param


class Tenant(TenantMixin, OddBase):
    __tablename__ = "tenants"


@platform_table(reason="a catalog that a migration fills")
class Country(OddBase):
    __tablename__ = "countries"
    code: Mapped[str] = mapped_column(String(2), primary_key=True)


@platform_table(reason="a catalog that nobody has filled")
class Currency(OddBase):
    __tablename__ = "currencies"
    code: Mapped[str] = mapped_column(String(3), primary_key=True)
    country_code: Mapped[str] = mapped_column(ForeignKey("countries.code"))


class Everything(TenantTable, OddBase):
    """A column of each type."""

    __tablename__ = "everything"
    short: Mapped[str] = mapped_column(String(12))
    long: Mapped[str] = mapped_column(Text)
    backwards: Mapped[str] = mapped_column(Reversed)
    colour: Mapped[Colour] = mapped_column(Enum(Colour))
    plain_colour: Mapped[str] = mapped_column(Enum("red", "blue", name="plain_colour"))
    checked: Mapped[str] = mapped_column(Text)
    small: Mapped[int] = mapped_column(SmallInteger)
    big: Mapped[int] = mapped_column(BigInteger)
    price: Mapped[Decimal] = mapped_column(Numeric(4, 2))
    ratio: Mapped[float] = mapped_column(Double)
    flag: Mapped[bool] = mapped_column(Boolean)
    day: Mapped[Any] = mapped_column(Date)
    moment: Mapped[Any] = mapped_column(DateTime(timezone=True))
    local_moment: Mapped[Any] = mapped_column(DateTime)
    clock: Mapped[Any] = mapped_column(Time)
    span: Mapped[Any] = mapped_column(Interval)
    token: Mapped[UUID] = mapped_column(Uuid)
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    json: Mapped[Any] = mapped_column(JSON)
    jsonb: Mapped[Any] = mapped_column(JSONB)
    numbers: Mapped[Any] = mapped_column(ARRAY(Integer))
    grid: Mapped[Any] = mapped_column(ARRAY(Text, dimensions=2))
    address: Mapped[Any] = mapped_column(INET)
    network: Mapped[Any] = mapped_column(CIDR)
    card: Mapped[Any] = mapped_column(MACADDR)
    long_card: Mapped[Any] = mapped_column(MACADDR8)
    bits: Mapped[Any] = mapped_column(BIT(4))
    money: Mapped[Any] = mapped_column(MONEY)
    oid: Mapped[Any] = mapped_column(OID)
    words: Mapped[Any] = mapped_column(TSVECTOR)
    ints: Mapped[Any] = mapped_column(INT4RANGE)
    many_ints: Mapped[Any] = mapped_column(INT4MULTIRANGE)
    numerics: Mapped[Any] = mapped_column(NUMRANGE)
    days: Mapped[Any] = mapped_column(DATERANGE)
    times: Mapped[Any] = mapped_column(TSTZRANGE)
    doubled: Mapped[int] = mapped_column(Integer, Computed("small * 2", persisted=True))
    made_at: Mapped[Any] = mapped_column(DateTime(timezone=True), server_default=func.now(), onupdate=func.now())
    defaulted: Mapped[str] = mapped_column(Text, default="by Python")
    currency_code: Mapped[str | None] = mapped_column(ForeignKey("currencies.code"))
    __table_args__ = (CheckConstraint("checked IN ('low', 'high')", name="checked_known"), TenantUnique("token"))


class Plan(TenantTable, OddBase):
    """Many to a tenant, and one of them the default."""

    __tablename__ = "plans"
    is_default: Mapped[bool] = mapped_column(Boolean)
    __table_args__ = (Index("one_default", TENANT_KEY, unique=True, postgresql_where=sql("is_default")),)


class Settings(OddBase):
    """One row a tenant: its key is the tenant."""

    __tablename__ = "settings"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.tenant_id"), primary_key=True)
    theme: Mapped[str] = mapped_column(Text)


class Invoice(TenantTable, OddBase):
    """Counted by the server, who lets nobody else do it."""

    __tablename__ = "invoices"
    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)  # type: ignore[assignment]
    number: Mapped[int] = mapped_column(Integer)
    __table_args__ = (TenantUnique("number"),)


class InvoiceLine(TenantTable, OddBase):
    """Keeps its invoice from being deleted."""

    __tablename__ = "invoice_lines"
    id: Mapped[int] = mapped_column(primary_key=True)  # type: ignore[assignment]
    invoice_id: Mapped[int]
    invoice: Mapped[Invoice] = tenant_relationship("invoice_id")
    __table_args__ = (TenantForeignKey("invoice_id", "invoices", ondelete="RESTRICT"),)


class Passport(TenantTable, OddBase):
    """One for each holder: a foreign key that is unique."""

    __tablename__ = "passports"
    holder_id: Mapped[UUID]
    __table_args__ = (TenantForeignKey("holder_id", "holders", ondelete="CASCADE"), TenantUnique("holder_id"))


class Stamp(TenantTable, OddBase):
    """One for each passport, which takes a passport of its own for each new row."""

    __tablename__ = "stamps"
    passport_id: Mapped[UUID]
    __table_args__ = (TenantForeignKey("passport_id", "passports"), TenantUnique("passport_id"))


class Holder(TenantTable, OddBase):
    """Told apart by their kind; with a favourite that belongs to it in turn."""

    __tablename__ = "holders"
    kind: Mapped[str] = mapped_column(Text)
    favourite_id: Mapped[UUID | None]
    __table_args__ = (TenantForeignKey("favourite_id", "things", name="favourite", use_alter=True),)
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "holder"}


class Institution(Holder):
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "institution"}


class Thing(TenantTable, OddBase):
    __tablename__ = "things"
    holder_id: Mapped[UUID]
    part_of_id: Mapped[UUID | None]
    part_of: Mapped[Thing | None] = tenant_relationship("part_of_id")
    __table_args__ = (TenantForeignKey("holder_id", "holders"), TenantForeignKey("part_of_id", "things"))


class Shelf(TenantTable, OddBase):
    """In another schema, under the name of a table of this one."""

    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)  # type: ignore[assignment]
    label: Mapped[str] = mapped_column(Text)
    thing_id: Mapped[UUID]
    __table_args__ = (TenantForeignKey("thing_id", "things"), {"schema": "archive"})


class Node(TenantTable, OddBase):
    """Has a parent always: the first is its own."""

    __tablename__ = "nodes"
    parent_id: Mapped[UUID]
    __table_args__ = (TenantForeignKey("parent_id", "nodes"),)


class Egg(TenantTable, OddBase):
    """Needs its hen, who needs her egg: only a deferred constraint lets either be first."""

    __tablename__ = "eggs"
    hen_id: Mapped[UUID]
    __table_args__ = (TenantForeignKey("hen_id", "hens", name="egg_of", deferrable=True, initially="DEFERRED"),)


class Hen(TenantTable, OddBase):
    __tablename__ = "hens"
    egg_id: Mapped[UUID]
    __table_args__ = (
        TenantForeignKey("egg_id", "eggs", name="hen_of", deferrable=True, initially="DEFERRED", use_alter=True),
    )


class Entry(TenantTable, OddBase):
    """Append-only, by a trigger."""

    __tablename__ = "entries"
    what: Mapped[str] = mapped_column(Text)


@platform_table(reason="kept by a trigger for those who run the program; no role is granted anything")
class Tally(OddBase):
    __tablename__ = "tallies"
    table_name: Mapped[str] = mapped_column(Text, primary_key=True)
    changes: Mapped[int]


@platform_table(reason="the tenants of a program that had them before")
class Organisation(OddBase):
    __tablename__ = "organisations"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(Text, unique=True)


class Period(OddBase):
    """Points at its tenant by a key of another name; ends after it starts; named by what else is in it."""

    __tablename__ = "periods"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("organisations.id"), primary_key=True)
    code: Mapped[str] = mapped_column(String(2), primary_key=True)
    starts_on: Mapped[date] = mapped_column(Date)
    ends_on: Mapped[date] = mapped_column(Date)
    label: Mapped[str] = mapped_column(Text, default=lambda context: context.get_current_parameters()["code"] + "!")
    __table_args__ = (CheckConstraint("ends_on > starts_on", name="ends_later"),)


unmapped = Table(
    "unmapped links",
    OddBase.metadata,
    tenant_column(),
    Column("left id", Uuid, primary_key=True),
    Column("invoice_id", Integer, primary_key=True),
    Column("note", Text),
    TenantForeignKey("left id", "everything", ondelete="CASCADE"),
    TenantForeignKey("invoice_id", "invoices"),
)
keyless = Table(
    "keyless",
    OddBase.metadata,
    Column(TENANT_KEY, Uuid, nullable=False),
    Column("code", Text),
    UniqueConstraint(TENANT_KEY, "code"),
)

_TRIGGERS = (
    "CREATE FUNCTION public.refuse_entry() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'entries stay'; END $$",
    "CREATE TRIGGER stay BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION public.refuse_entry()",
    "CREATE FUNCTION public.note_entry() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN INSERT INTO public.entries (tenant_id, id, what) VALUES (NEW.tenant_id, gen_random_uuid(), 'thing');"
    " RETURN NEW; END $$",
    "CREATE TRIGGER note AFTER INSERT ON things FOR EACH ROW EXECUTE FUNCTION public.note_entry()",
    "CREATE FUNCTION public.tally() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
    "$$ BEGIN INSERT INTO public.tallies VALUES (TG_TABLE_NAME, 1)"
    " ON CONFLICT (table_name) DO UPDATE SET changes = tallies.changes + 1; RETURN NULL; END $$",
    "CREATE TRIGGER tally AFTER INSERT OR UPDATE OR DELETE ON things FOR EACH ROW EXECUTE FUNCTION public.tally()",
)


def make_odd_tables(database: Database) -> None:
    """Create the tables as the owner, with their policies, in a database that has the roles and nothing else."""
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {ROLES.owner}")
        _send(connection, install_sql(ROLES))
        _send(connection, ["CREATE SCHEMA archive", f"GRANT USAGE ON SCHEMA archive TO {ROLES.app}"])
        OddBase.metadata.create_all(connection)
        for table in guarded(OddBase.metadata):
            _send(connection, guard_sql(table, ROLES))
        _send(connection, _TRIGGERS)
        _send(connection, [f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {ROLES.app}"])
        _send(connection, ["INSERT INTO countries (code) VALUES ('DE')"])


def _send(connection: Connection, statements: Any) -> None:
    for statement in statements:
        connection.execute(sql(statement.replace(":", r"\:")))
