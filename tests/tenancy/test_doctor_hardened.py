"""The doctor on a database that a superuser hardened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from tenancy.binding import create_tenant_engine
from tenancy.doctor.catalog import examine_catalog
from tenancy.doctor.findings import Subject
from tenancy.doctor.roles import examine_roles
from tenancy.rls.hardening import hardening_sql
from tenancy.rls.migrations import send
from tests.conftest import ROLES, Database
from tests.models import Base
from tests.tenancy.doctor_cluster import own_cluster


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with own_cluster(tmp_path_factory.mktemp("doctor")) as database:
        engine = create_engine(database.url("postgres"), poolclass=NullPool)
        with engine.begin() as connection:
            send(connection, hardening_sql(connection, ROLES))
        yield database


def found(connection: Connection, database: Database) -> list[tuple[str, str]]:
    engine = create_tenant_engine(database.url(ROLES.app), poolclass=NullPool)
    subject = Subject(connection=connection, metadata=Base.metadata, app_engine=engine)
    findings = [*examine_catalog(subject), *examine_roles(subject)]
    return [(finding.rule.id, finding.object_name) for finding in findings]


@pytest.mark.parametrize("role", ["postgres", ROLES.migrator])
def test_hardened_database_has_no_finding(database: Database, role: str) -> None:
    engine = create_engine(database.url(role), poolclass=NullPool)

    with engine.connect() as connection:
        assert found(connection, database) == []


@pytest.mark.parametrize(
    "change",
    [
        f"GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO {ROLES.app}",
        "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC",
        "GRANT EXECUTE ON FUNCTION pg_catalog.lo_from_bytea(oid, bytea) TO PUBLIC",
    ],
)
def test_hardening_that_was_undone_is_found(database: Database, change: str) -> None:
    """T053, T133"""
    engine = create_engine(database.url("postgres"), poolclass=NullPool)

    with engine.connect() as connection:
        send(connection, [change])

        assert found(connection, database) == [("TEN159", "database postgres")]
