"""A real server, its real roles, and one database per worker, copied from a template built once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import current_scope, tenant_scope
from tenancy.embedded import Server, Template, find_server, make_template
from tenancy.lookups import lookups_of
from tenancy.rls import Roles, bootstrap_sql, create_lookup_sql, guard_sql, guarded, install_sql
from tenancy.session import PlatformSession, TenantSession, platform_sessionmaker, tenant_sessionmaker
from tests.models import Base, Company, Person

ROLES = Roles()
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@pytest.fixture(scope="session")
def worker(request: pytest.FixtureRequest) -> str:
    workerinput: dict[str, str] = getattr(request.config, "workerinput", {})
    return workerinput.get("workerid", "main")


@pytest.fixture(scope="session")
def server(worker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all workers of a run; it stops with the last of them."""
    base = tmp_path_factory.getbasetemp()
    run_folder = base if worker == "main" else base.parent
    with find_server(data_dir=run_folder / "postgres", settings=FAST) as found:
        yield found


@dataclass(frozen=True)
class Database:
    """A database with the roles, schema `tenancy` and the tests' tables."""

    server: Server
    name: str

    def url(self, role: str) -> str:
        return self.server.url(role=role, database=self.name)

    def connect(self, role: str) -> psycopg.Connection[tuple[object, ...]]:
        """Open a plain driver connection: what a person at `psql` would have."""
        url = make_url(self.url(role)).set(drivername="postgresql")
        return psycopg.connect(url.render_as_string(hide_password=False))


def bootstrap(url: str, *, tables: bool) -> None:
    """Create roles, schema `tenancy` and, if asked, the tests' tables, each as the role that would."""
    name = str(make_url(url).database)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in bootstrap_sql(ROLES, name):
            connection.execute(text(statement))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {ROLES.owner}")
        for statement in install_sql(ROLES) if tables else ():
            connection.execute(text(statement))
        if tables:
            create_tables(connection)


def create_tables(connection: Connection) -> None:
    Base.metadata.create_all(connection)
    for table in guarded(Base.metadata):
        for statement in guard_sql(table, ROLES):
            connection.execute(text(statement))
    for lookup in lookups_of(Base.metadata):
        for statement in create_lookup_sql(lookup, ROLES):
            connection.execute(text(statement))


@pytest.fixture(scope="session")
def template(server: Server) -> Template:
    return make_template(server, f"tests_{_digest()}", lambda url: bootstrap(url, tables=True))


@pytest.fixture(scope="session")
def empty_template(server: Server) -> Template:
    """A database that has the roles and nothing else: where a first migration starts."""
    return make_template(server, f"empty_{_digest()}", lambda url: bootstrap(url, tables=False))


def _digest() -> str:
    sources = [*Path("tenancy/rls").glob("*.py"), Path("tests/models.py"), Path("tenancy/directory/models.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()[:12]


@pytest.fixture(scope="session")
def database(template: Template, worker: str) -> Database:
    """The worker's database. Tests share it, and keep apart by making tenants of their own."""
    return Database(template.server, template.clone(f"test_{worker}"))


@pytest.fixture
def fresh_database(template: Template, worker: str) -> Iterator[Database]:
    """A database of the test's own, for tests that change tables, policies or grants."""
    name = template.clone(f"fresh_{worker}")
    yield Database(template.server, name)
    template.drop(name)


@pytest.fixture
def empty_database(empty_template: Template, worker: str) -> Iterator[Database]:
    name = empty_template.clone(f"empty_{worker}")
    yield Database(empty_template.server, name)
    empty_template.drop(name)


@pytest.fixture(scope="session")
def app_engine(database: Database) -> Iterator[Engine]:
    engine = create_tenant_engine(database.url(ROLES.app))
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def platform_engine(database: Database) -> Iterator[Engine]:
    engine = create_tenant_engine(database.url(ROLES.platform))
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def leak_detector() -> Iterator[None]:
    """Fail a test that leaves a scope open behind it, or starts inside one."""
    assert current_scope() is None, "an earlier test left its scope open"
    yield
    assert current_scope() is None, "this test left a scope open"


@pytest.fixture(scope="session")
def sessions(app_engine: Engine) -> sessionmaker[TenantSession]:
    return tenant_sessionmaker(app_engine)


@pytest.fixture(scope="session")
def platform_sessions(platform_engine: Engine) -> sessionmaker[PlatformSession]:
    return platform_sessionmaker(platform_engine)


@pytest.fixture
def truth(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A superuser's connection, past every policy: what is really in the tables. In autocommit."""
    with database.connect("postgres") as connection:
        connection.autocommit = True
        yield connection


@dataclass(frozen=True)
class SomeTenant:
    id: UUID
    slug: str


@pytest.fixture
def make_tenant(truth: psycopg.Connection[tuple[object, ...]]) -> Callable[..., SomeTenant]:
    def make(name: str, status: str = "active") -> SomeTenant:
        tenant = uuid7()
        slug = f"{name}-{tenant.hex[-8:]}"
        truth.execute(
            "INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, %s, %s, %s)",
            [tenant, slug, name.title(), status],
        )
        return SomeTenant(tenant, slug)

    return make


@pytest.fixture
def acme(make_tenant: Callable[..., SomeTenant]) -> SomeTenant:
    return make_tenant("acme")


@pytest.fixture
def globex(make_tenant: Callable[..., SomeTenant]) -> SomeTenant:
    return make_tenant("globex")


@pytest.fixture
def person_of(sessions: sessionmaker[Session]) -> Callable[..., UUID]:
    """Make a person in a tenant and return her id."""

    def make(tenant: SomeTenant, name: str = "Ada", **values: object) -> UUID:
        with tenant_scope(tenant.id), sessions.begin() as session:
            person = Person(name=name, email=f"{uuid7().hex}@test.example", **values)
            session.add(person)
            return person.id if person.id is not None else _flushed(session, person)

    return make


def _flushed(session: Session, person: Person) -> UUID:
    session.flush()
    return person.id


@pytest.fixture
def company_of(sessions: sessionmaker[Session]) -> Callable[..., UUID]:
    def make(tenant: SomeTenant, name: str = "Engines Ltd") -> UUID:
        with tenant_scope(tenant.id), sessions.begin() as session:
            company = Company(name=name)
            session.add(company)
            session.flush()
            return company.id

    return make
