"""What the doctor proposes, copied as it is, cures what it found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

import tenancy.alembic
from tenancy.doctor.catalog import examine_catalog
from tenancy.doctor.findings import Finding, Subject
from tenancy.doctor.roles import examine_roles
from tenancy.rls.migrations import send
from tests.conftest import ROLES, Database
from tests.models import Base
from tests.tenancy.doctor_cluster import own_cluster
from tests.tenancy.doctor_mutations import CATALOG, ROLES_CHANGED

NOT_SQL = {
    "public numbers": "a column is declared, or made anew",
    "role missing": "the command line creates it",
    "not installed": "the policies speak of the schema that was set aside",
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with own_cluster(tmp_path_factory.mktemp("doctor")) as database:
        yield database


@pytest.fixture
def superuser(database: Database) -> Iterator[Connection]:
    """What it changes is rolled back."""
    tenancy.alembic.install()
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def examined(connection: Connection) -> list[Finding]:
    subject = Subject(connection=connection, metadata=Base.metadata)
    findings = [*examine_catalog(subject), *examine_roles(subject)]
    return [finding for finding in findings if finding.rule.id != "TEN001"]  # the app's engine is not given


def apply(connection: Connection, remedy: str) -> None:
    """Run SQL as the superuser, and what a revision file would hold as the owner."""
    if not remedy.startswith(("op.", "with op.")):
        send(connection, [remedy])
        return
    send(connection, [f"SET LOCAL ROLE {ROLES.owner}"])
    exec(remedy, {"op": Operations(MigrationContext.configure(connection))})
    send(connection, ["RESET ROLE"])


@pytest.mark.parametrize("name", [name for name in CATALOG | ROLES_CHANGED if name not in NOT_SQL])
def test_remedy_cures(superuser: Connection, database: Database, name: str) -> None:
    mutation = (CATALOG | ROLES_CHANGED)[name]
    send(superuser, [mutation.sql.replace("{database}", database.name)])
    findings = examined(superuser)
    assert findings

    for finding in findings:
        apply(superuser, finding.remedy)

    assert examined(superuser) == []
