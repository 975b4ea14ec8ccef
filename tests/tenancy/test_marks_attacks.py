"""What a limit leaves open: a column that comes later, and a foreign key that does what the role may not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, Uuid, create_engine
from sqlalchemy.pool import NullPool

from tenancy.doctor.catalog import examine_catalog
from tenancy.doctor.findings import Finding, Subject
from tenancy.embedded import Server, Template
from tenancy.errors import ModelError
from tenancy.rls import GuardedTable, guard_sql
from tenancy.tables import (
    TENANT_KEY,
    TenantForeignKey,
    check_metadata,
    limit_grants,
    platform_table,
    staff_table,
    tenant_column,
)
from tests.conftest import ROLES, Database
from tests.tenancy.migrations import Project

TENANT = UUID(int=1)


def shop(*added: str) -> MetaData:
    """Tables that are no more than their keys, and one of accounts; with columns that were added later."""
    metadata = MetaData()

    def columns() -> list[Column[Any]]:
        return [Column(name, Text) for name in added]

    stamps = Table("stamps", metadata, Column(TENANT_KEY, Uuid, primary_key=True), Column("id", Uuid, primary_key=True))
    visits = Table("visits", metadata, Column(TENANT_KEY, Uuid, primary_key=True), Column("id", Uuid, primary_key=True))
    desks = Table("desks", metadata, Column("id", Uuid, primary_key=True))
    settings = Table(
        "settings",
        metadata,
        Column("id", Uuid, primary_key=True),
        Column("account_id", Uuid, nullable=False),
        Column("seats", Integer),
    )
    for table in (stamps, visits, desks, settings):
        for column in columns():
            table.append_column(column)
    limit_grants(app=("SELECT", "INSERT"))(stamps)
    staff_table(reason="desks belong to staff")(desks)
    platform_table(reason="an account's own", account_key="account_id")(settings)
    return metadata


@pytest.fixture
def project(tmp_path: Path, empty_database: Database) -> Project:
    project = Project(tmp_path, empty_database)
    project.generate(shop())
    project.upgrade()
    return project


def updatable(project: Project, table: str) -> tuple[bool, bool]:
    """Whether the app and the platform role may update the note of a table."""
    with project.database.connect("postgres") as truth:
        row = truth.execute(
            "SELECT has_column_privilege(%s, %s, 'note', 'UPDATE'), has_column_privilege(%s, %s, 'note', 'UPDATE')",
            [ROLES.app, table, ROLES.platform, table],
        ).fetchone()
    assert row is not None
    return bool(row[0]), bool(row[1])


def test_column_added_by_hand_opens_no_table_that_had_none(project: Project) -> None:
    """Whether the role may update the columns that are not there says nothing."""
    for table in ("stamps", "desks"):
        project.write(f"op.add_column({table!r}, sa.Column('note', sa.Text))")
    project.upgrade()

    assert updatable(project, "stamps")[0] is False
    assert updatable(project, "desks")[0] is False


def test_added_column_has_the_grants_of_its_model_at_once(project: Project) -> None:
    later = shop("note")
    project.generate(later)
    project.upgrade()

    found = {table: updatable(project, table) for table in ("stamps", "visits", "desks", "settings")}

    assert found == {
        "stamps": (False, True),
        "visits": (True, True),
        "desks": (False, True),
        "settings": (True, True),
    }
    project.check(later)


def orders(ondelete: str | None, **options: Any) -> MetaData:
    """Receipts that nobody may remove or change, and the orders they belong to."""
    metadata = MetaData()
    Table("orders", metadata, tenant_column(), Column("id", Uuid, primary_key=True))
    receipts = Table(
        "receipts",
        metadata,
        tenant_column(),
        Column("id", Uuid, primary_key=True),
        Column("order_id", Uuid),
        TenantForeignKey("order_id", "orders", ondelete=ondelete, **options),
    )
    limit_grants(app=("SELECT", "INSERT"), platform=("SELECT", "INSERT", "DELETE"))(receipts)
    return metadata


@pytest.mark.parametrize(("ondelete", "done"), [("CASCADE", "DELETE"), ("SET NULL", "UPDATE"), ("cascade", "DELETE")])
def test_foreign_key_that_does_what_the_role_may_not_is_refused(ondelete: str, done: str) -> None:
    with pytest.raises(ModelError, match=f"lets the app role {done} here by a DELETE on 'orders'"):
        check_metadata(orders(ondelete))


@pytest.mark.parametrize(
    ("ondelete", "options"), [(None, {}), ("RESTRICT", {}), ("CASCADE", {"info": {"past_limits": True}})]
)
def test_foreign_key_that_keeps_to_the_limits_or_says_so_is_taken(
    ondelete: str | None, options: dict[str, Any]
) -> None:
    check_metadata(orders(ondelete, **options))


def test_deleted_order_takes_its_receipt_along_where_that_was_said(tmp_path: Path, empty_database: Database) -> None:
    """Why it is refused: the server does it with the owner's rights."""
    tenant = UUID(int=1)
    project = Project(tmp_path, empty_database)
    project.generate(orders("CASCADE", info={"past_limits": True}))
    project.upgrade()
    with project.database.connect(ROLES.app) as app:
        app.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
        app.execute("INSERT INTO orders VALUES (%s, %s)", [tenant, tenant])
        app.execute("INSERT INTO receipts VALUES (%s, %s, %s)", [tenant, tenant, tenant])
        with pytest.raises(psycopg.errors.InsufficientPrivilege), app.transaction():
            app.execute("DELETE FROM receipts")

        app.execute("DELETE FROM orders")

        assert app.execute("SELECT count(*) FROM receipts").fetchone() == (0,)


FORBIDDEN = {
    "update": "UPDATE events SET what = 'nothing'",
    "update of one row": "UPDATE events SET what = 'nothing' WHERE id = %(id)s RETURNING what",
    "delete": "DELETE FROM events RETURNING what",
    "truncate": "TRUNCATE events",
    "truncate of what refers": "TRUNCATE events CASCADE",
    "upsert": "INSERT INTO events VALUES (%(t)s, %(id)s, 'x') ON CONFLICT (tenant_id, id) DO UPDATE SET what = ''",
    "merge that updates": "MERGE INTO events e USING (SELECT 1) s ON true WHEN MATCHED THEN UPDATE SET what = 'no'",
    "merge that deletes": "MERGE INTO events e USING (SELECT 1) s ON e.id = %(id)s WHEN MATCHED THEN DELETE",
    "lock of rows": "SELECT * FROM events FOR UPDATE",
    "share lock of rows": "SELECT * FROM events FOR KEY SHARE",
    "update in a CTE": "WITH changed AS (UPDATE events SET what = 'no' RETURNING what) SELECT * FROM changed",
    "exclusive lock": "LOCK TABLE events IN ACCESS EXCLUSIVE MODE",
    "trigger": "CREATE TRIGGER t BEFORE INSERT ON events EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "rule": "CREATE RULE r AS ON INSERT TO events DO INSTEAD NOTHING",
    "copy": "COPY events FROM STDIN",
    "staff read": "SELECT * FROM desks",
    "staff count": "SELECT count(*) FROM desks",
    "staff of a whole row": "SELECT desks FROM desks",
    "staff copied": "COPY desks TO STDOUT",
    "staff emptied": "TRUNCATE desks",
    "staff locked": "LOCK TABLE desks IN ACCESS SHARE MODE",
    "staff in a key": "CREATE TABLE mine (id uuid REFERENCES desks)",
    "staff as xml": "SELECT table_to_xml('desks', true, true, '')",
    "staff in a view": "CREATE VIEW mine AS SELECT * FROM desks",
}


@pytest.fixture(scope="module")
def ledger(server: Server, empty_template: Template, worker: str, tmp_path_factory: Any) -> Iterator[Database]:
    """An append-only table with a row of the tenant's, and a staff table with a row."""
    metadata = shop()
    events = Table("events", metadata, tenant_column(), Column("id", Uuid, primary_key=True), Column("what", Text))
    limit_grants(app=("SELECT", "INSERT"))(events)
    database = Database(server, empty_template.clone(f"ledger_{worker}"))
    project = Project(tmp_path_factory.mktemp("ledger"), database)
    project.generate(metadata)
    project.upgrade()
    with database.connect("postgres") as truth:
        truth.execute("INSERT INTO events VALUES (%s, %s, 'signed in')", [TENANT, TENANT])
        truth.execute("INSERT INTO desks VALUES (%s)", [TENANT])
    yield database
    empty_template.drop(database.name)


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_no_verb_does_what_is_not_granted(ledger: Database, statement: str) -> None:
    with ledger.connect(ROLES.app) as app:
        app.execute("SELECT set_config('app.tenant_id', %s, true)", [str(TENANT)])
        assert app.execute("SELECT what FROM events").fetchall() == [("signed in",)]

        refused = (psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported)
        with pytest.raises(refused), app.transaction():
            app.execute(statement, {"t": TENANT, "id": TENANT})


@pytest.mark.parametrize(
    ("verb", "seen"),
    [
        ("SELECT count(*) FROM desks", [(0,)]),
        ("UPDATE desks SET id = id RETURNING id", None),
        ("DELETE FROM desks RETURNING id", []),
        ("MERGE INTO desks d USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE", None),
        ("INSERT INTO desks VALUES (gen_random_uuid())", None),
        ("INSERT INTO desks VALUES (gen_random_uuid()) ON CONFLICT DO NOTHING", None),
        (
            "SELECT set_config('app.platform_session', gen_random_uuid()::text, true), (SELECT count(*) FROM desks)",
            [(0,)],
        ),
        ("TRUNCATE desks", None),
    ],
)
def test_platform_role_without_a_session_reaches_no_staff_row(ledger: Database, verb: str, seen: Any) -> None:
    """T128"""
    with ledger.connect(ROLES.platform) as platform:
        if seen is None:
            with pytest.raises(psycopg.errors.InsufficientPrivilege), platform.transaction():
                platform.execute(verb)
        else:
            assert [row[-1:] for row in platform.execute(verb).fetchall()] == seen
        platform.rollback()
    with ledger.connect("postgres") as truth:
        assert truth.execute("SELECT id FROM desks").fetchall() == [(TENANT,)]


def parted() -> MetaData:
    metadata = MetaData()
    columns = (tenant_column(), Column("id", Uuid, primary_key=True), Column("what", Text))
    events = Table("events", metadata, *columns, postgresql_partition_by="HASH (tenant_id)")
    limit_grants(app=("SELECT", "INSERT"))(events)
    return metadata


@pytest.mark.parametrize("given", ["UPDATE", "DELETE", "UPDATE (what)", "everything"])
def test_doctor_tells_of_a_partition_that_may_be_changed_where_its_parent_may_not(
    tmp_path: Path, empty_database: Database, given: str
) -> None:
    """T024"""
    metadata, project = parted(), Project(tmp_path, empty_database)
    project.generate(metadata)
    project.upgrade()
    part = "CREATE TABLE events_1 PARTITION OF events FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
    like_parent = GuardedTable("events_1", "tenant", ("what",), app=("SELECT", "INSERT"))
    wider = GuardedTable("events_1", "tenant", ("what",))
    with project.database.connect("postgres") as truth:
        for statement in (part, f"ALTER TABLE events_1 OWNER TO {ROLES.owner}", *guard_sql(like_parent, ROLES)):
            truth.execute(statement.encode())
    before = examined(project, metadata)

    with project.database.connect("postgres") as truth:
        for statement in (
            guard_sql(wider, ROLES) if given == "everything" else [f"GRANT {given} ON events_1 TO {ROLES.app}"]
        ):
            truth.execute(statement.encode())

    assert before == []
    assert {finding.object_name for finding in examined(project, metadata)} == {"table public.events_1"}


def examined(project: Project, metadata: MetaData) -> list[Finding]:
    admin = create_engine(project.database.url("postgres"), poolclass=NullPool)
    with admin.connect() as connection:
        found = examine_catalog(Subject(connection=connection, metadata=metadata))
        return [finding for finding in found if finding.rule.id not in ("TEN001", "TEN113")]
