"""The doctor on a canonical database, and on one that was changed by hand in each way it knows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from tenancy.binding import create_tenant_engine
from tenancy.doctor.catalog import RULES, examine_catalog
from tenancy.doctor.findings import Finding, Subject
from tenancy.doctor.roles import examine_roles
from tenancy.rls.migrations import send
from tenancy.rls.views import StoredView, TenantView, create_stored_view_sql, create_view_sql
from tests.conftest import ROLES, Database
from tests.models import Base
from tests.tenancy.doctor_cluster import own_cluster
from tests.tenancy.doctor_mutations import ANYONE, CATALOG


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with own_cluster(tmp_path_factory.mktemp("doctor")) as database:
        yield database


@pytest.fixture(scope="module")
def app_engine(database: Database) -> Iterator[Engine]:
    engine = create_tenant_engine(database.url(ROLES.app))
    yield engine
    engine.dispose()


@pytest.fixture
def superuser(database: Database) -> Iterator[Connection]:
    """What it changes is rolled back."""
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def examined(connection: Connection, engine: Engine | None = None, *, models: bool = True) -> list[Finding]:
    subject = Subject(connection=connection, metadata=Base.metadata if models else None, app_engine=engine)
    return [*examine_catalog(subject), *examine_roles(subject)]


def found(connection: Connection, engine: Engine) -> set[tuple[str, str]]:
    return {(finding.rule.id, finding.object_name) for finding in examined(connection, engine)}


@pytest.mark.parametrize("role", ["postgres", ROLES.migrator])
def test_canonical_schema_has_no_finding(database: Database, app_engine: Engine, role: str) -> None:
    """T133"""
    engine = create_engine(database.url(role), poolclass=NullPool)

    with engine.connect() as connection:
        assert examined(connection, app_engine) == []


def test_without_models_only_what_they_would_explain_is_found(superuser: Connection, app_engine: Engine) -> None:
    findings = examined(superuser, app_engine, models=False)

    assert [(finding.rule.id, finding.object_name) for finding in findings] == [
        ("TEN130", "column public.todos.id"),
        ("TEN124", "unique constraint uq_domains_domain on public.domains"),
    ]


@pytest.mark.parametrize("name", CATALOG)
def test_each_change_by_hand_is_found_by_its_id_alone(
    superuser: Connection, app_engine: Engine, database: Database, name: str
) -> None:
    """T003, T005, T009, T010, T011, T015, T024, T025, T026, T027, T028, T029, T030, T032, T034, T053, T060, T133"""
    mutation = CATALOG[name]

    send(superuser, [mutation.sql.replace("{database}", database.name)])

    if mutation.finds == "TEN100":  # the roles have something to say about functions that moved
        subject = Subject(connection=superuser, metadata=Base.metadata)
        assert [finding.rule.id for finding in examine_catalog(subject)] == ["TEN100"]
    else:
        expected = {(rule, thing.replace("{database}", database.name)) for rule, thing in mutation.expected}
        assert found(superuser, app_engine) == expected


def test_every_rule_of_the_catalog_has_a_mutation() -> None:
    """T133"""
    proven = {mutation.finds for mutation in CATALOG.values()}

    # A slot needs a server that decodes its log: test_doctor_roles.py; hardening: test_doctor_hardened.py.
    assert {rule.id for rule in RULES} - proven == {"TEN154", "TEN159"}


def test_library_views_are_accepted(superuser: Connection, app_engine: Engine) -> None:
    """T027, T030"""
    view = TenantView("names", "SELECT tenant_id, name FROM people")
    stored = StoredView("totals", "SELECT tenant_id, count(*) AS people FROM people GROUP BY 1", unique=("tenant_id",))

    for statements in (create_view_sql(view, ROLES), create_stored_view_sql(stored, ROLES)):
        superuser.exec_driver_sql(
            f"SET LOCAL ROLE {ROLES.owner}; SET LOCAL row_security = on; SET LOCAL app.tenant_id = '{ANYONE}'"
        )
        send(superuser, statements)
    superuser.exec_driver_sql("RESET ROLE")

    assert found(superuser, app_engine) == set()
