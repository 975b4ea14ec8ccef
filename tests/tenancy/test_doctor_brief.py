"""What a process refuses to start on: tables that its own role reaches and nothing guards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from tenancy.doctor.brief import brief
from tenancy.rls.migrations import send
from tests.conftest import ROLES, Database


@pytest.fixture
def superuser(database: Database) -> Iterator[Connection]:
    """What it changes is rolled back."""
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def told(connection: Connection, role: str = ROLES.app) -> list[tuple[str, str]]:
    send(connection, [f"SET LOCAL ROLE {role}"])
    return [(finding.rule.id, finding.object_name) for finding in brief(connection)]


def test_canonical_database_starts_on_the_apps_own_connection(app_engine: Engine) -> None:
    with app_engine.connect() as connection:
        assert brief(connection) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER TABLE people DISABLE ROW LEVEL SECURITY", ("TEN101", "table public.people")),
        ("ALTER TABLE people NO FORCE ROW LEVEL SECURITY", ("TEN102", "table public.people")),
        ("DROP POLICY tenancy_isolation ON people", ("TEN103", "policy tenancy_isolation on table public.people")),
        ("DROP POLICY tenancy_guard ON people", ("TEN103", "policy tenancy_guard on table public.people")),
        (
            f"CREATE TABLE copy AS TABLE people; GRANT SELECT (name) ON copy TO {ROLES.app}",
            ("TEN101", "table public.copy"),
        ),
    ],
)
def test_table_without_its_guard_is_told(superuser: Connection, change: str, expected: tuple[str, str]) -> None:
    """T003, T005, T011, T015"""
    assert told(superuser) == []
    send(superuser, ["RESET ROLE", change])

    assert told(superuser) == [expected]


def test_table_out_of_reach_is_left_alone(superuser: Connection) -> None:
    send(superuser, ["CREATE TABLE staging AS TABLE people"])

    assert told(superuser) == []
    assert told(superuser, "postgres") == [("TEN101", "table public.staging")]


def test_flavour_without_force_wants_none(superuser: Connection) -> None:
    send(superuser, ["ALTER TABLE people NO FORCE ROW LEVEL SECURITY", f"SET LOCAL ROLE {ROLES.app}"])

    assert brief(superuser, "citus") == []
