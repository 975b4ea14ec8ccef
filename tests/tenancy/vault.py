"""Models with encrypted columns of every shape, and a database of theirs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import MetaData, Text, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from tenancy.directory import TenantMixin
from tenancy.encryption import DataKeyMixin, EncryptedJSON, LocalKeys, MasterKeys, Wrapped, encrypted_column
from tenancy.encryption.stores import Context
from tenancy.errors import KeyStoreError
from tenancy.rls import guard_sql, guarded, install_sql
from tenancy.tables import TenantForeignKey, TenantTable, registry_table
from tests.conftest import ROLES, bootstrap


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention={"ck": "ck_%(table_name)s_%(constraint_name)s"})


@registry_table(app_update=("name", "updated_at"))
class Tenant(TenantMixin, Base):
    __tablename__ = "tenants"


class DataKey(DataKeyMixin, TenantTable, Base):
    __tablename__ = "data_keys"


class Patient(TenantTable, Base):
    __tablename__ = "patients"
    name: Mapped[str] = mapped_column(Text)
    note: Mapped[str | None] = encrypted_column()
    remark: Mapped[str | None] = encrypted_column()
    results: Mapped[dict[str, Any] | None] = encrypted_column(EncryptedJSON())


class Letter(TenantTable, Base):
    """With a column that had another name, and one that is read when it is asked for."""

    __tablename__ = "letters"
    patient_id: Mapped[UUID | None]
    body: Mapped[str] = encrypted_column(label="patients.note", deferred=True)
    __table_args__ = (TenantForeignKey("patient_id", "patients"),)


class Visit(TenantTable, Base):
    """Its ids are the server's to make."""

    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)  # type: ignore[assignment]
    reason: Mapped[str | None] = encrypted_column()


class CountingKeys(LocalKeys):
    """Local keys that can be taken away, and count what they are asked."""

    def __init__(self) -> None:
        self.keys = MasterKeys.generate("first")
        self.is_down = False
        self.wraps = self.unwraps = 0
        super().__init__(self._now)

    def _now(self) -> MasterKeys:
        if self.is_down:
            raise KeyStoreError("the key store is down", hint="wait")
        return self.keys

    def wrap(self, plain: bytes, *, context: Context) -> Wrapped:
        self.wraps += 1
        return super().wrap(plain, context=context)

    def unwrap(self, wrapped: Wrapped, *, context: Context) -> bytes:
        self.unwraps += 1
        return super().unwrap(wrapped, context=context)


def build(url: str) -> None:
    """Create the tables in a new database, as the owner would."""
    bootstrap(url, tables=False)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {ROLES.owner}")
        for statement in install_sql(ROLES):
            connection.execute(text(statement))
        Base.metadata.create_all(connection)
        for table in guarded(Base.metadata):
            for statement in guard_sql(table, ROLES):
                connection.execute(text(statement))
