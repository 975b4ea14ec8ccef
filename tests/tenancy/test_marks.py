"""What a model says of its table's grants, and tables of platform staff: held by the database, T129."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import platform_scope, tenant_scope
from tenancy.doctor.catalog import examine_catalog
from tenancy.doctor.findings import Subject
from tenancy.errors import ModelError, PlatformAccessError
from tenancy.lookups import Lookup, declare_lookup
from tenancy.session import TenantSession, platform_sessionmaker, tenant_sessionmaker
from tenancy.tables import (
    TenantTable,
    check_metadata,
    limit_grants,
    platform_table,
    registry_table,
    staff_table,
)
from tenancy.testing.matrix import Matrix, cells
from tenancy.testing.world import seed
from tests.conftest import ROLES, Database
from tests.tenancy.migrations import EMPTY, Project

REFUSED, READ_ONLY = "42501", "25006"
ACME, GLOBEX = UUID("0190f5f1-0000-7000-8000-00000000000a"), UUID("0190f5f1-0000-7000-8000-00000000000b")


class Base(DeclarativeBase):
    metadata = MetaData()


@limit_grants(app=("SELECT", "INSERT"), platform=("SELECT", "INSERT", "DELETE"))
class Event(TenantTable, Base):
    __tablename__ = "events"
    what: Mapped[str]


@limit_grants(app=("SELECT",))
class Limit(TenantTable, Base):
    __tablename__ = "limits"
    seats: Mapped[int]


@staff_table(reason="staff belong to no tenant")
class StaffMember(Base):
    __tablename__ = "staff_members"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)


STAFF_OF_EMAIL = declare_lookup(Base.metadata, Lookup("staff_of_email", "staff_members", "email", ("id",)))


@pytest.fixture
def project(tmp_path: Path, empty_database: Database) -> Project:
    project = Project(tmp_path, empty_database)
    project.generate(Base.metadata)
    project.upgrade()
    return project


@pytest.fixture
def engine(project: Project) -> Iterator[Engine]:
    engine = create_tenant_engine(project.database.url(ROLES.app))
    yield engine
    engine.dispose()


@pytest.fixture
def platform(project: Project) -> Iterator[Engine]:
    engine = create_tenant_engine(project.database.url(ROLES.platform))
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[TenantSession]:
    return tenant_sessionmaker(engine)


@pytest.fixture
def truth(project: Project) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with project.database.connect("postgres") as connection:
        connection.autocommit = True
        yield connection


def sqlstate(caught: pytest.ExceptionInfo[DBAPIError]) -> str | None:
    return getattr(caught.value.orig, "sqlstate", None)


# Less than everything -----------------------------------------------------------------------------------


def test_append_only_table_is_added_to_and_never_changed(sessions: sessionmaker[TenantSession]) -> None:
    with tenant_scope(ACME), sessions.begin() as session:
        session.add(Event(what="signed in"))

    for statement in (update(Event).values(what="nothing"), delete(Event)):
        with tenant_scope(ACME), sessions() as session, pytest.raises(DBAPIError) as caught:
            session.execute(statement)
        assert sqlstate(caught) == REFUSED
    with tenant_scope(ACME), sessions() as session:
        assert session.scalars(select(Event.what)).all() == ["signed in"]


def test_tenant_reads_its_limit_and_only_staff_write_it(
    sessions: sessionmaker[TenantSession], platform: Engine
) -> None:
    staff_sessions = tenant_sessionmaker(platform)
    with platform_scope(actor="ana", reason="bought more"), tenant_scope(ACME), staff_sessions.begin() as session:
        session.add(Limit(seats=5))

    for statement in (
        update(Limit).values(seats=500),
        delete(Limit),
        insert(Limit).values(tenant_id=ACME, id=uuid7(), seats=500),
    ):
        with tenant_scope(ACME), sessions() as session, pytest.raises(DBAPIError) as caught:
            session.execute(statement)
        assert sqlstate(caught) == REFUSED
    with tenant_scope(ACME), sessions() as session:
        assert session.scalars(select(Limit.seats)).all() == [5]


def test_staff_may_do_no_more_than_their_own_grants(sessions: sessionmaker[TenantSession], platform: Engine) -> None:
    with tenant_scope(ACME), sessions.begin() as session:
        session.add(Event(what="signed in"))
    staff_sessions = tenant_sessionmaker(platform)

    with (
        platform_scope(actor="ana", reason="tidy up"),
        tenant_scope(ACME),
        staff_sessions() as session,
        pytest.raises(DBAPIError) as caught,
    ):
        session.execute(update(Event).values(what="nothing"))
    with platform_scope(actor="ana", reason="retention"), tenant_scope(ACME), staff_sessions.begin() as session:
        removed = session.execute(delete(Event).returning(Event.what)).scalars().all()

    assert sqlstate(caught) == REFUSED
    assert removed == ["signed in"]


# Platform staff -----------------------------------------------------------------------------------------


@pytest.fixture
def ana(platform: Engine) -> UUID:
    made = uuid7()
    with (
        platform_scope(actor="setup", reason="the first of staff", reads_only=False),
        platform_sessionmaker(platform).begin() as session,
    ):
        session.add(StaffMember(id=made, email="ana@staff.test"))
    return made


def test_staff_table_opens_in_a_platform_scope_only(ana: UUID, platform: Engine) -> None:
    platform_sessions = platform_sessionmaker(platform)
    with platform_scope(actor="ana", reason="list staff"), platform_sessions() as session:
        assert session.scalars(select(StaffMember.id)).all() == [ana]

    with pytest.raises(PlatformAccessError), platform_sessions():
        pass
    with (
        platform_scope(actor="ana", reason="one tenant"),
        tenant_scope(ACME),
        tenant_sessionmaker(platform)() as session,
    ):
        assert session.connection().execute(select(StaffMember.__table__)).all() == []


def test_staff_table_shows_the_platform_role_nothing_by_plain_sql(ana: UUID, project: Project) -> None:
    assert ana
    with project.database.connect(ROLES.platform) as connection:
        assert connection.execute("SELECT * FROM staff_members").fetchall() == []
        assert connection.execute("UPDATE staff_members SET email = 'x'").rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO staff_members VALUES (gen_random_uuid(), 'eve@staff.test')")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM staff_members",
        "INSERT INTO staff_members VALUES (gen_random_uuid(), 'eve@staff.test')",
        "UPDATE staff_members SET email = 'x'",
        "DELETE FROM staff_members",
    ],
)
def test_tenant_cannot_reach_a_staff_table(ana: UUID, sessions: sessionmaker[TenantSession], statement: str) -> None:
    assert ana
    with tenant_scope(ACME), sessions() as session, pytest.raises(DBAPIError) as caught:
        session.execute(text(statement))

    assert sqlstate(caught) == REFUSED


def test_lookup_reads_a_staff_table_by_exact_key(ana: UUID, engine: Engine) -> None:
    with engine.connect() as connection:
        assert [row.id for row in STAFF_OF_EMAIL.fetch(connection, "ana@staff.test")] == [ana]
        assert STAFF_OF_EMAIL.fetch(connection, "nobody@staff.test") == []


def test_platform_scope_writes_staff_tables_only_when_told_to(ana: UUID, platform: Engine) -> None:
    change = update(StaffMember).where(StaffMember.id == ana).values(email="anna@staff.test")
    platform_sessions = platform_sessionmaker(platform)

    with (
        platform_scope(actor="ana", reason="new name"),
        platform_sessions() as session,
        pytest.raises(DBAPIError) as caught,
    ):
        session.execute(change)
    with platform_scope(actor="ana", reason="new name", reads_only=False), platform_sessions.begin() as session:
        changed = session.execute(change.returning(StaffMember.email)).scalars().all()

    assert sqlstate(caught) == READ_ONLY
    assert changed == ["anna@staff.test"]


def test_writing_platform_scope_cannot_write_tenants_rows(
    sessions: sessionmaker[TenantSession], platform: Engine, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    """T129"""
    with tenant_scope(ACME), sessions.begin() as session:
        session.add(Event(what="signed in"))
    platform_sessions = platform_sessionmaker(platform)

    with platform_scope(actor="ana", reason="too much", reads_only=False), platform_sessions.begin() as session:
        seen = session.scalars(select(Event.what)).all()
        deleted = session.execute(delete(Event).returning(Event.id)).all()
    with (
        platform_scope(actor="ana", reason="too much", reads_only=False),
        platform_sessions() as session,
        pytest.raises(DBAPIError) as caught,
    ):
        session.execute(insert(Event).values(tenant_id=GLOBEX, id=uuid7(), what="made up"))

    assert seen == ["signed in"]
    assert deleted == []
    assert sqlstate(caught) == REFUSED
    assert truth.execute("SELECT what FROM events").fetchall() == [("signed in",)]


# What derives from it ----------------------------------------------------------------------------------


def test_every_cell_of_limited_and_staff_tables_holds(project: Project) -> None:
    world = seed(Base.metadata, project.database.url)
    matrix = Matrix(world)

    verdicts = [matrix.run(cell) for cell in cells(Base.metadata)]

    matrix.close()
    world.close()
    assert [f"{v.cell}: {v.expected} / {v.found} {v.detail}" for v in verdicts if not v.passed] == []
    assert Counter(verdict.cell.table for verdict in verdicts) == {"events": 107, "limits": 102, "staff_members": 5}


def test_widened_grant_turns_the_matrix_red(project: Project, truth: psycopg.Connection[tuple[object, ...]]) -> None:
    truth.execute(f"GRANT SELECT ON staff_members TO {ROLES.app}; GRANT DELETE ON events TO {ROLES.app}")
    world = seed(Base.metadata, project.database.url)
    matrix = Matrix(world)

    red = {(cell.table, cell.verb) for cell in cells(Base.metadata) if not matrix.run(cell).passed}

    matrix.close()
    world.close()
    assert red == {
        ("staff_members", "staff_only"),
        ("staff_members", "policies"),
        ("events", "policies"),
        ("events", "delete_by_key"),
        ("events", "delete_all"),
    }


def test_generated_migration_says_what_the_model_says_and_settles(project: Project) -> None:
    assert project.generate(Base.metadata).count(EMPTY) == 2


def test_model_that_changes_its_limits_is_guarded_anew(project: Project) -> None:
    wider = MetaData()
    for table in Base.metadata.sorted_tables:
        table.to_metadata(wider)
    limit_grants(app=("SELECT", "INSERT", "DELETE"))(wider.tables["events"])
    declare_lookup(wider, STAFF_OF_EMAIL)

    written = project.generate(wider)
    project.upgrade()
    settled = project.generate(wider)

    assert "op.reguard_table('events'" in written
    assert "app=['SELECT', 'INSERT', 'DELETE']" in written
    assert settled.count(EMPTY) == 2


def test_tables_dropped_and_made_again_by_a_downgrade_have_their_limits(
    project: Project, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    only_limits = MetaData()
    Base.metadata.tables["limits"].to_metadata(only_limits)
    project.generate(only_limits)
    project.upgrade()
    gone = truth.execute("SELECT to_regclass('events'), to_regclass('staff_members')").fetchone()

    project.downgrade()

    assert gone == (None, None)
    assert project.differences(Base.metadata) == []


def test_doctor_finds_nothing_and_then_the_grant_that_was_widened(project: Project) -> None:
    admin = create_engine(project.database.url("postgres"), poolclass=NullPool)
    names = ("events", "limits", "staff_members")

    with admin.connect() as connection:
        before = list(examine_catalog(Subject(connection=connection, metadata=Base.metadata)))
        connection.execute(text(f"GRANT UPDATE ON events TO {ROLES.app}; GRANT SELECT ON staff_members TO {ROLES.app}"))
        after = list(examine_catalog(Subject(connection=connection, metadata=Base.metadata)))

    assert [finding for finding in before if any(name in finding.object_name for name in names)] == []
    assert {finding.rule.id for finding in after} - {finding.rule.id for finding in before} == {"TEN108", "TEN110"}


# Bad declarations ---------------------------------------------------------------------------------------


def test_privilege_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ModelError, match="'TRUNCATE' is no privilege"):
        limit_grants(app=("SELECT", "TRUNCATE"))  # type: ignore[arg-type]  # what is refused


def test_limits_without_select_are_refused() -> None:
    with pytest.raises(ModelError, match=r"platform=.*SELECT is missing"):
        limit_grants(app=("SELECT",), platform=("INSERT",))


def test_staff_table_needs_a_reason() -> None:
    with pytest.raises(ModelError, match="without a reason"):
        staff_table(reason=" ")


@pytest.mark.parametrize("mark", [platform_table(reason="countries"), staff_table(reason="staff's")])
def test_limits_are_for_tables_of_tenants_and_accounts(mark: Callable[[Table], Table]) -> None:
    things = Table("things", MetaData(), Column("id", Integer, primary_key=True))
    limit_grants(app=("SELECT",))(mark(things))

    with pytest.raises(ModelError, match="limit_grants, which is for tables of tenants and of accounts"):
        check_metadata(things.metadata)


def test_registry_takes_no_limits() -> None:
    class Own(DeclarativeBase):
        metadata = MetaData()

    class Tenant(TenantTable, Own):
        __tablename__ = "tenants"

    limit_grants(app=("SELECT",))(registry_table(app_update=())(Tenant))

    with pytest.raises(ModelError, match="registry table 'tenants' has limit_grants"):
        check_metadata(Own.metadata)


def test_staff_table_has_no_tenant() -> None:
    class Own(DeclarativeBase):
        metadata = MetaData()

    class Thing(TenantTable, Own):
        __tablename__ = "things"

    staff_table(reason="staff's")(Thing)

    with pytest.raises(ModelError, match="marked as a staff table but has a tenant_id"):
        check_metadata(Own.metadata)
