"""The doctor on a database whose policies demand signed scopes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from tenancy.binding import create_tenant_engine
from tenancy.doctor.catalog import examine_catalog
from tenancy.doctor.findings import Subject
from tenancy.doctor.roles import examine_roles
from tenancy.rls.migrations import send
from tests.conftest import ROLES, Database
from tests.models import Base
from tests.signed import KEY, sign
from tests.tenancy.doctor_cluster import own_cluster


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with own_cluster(tmp_path_factory.mktemp("doctor")) as database:
        sign(database)
        yield database


@pytest.fixture
def superuser(database: Database) -> Iterator[Connection]:
    """What it changes is rolled back."""
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def found(connection: Connection, database: Database) -> list[tuple[str, str]]:
    engine = create_tenant_engine(database.url(ROLES.app), signing_key=KEY, poolclass=NullPool)
    subject = Subject(connection=connection, metadata=Base.metadata, app_engine=engine)
    findings = [*examine_catalog(subject), *examine_roles(subject)]
    return [(finding.rule.id, finding.object_name) for finding in findings]


def test_signed_database_has_no_finding(superuser: Connection, database: Database) -> None:
    assert found(superuser, database) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "CREATE OR REPLACE FUNCTION tenancy.guarded_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE"
            " AS 'SELECT tenancy.current_tenant()'",
            ("TEN112", "function tenancy.guarded_tenant()"),
        ),
        (f"GRANT SELECT ON tenancy.signing_key TO {ROLES.app}", ("TEN113", "table tenancy.signing_key")),
        (f"ALTER ROLE {ROLES.app} SET app.tenant_token = 'x'", ("TEN205", f"role {ROLES.app}")),
    ],
)
def test_way_around_the_signature_is_found(
    superuser: Connection, database: Database, change: str, expected: tuple[str, str]
) -> None:
    send(superuser, [change])

    assert found(superuser, database) == [expected]


def test_database_that_was_made_unsigned_keeps_a_trace(superuser: Connection, database: Database) -> None:
    """Without its procedure it is taken for an unsigned one; what else it has of the other kind is told."""
    send(superuser, ["DROP PROCEDURE tenancy.bind_scope"])

    assert ("TEN113", "table tenancy.signing_key") in found(superuser, database)
