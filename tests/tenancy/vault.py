"""Models with encrypted columns of every shape, and a database of theirs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import MetaData, Text, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import NullPool

from tenancy.binding import create_tenant_engine
from tenancy.context import platform_scope, tenant_scope
from tenancy.directory import TenantMixin
from tenancy.embedded import Server, Template, make_template
from tenancy.encryption import DataKeyMixin, EncryptedJSON, Keyring, LocalKeys, MasterKeys, Wrapped, encrypted_column
from tenancy.encryption.stores import Context
from tenancy.errors import KeyStoreError
from tenancy.rls import guard_sql, guarded, install_sql
from tenancy.session import TenantSession, tenant_sessionmaker
from tenancy.tables import TenantForeignKey, TenantTable, new_id, registry_table
from tests.conftest import ROLES, Database, bootstrap


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


@dataclass(frozen=True)
class Vault:
    """A database with these tables, and all that reaches it. `truth` is a superuser's connection, in autocommit."""

    database: Database
    store: CountingKeys
    keyring: Keyring
    sessions: sessionmaker[TenantSession]
    staff: sessionmaker[TenantSession]
    truth: psycopg.Connection[tuple[Any, ...]]

    @contextmanager
    def acting(self, tenant: UUID) -> Iterator[TenantSession]:
        """A session of the tenant, committed at the end."""
        with tenant_scope(tenant), self.sessions.begin() as session:
            yield session

    @contextmanager
    def as_staff(self, tenant: UUID) -> Iterator[TenantSession]:
        """A session of the platform in the tenant, which commits by itself."""
        with platform_scope(actor="ana", reason="test"), tenant_scope(tenant), self.staff() as session:
            yield session

    def add(self, tenant: UUID, note: str | None = "a secret", **values: Any) -> UUID:
        with self.acting(tenant) as session:
            patient = Patient(id=new_id(), name="Ada", note=note, **values)
            session.add(patient)
            return patient.id

    def read(self, tenant: UUID, patient_id: UUID) -> Any:
        with self.acting(tenant) as session:
            return session.get_one(Patient, patient_id).note

    def stored(self, patient_id: UUID, column: str = "note") -> bytes:
        row = self.truth.execute(f"SELECT {column} FROM patients WHERE id = %s", [patient_id]).fetchone()
        assert row is not None
        return bytes(row[0])

    def another(self) -> Keyring:
        """The keyring of another process, with the same store; it serves no session yet."""
        return Keyring(DataKey, self.store)


def vault_template(server: Server) -> Template:
    sources = [*Path("tenancy/rls").glob("*.py"), Path("tenancy/encryption/models.py"), Path(__file__)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()[:12]
    return make_template(server, f"vault_{digest}", build)


@contextmanager
def open_vault(server: Server, worker: str, **options: Any) -> Iterator[Vault]:
    """A vault of the test's own. options: those of its keyring."""
    template = vault_template(server)
    database = Database(server, template.clone(f"vault_{worker}"))
    engines = [create_tenant_engine(database.url(role)) for role in (ROLES.app, ROLES.platform)]
    store = CountingKeys()
    keyring = Keyring(DataKey, store, **options)
    sessions, staff = (tenant_sessionmaker(engine) for engine in engines)
    keyring.serve(sessions, staff)
    with database.connect("postgres") as truth:
        truth.autocommit = True
        yield Vault(database, store, keyring, sessions, staff, truth)
    for engine in engines:
        engine.dispose()
    template.drop(database.name)
