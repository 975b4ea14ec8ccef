"""What the doctor cannot see it says, and what it counts it counts as one who sees every row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.doctor.catalog import examine_catalog
from tenancy.doctor.findings import Finding, Subject
from tenancy.rls import GuardedTable, Roles, guard_sql
from tenancy.rls.migrations import send
from tests.conftest import ROLES, Database
from tests.models import Base
from tests.tenancy.doctor_mutations import EVENTS, KEYED, guarded_table, owner

ACME, GLOBEX, PERSON, NOTE = (uuid7() for _ in range(4))


@pytest.fixture
def superuser(database: Database) -> Iterator[Connection]:
    """What it changes is rolled back."""
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def examined(connection: Connection, *, models: bool = True) -> list[Finding]:
    return list(examine_catalog(Subject(connection=connection, metadata=Base.metadata if models else None)))


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.rule.id, finding.object_name) for finding in findings]


def add_strange_reference(connection: Connection) -> None:
    """A note of globex that points at a person of acme, by a foreign key that leaves the tenant out."""
    send(
        connection,
        [
            f"INSERT INTO people (tenant_id, id, name, email) VALUES ('{ACME}', '{PERSON}', 'Ada', 'ada@acme.test')",
            f"INSERT INTO people (tenant_id, id, name, email) VALUES ('{GLOBEX}', '{PERSON}', 'Eve', 'e@globex.test')",
            f"INSERT INTO notes (tenant_id, id, body, person_id) VALUES ('{GLOBEX}', '{NOTE}', 'hers', '{PERSON}')",
            "ALTER TABLE notes ADD COLUMN theirs uuid",
            f"UPDATE notes SET theirs = '{ACME}' WHERE id = '{NOTE}'",
            "ALTER TABLE notes ADD CONSTRAINT strange FOREIGN KEY (theirs, person_id)"
            " REFERENCES people (tenant_id, id)",
        ],
    )


def test_references_to_other_tenants_are_counted(superuser: Connection) -> None:
    add_strange_reference(superuser)

    (finding,) = examined(superuser)

    assert (finding.rule.id, finding.object_name) == ("TEN125", "foreign key strange on public.notes")
    assert finding.what.endswith("1 rows point at another tenant's row")


def test_orphans_of_a_foreign_key_nobody_validated_are_counted(superuser: Connection) -> None:
    """T125"""
    send(
        superuser,
        [
            "ALTER TABLE notes DROP CONSTRAINT fk_notes_tenant_id_person_id",
            f"INSERT INTO notes (tenant_id, id, body, person_id) VALUES ('{GLOBEX}', '{NOTE}', 'hers', '{PERSON}')",
            "ALTER TABLE notes ADD CONSTRAINT fk_notes_tenant_id_person_id FOREIGN KEY (tenant_id, person_id)"
            " REFERENCES people (tenant_id, id) ON DELETE CASCADE NOT VALID",
        ],
    )

    (finding,) = examined(superuser)

    assert finding.rule.id == "TEN126"
    assert finding.what == "it is NOT VALID; 1 rows point at nothing within their tenant"


def test_role_that_does_not_see_every_row_counts_nothing(superuser: Connection) -> None:
    """T125: the owner is held by the policies too, and a lower count would pass for a true one."""
    add_strange_reference(superuser)
    send(superuser, [f"SET LOCAL ROLE {ROLES.owner}"])

    uncounted, finding = examined(superuser)

    assert uncounted.object_name == "check TEN125 foreign-key-without-tenant"
    assert "would be affected by row-level security policy" in uncounted.what
    assert finding.rule.id == "TEN125"
    assert finding.what.endswith("points at public.people without tenant_id")


def test_apps_own_engine_may_be_examined_with(fresh_database: Database) -> None:
    """Its guard refuses SET, which only what needs the owner and the count of rows ask for."""
    with fresh_database.connect("postgres") as truth:
        truth.execute("ALTER TABLE notes ADD COLUMN theirs uuid")
        truth.execute("ALTER TABLE notes ADD FOREIGN KEY (theirs, person_id) REFERENCES people (tenant_id, id)")
    engine = create_tenant_engine(fresh_database.url(ROLES.app), poolclass=NullPool)

    with engine.connect() as connection:
        findings = [finding for finding in examined(connection) if "TEN1" not in finding.object_name]

    assert told(findings) == [("TEN125", "foreign key notes_theirs_person_id_fkey on public.notes")]


def test_application_role_checks_all_but_what_needs_the_owner(fresh_database: Database) -> None:
    with fresh_database.connect("postgres") as truth:
        truth.execute("ALTER TABLE people DISABLE ROW LEVEL SECURITY")
    engine = create_engine(fresh_database.url(ROLES.app), poolclass=NullPool)

    with engine.connect() as connection:
        findings = examined(connection)

    assert told(findings) == [
        ("TEN101", "table public.people"),
        ("TEN001", "check TEN104 policy-changed"),
        ("TEN001", "check TEN112 library-function-changed"),
        ("TEN001", "check TEN113 library-table-changed"),
        ("TEN001", "check TEN116 lookup-changed"),
    ]


def test_transaction_that_may_not_write_is_told(superuser: Connection) -> None:
    """As on a standby."""
    send(superuser, ["SET TRANSACTION READ ONLY"])

    unchecked = examined(superuser)

    assert {finding.rule.id for finding in unchecked} == {"TEN001"}
    assert len(unchecked) == 4
    assert all("in a read-only transaction" in finding.what for finding in unchecked)


def test_roles_of_another_prefix_are_told(superuser: Connection) -> None:
    subject = Subject(connection=superuser, metadata=Base.metadata, roles=Roles("elsewhere"))

    unchecked = [finding for finding in examine_catalog(subject) if finding.rule.id == "TEN001"]

    assert len(unchecked) == 4
    assert all('role "elsewhere_owner" does not exist' in finding.what for finding in unchecked)


def test_examination_changes_nothing(superuser: Connection) -> None:
    before = superuser.exec_driver_sql("SELECT count(*) FROM pg_class").scalar_one()
    schemas = superuser.exec_driver_sql("SELECT array_agg(nspname ORDER BY 1) FROM pg_namespace").scalar_one()

    examined(superuser)

    assert superuser.exec_driver_sql("SELECT current_user").scalar_one() == "postgres"
    assert superuser.exec_driver_sql("SELECT count(*) FROM pg_class").scalar_one() == before
    assert superuser.exec_driver_sql("SELECT array_agg(nspname ORDER BY 1) FROM pg_namespace").scalar_one() == schemas


def test_finding_quotes_no_row(superuser: Connection) -> None:
    add_strange_reference(superuser)

    (finding,) = examined(superuser)

    text = f"{finding.object_name} {finding.what} {finding.remedy}"
    assert not any(value in text for value in ("Ada", "hers", str(ACME), str(PERSON)))


# What is in order --------------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [True, False])
def test_guarded_table_and_partition_that_no_model_declares_are_in_order(superuser: Connection, models: bool) -> None:
    """T024"""
    before = told(examined(superuser, models=models))

    part = "CREATE TABLE events_1 PARTITION OF events FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
    guard = "; ".join(guard_sql(GuardedTable("events_1", "tenant", ()), ROLES))
    send(superuser, [guarded_table("extra", KEYED), EVENTS, owner(f"{part}; {guard}")])

    assert told(examined(superuser, models=models)) == before


def test_without_models_unknown_tables_within_reach_are_told(superuser: Connection) -> None:
    send(superuser, [owner(f"CREATE TABLE cities (id int PRIMARY KEY); GRANT SELECT ON cities TO {ROLES.app}")])

    findings = [finding for finding in examined(superuser, models=False) if finding.rule.id == "TEN001"]

    (finding,) = findings
    assert finding.object_name == "check TEN106 table-undeclared"
    assert finding.what.endswith("public.cities")


def test_copy_by_query_is_found_with_all_it_lost(superuser: Connection) -> None:
    """T015"""
    send(superuser, ["CREATE TABLE copied AS TABLE people", f"ALTER TABLE copied OWNER TO {ROLES.owner}"])
    send(superuser, [f"GRANT SELECT ON copied TO {ROLES.app}"])

    assert told(examined(superuser)) == [
        ("TEN101", "table public.copied"),
        ("TEN120", "column public.copied.tenant_id"),
        ("TEN127", "table public.copied"),
    ]


def test_definer_function_that_nobody_was_given_is_in_order(superuser: Connection) -> None:
    """T032: what the owner makes, PUBLIC may not call."""
    body = "SELECT count(*) FROM people"
    send(superuser, [owner(f"CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS '{body}'")])

    assert examined(superuser) == []
    send(superuser, [f"GRANT EXECUTE ON FUNCTION counted TO {ROLES.app}"])
    assert told(examined(superuser)) == [("TEN144", "function public.counted()")]


def test_table_that_no_runtime_role_reaches_may_be_unguarded(superuser: Connection) -> None:
    send(superuser, [owner("CREATE TABLE staging (LIKE people INCLUDING ALL)")])

    assert examined(superuser) == []
