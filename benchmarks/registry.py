"""A database as an application has it: tenants, companies and people, their policies, and the lookups."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped
from sqlalchemy.pool import NullPool

from benchmarks.bench import ROLES, Bench, as_owner, send
from tenancy import TenantForeignKey, TenantMixin, TenantTable, TenantUnique
from tenancy.lookups import lookups_of
from tenancy.rls import create_lookup_sql, guard_sql, guarded


class Base(DeclarativeBase):
    """Of the tables that every tenant shares."""


class Tenant(TenantMixin, Base):
    __tablename__ = "tenants"


class Company(TenantTable, Base):
    __tablename__ = "companies"
    name: Mapped[str]


class Person(TenantTable, Base):
    __tablename__ = "people"
    name: Mapped[str]
    email: Mapped[str]
    company_id: Mapped[UUID | None]
    __table_args__ = (TenantForeignKey("company_id", "companies"), TenantUnique("email"))


def build(bench: Bench, database: str, *, tenants: int = 10, people: int = 10) -> list[tuple[UUID, UUID]]:
    """Make the tables and fill them; return some tenants, each with one of its people."""
    bench.prepare(database)
    bench.login(ROLES.app)
    engine = create_engine(bench.socket_url("postgres", database), poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {ROLES.owner}")
        Base.metadata.create_all(connection)
    with bench.admin(database) as admin:
        send(
            admin,
            [
                "INSERT INTO tenants (tenant_id, slug, name, status) "
                f"SELECT uuidv7(), 'tenant-' || n, 'Tenant ' || n, 'active' FROM generate_series(1, {tenants}) n",
                "INSERT INTO people (tenant_id, id, name, email) "
                "SELECT tenant_id, uuidv7(), 'Ada Lovelace', n || '@bench.test' "
                f"FROM tenants, generate_series(1, {people}) n",
            ],
        )
        with as_owner(admin):
            for table in guarded(Base.metadata):
                send(admin, guard_sql(table, ROLES))
            for lookup in lookups_of(Base.metadata):
                send(admin, create_lookup_sql(lookup, ROLES))
        # For the part that measures memory: a membership, which would do, is refused by the library.
        send(
            admin,
            [
                f"GRANT SELECT ON pg_backend_memory_contexts TO {ROLES.app}",
                f"GRANT EXECUTE ON FUNCTION pg_get_backend_memory_contexts() TO {ROLES.app}",
                "VACUUM ANALYZE",
                "CHECKPOINT",
            ],
        )
        some = admin.execute(
            "SELECT tenant_id, (SELECT p.id FROM people p WHERE p.tenant_id = t.tenant_id LIMIT 1) FROM tenants t "
            "ORDER BY md5(slug) LIMIT 1000"
        ).fetchall()
    return [(tenant, person) for tenant, person in some]
