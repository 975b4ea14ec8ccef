"""Models against the database: the tests' own agree with it, and each change to either yields exactly its finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, Text, UniqueConstraint, Uuid, create_engine
from sqlalchemy import event as events
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.pool import NullPool

from tenancy.doctor.findings import Finding, Subject
from tenancy.doctor.models import RULES, examine_models
from tenancy.embedded import Template
from tenancy.tables import TenantForeignKey, TenantIndex, TenantUnique, platform_table, tenant_column
from tests.conftest import ROLES, Database
from tests.models import Base


@pytest.fixture(scope="module")
def database(template: Template, worker: str) -> Iterator[Database]:
    """One without rows: those of other tests would stand in the way of a constraint that is added here."""
    name = template.clone(f"models_{worker}")
    yield Database(template.server, name)
    template.drop(name)


@contextmanager
def connected(database: Database) -> Iterator[Connection]:
    engine = create_engine(database.url(ROLES.migrator), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def changed(database: Database, *statements: str) -> list[Finding]:
    """Change the database as its owner, and compare it with the tests' models; nothing of it stays."""
    with connected(database) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        found = list(examine_models(Subject(connection=connection, metadata=Base.metadata)))
        connection.rollback()
    return found


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(one.rule.id, one.object_name) for one in findings]


def test_canonical_database_has_no_finding(database: Database) -> None:
    assert changed(database) == []


MUTATIONS = {
    "table dropped": ("DROP TABLE notes", ["TEN302 table public.notes"]),
    "table added": ("CREATE TABLE currencies (code text)", ["TEN303 table public.currencies"]),
    "table of tenants added": ("CREATE TABLE calls (tenant_id uuid)", ["TEN304 table public.calls"]),
    "tenant dropped": (
        "ALTER TABLE tags DROP COLUMN tenant_id CASCADE",
        ["TEN305 table public.tags", "TEN309 table public.tags", "TEN309 table public.person_tags"],
    ),
    "column dropped": ("ALTER TABLE notes DROP COLUMN body", ["TEN306 column public.notes.body"]),
    "column added": ("ALTER TABLE notes ADD COLUMN colour text", ["TEN307 column public.notes.colour"]),
    "key column made nullable": (
        "ALTER TABLE notes ALTER COLUMN person_id DROP NOT NULL",
        ["TEN308 column public.notes.person_id"],
    ),
    "key column made NOT NULL": (
        "ALTER TABLE people ALTER COLUMN company_id SET NOT NULL",
        ["TEN308 column public.people.company_id"],
    ),
    "key column of another type": (
        "ALTER TABLE todos ALTER COLUMN id TYPE bigint",
        ["TEN308 column public.todos.id"],
    ),
    "unique dropped": ("ALTER TABLE people DROP CONSTRAINT uq_people_tenant_id_email", ["TEN309 table public.people"]),
    "foreign key dropped": (
        "ALTER TABLE notes DROP CONSTRAINT fk_notes_tenant_id_person_id",
        ["TEN309 table public.notes"],
    ),
    "foreign key without tenant": (
        "ALTER TABLE notes ADD FOREIGN KEY (tenant_id) REFERENCES tenants (tenant_id) NOT VALID",
        ["TEN310 table public.notes"],
    ),
    "unique added": ("CREATE UNIQUE INDEX ON companies (name)", ["TEN310 table public.companies"]),
    "index dropped": ("DROP INDEX ix_people_name", ["TEN311 table public.people"]),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_change_to_the_database_yields_its_finding(database: Database, name: str) -> None:
    """T133"""
    statement, expected = MUTATIONS[name]

    found = told(changed(database, statement))

    assert sorted(found) == sorted((line[:6], line[7:]) for line in expected)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX ON companies (name)",
        "CREATE UNIQUE INDEX ON companies (name) WHERE name <> ''",
        "CREATE UNIQUE INDEX ON companies (lower(name))",
        "CREATE UNIQUE INDEX ON companies (tenant_id, id, name)",
        "CREATE TEMPORARY TABLE scratch (tenant_id uuid)",
        "CREATE TABLE alembic_version (version_num varchar(32))",
        "ALTER TABLE people ALTER COLUMN name TYPE varchar(100)",
        "DROP INDEX ix_people_name; CREATE INDEX other ON people (tenant_id, name, email)",
    ],
)
def test_what_isolation_does_not_depend_on_is_no_finding(database: Database, statement: str) -> None:
    assert changed(database, *statement.split("; ")) == []


def test_every_rule_is_provoked() -> None:
    provoked = {line[:6] for _, lines in MUTATIONS.values() for line in lines} | {"TEN301"}

    assert provoked == {rule.id for rule in RULES}


def test_remedy_of_an_unknown_table_of_tenants_names_both_ways(database: Database) -> None:
    (finding,) = changed(database, "CREATE TABLE calls (tenant_id uuid)")

    assert finding.what == "has tenant_id, and no model"
    assert finding.remedy == "give it a model (TenantTable) and op.guard_table in a migration, or drop it"


def test_table_in_another_schema_is_compared_by_its_schema(database: Database) -> None:
    metadata = MetaData()
    platform_table(reason="rates are the same for all")(Table("rates", metadata, Column("code", Text), schema="money"))
    statements = ["CREATE SCHEMA money", "CREATE TABLE money.rates (code text)", "CREATE TABLE rates (code text)"]

    with connected(database) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        found = told(list(examine_models(Subject(connection=connection, metadata=metadata))))

    assert ("TEN303", "table public.rates") in found
    assert ("TEN303", "table money.rates") not in found


def test_type_that_the_server_does_not_have_was_not_compared(database: Database) -> None:
    metadata = MetaData()
    table = Table("notes", metadata, tenant_column(), Column("body", CITEXT), TenantUnique("body"))

    with connected(database) as connection:
        found = list(examine_models(Subject(connection=connection, metadata=table.metadata)))

    assert [(one.object_name, one.what) for one in found if one.rule.id == "TEN001"] == [
        ("column public.notes.body", "the database does not know the type CITEXT")
    ]


def test_number_of_queries_does_not_grow_with_the_tables(database: Database) -> None:
    def queries(connection: Connection, metadata: MetaData) -> int:
        sent: list[str] = []

        def note(*given: object) -> None:
            sent.append(str(given[2]))

        events.listen(connection, "before_cursor_execute", note)
        list(examine_models(Subject(connection=connection, metadata=metadata)))
        events.remove(connection, "before_cursor_execute", note)
        return len(sent)

    many = MetaData()
    for number in range(200):
        Table(f"t{number}", many, tenant_column(), Column("id", Uuid, primary_key=True))
    with connected(database) as connection:
        connection.exec_driver_sql(
            "DO $$ BEGIN FOR i IN 0..199 LOOP EXECUTE 'CREATE TABLE t' || i || ' (tenant_id uuid, id uuid,"
            " PRIMARY KEY (tenant_id, id))'; END LOOP; END $$"
        )

        assert queries(connection, Base.metadata) == 4
        assert queries(connection, many) == 4


# Without a database -----------------------------------------------------------------------------------


def _text_tenant(metadata: MetaData) -> None:
    Table("calls", metadata, Column("tenant_id", String, primary_key=True))


def _nullable_tenant(metadata: MetaData) -> None:
    Table("calls", metadata, Column("tenant_id", Uuid), Column("id", Uuid))


def _unmarked(metadata: MetaData) -> None:
    Table("calls", metadata, Column("id", Integer))


def _unique_without_tenant(metadata: MetaData) -> None:
    Table("calls", metadata, tenant_column(), Column("number", Text), UniqueConstraint("number"))


def _unknown_target(metadata: MetaData) -> None:
    Table("calls", metadata, tenant_column(), Column("person_id", Uuid), TenantForeignKey("person_id", "nobody"))


@pytest.mark.parametrize(
    ("declare", "what"),
    [
        (_text_tenant, "calls.tenant_id is String(), not a UUID"),
        (_nullable_tenant, "calls.tenant_id is nullable"),
        (_unmarked, "table 'calls' has no tenant_id and is not marked as a platform table"),
        (_unique_without_tenant, "UniqueConstraint on calls(number) leaves tenant_id out"),
        (_unknown_target, "foreign key on calls(tenant_id, person_id) points at an unknown table"),
    ],
)
def test_model_that_cannot_be_isolated_is_refused_without_a_database(
    declare: Callable[[MetaData], None], what: str
) -> None:
    """T018, T044"""
    metadata = MetaData()
    declare(metadata)

    found = list(examine_models(Subject(metadata=metadata)))

    assert set(told(found)) == {("TEN301", "model calls"), ("TEN001", "kind models")}
    assert what in [one.what for one in found]


def test_foreign_key_to_nowhere_does_not_end_the_comparison(database: Database) -> None:
    metadata = MetaData()
    _unknown_target(metadata)

    with connected(database) as connection:
        connection.exec_driver_sql("CREATE TABLE calls (tenant_id uuid PRIMARY KEY)")
        found = told(list(examine_models(Subject(connection=connection, metadata=metadata))))

    assert ("TEN301", "model calls") in found
    assert ("TEN306", "column public.calls.person_id") in found
    assert ("TEN303", "table public.accounts") in found


def test_metadata_without_tables_was_not_examined() -> None:
    (finding,) = examine_models(Subject(metadata=MetaData()))

    assert (finding.rule.id, finding.what) == ("TEN001", "the metadata has no tables")


def test_no_metadata_was_not_examined() -> None:
    (finding,) = examine_models(Subject())

    assert (finding.rule.id, finding.remedy) == ("TEN001", "pass --metadata shop.models:Base.metadata")


def test_index_of_an_expression_is_not_compared(database: Database) -> None:
    metadata = MetaData()
    table = Table("todos", metadata, tenant_column(), Column("id", Integer, primary_key=True), Column("title", Text))
    TenantIndex(table.c.title + "x", name="ix_expression", _table=table)

    with connected(database) as connection:
        found = told(list(examine_models(Subject(connection=connection, metadata=metadata))))

    assert not [one for one in found if one[1].endswith("todos")]
