"""Attacks by SQL as the app role: what a tenant is granted, it does not decide; what was done, it does not rewrite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.app.conftest import Truth, Visitor
from tests.conftest import ROLES, Database

Connection = psycopg.Connection[tuple[Any, ...]]

# What staff, provisioning, the DNS or a trigger decide. Some of it tenants may read.
DECIDED = {
    *("audit_heads", "audit_links", "bulk_items", "bulk_runs", "domains", "erasures", "impersonations"),
    *("kept_answers", "overrides", "platform_entries", "platform_heads", "platform_links", "provisioning_steps"),
    *("reserved_slugs", "searched_tenants", "staff_accounts", "staff_keys", "staff_links", "staff_sign_ins"),
    *("tenant_transitions", "usage_rollups"),
}
APPENDED = {"audit_entries", "configuration_changes", "quota_events", "usage_records"}


@contextmanager
def injected(database: Database, tenant: Visitor) -> Iterator[Connection]:
    """The app role in a transaction of a tenant, past the application."""
    with database.connect(ROLES.app) as connection, connection.transaction():
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant.tenant_id)])
        yield connection


@pytest.mark.parametrize("table", sorted(DECIDED))
def test_what_others_decide_is_not_written_by_the_app_role(truth: Truth, table: str) -> None:
    row = truth.execute(
        "SELECT has_table_privilege('tenancy_app', %(t)s, 'INSERT, DELETE, TRUNCATE')"
        " OR has_any_column_privilege('tenancy_app', %(t)s, 'INSERT, UPDATE')",
        {"t": table},
    ).fetchone()

    assert row == (False,)


@pytest.mark.parametrize("table", sorted(APPENDED))
def test_what_was_noted_is_only_added_to(truth: Truth, table: str) -> None:
    row = truth.execute(
        "SELECT has_table_privilege('tenancy_app', %(t)s, 'INSERT'),"
        " has_table_privilege('tenancy_app', %(t)s, 'DELETE, TRUNCATE')"
        " OR has_any_column_privilege('tenancy_app', %(t)s, 'UPDATE')",
        {"t": table},
    ).fetchone()

    assert row == (True, False)


def test_tenant_changes_nothing_of_itself_but_its_name(truth: Truth) -> None:
    rows = truth.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'tenants'::regclass AND attnum > 0"
        " AND has_column_privilege('tenancy_app', attrelid, attnum, 'UPDATE') ORDER BY attname"
    ).fetchall()

    assert rows == [("name",), ("updated_at",)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tenants SET plan = 'custom'",
        "UPDATE tenants SET status = 'active', erase_after = NULL",
        "INSERT INTO tenants (tenant_id, slug, name, status, plan, plan_version) SELECT tenant_id, slug, name, status,"
        " 'custom', 1 FROM tenants ON CONFLICT (tenant_id) DO UPDATE SET plan = EXCLUDED.plan",
        "UPDATE domains SET verified_at = now()",
        "DELETE FROM audit_entries",
        "UPDATE impersonations SET ends_at = now() + interval '1 year', can_write = true",
        "SELECT * FROM search_tenants('', NULL, NULL, 'name', NULL, NULL, 100)",
        "SELECT * FROM count_tenants()",
        "SELECT * FROM jobs.take_job_in_turn(1, 1)",
        "SELECT * FROM staff_accounts",
        "SELECT * FROM tenancy.platform_session",
        "SET CONSTRAINTS ALL IMMEDIATE; ALTER TABLE audit_entries DISABLE TRIGGER audit_link",
        "SET session_replication_role = replica",
    ],
)
def test_statement_of_an_attacker_is_refused(database: Database, acme: Visitor, statement: str) -> None:
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        injected(database, acme) as connection,
    ):
        connection.execute(statement)


ENTRY = (
    "INSERT INTO audit_entries (tenant_id, id, at, action, actor_kind, actor_id, actor_label)"
    " VALUES (%s, %s, now() + %s::interval, 'member.removed', %s, 'x', 'ana@platform.test')"
)


def add_entry(database: Database, tenant: Visitor, *, kind: str = "account", offset: str = "0") -> None:
    with injected(database, tenant) as connection:
        connection.execute(ENTRY, [tenant.tenant_id, uuid4(), offset, kind])


@pytest.mark.parametrize("kind", ["staff", "key"])
def test_entry_in_the_name_of_staff_is_refused(database: Database, acme: Visitor, kind: str) -> None:
    """Staff act through another login: the app role cannot put anything down to them."""
    add_entry(database, acme)

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        add_entry(database, acme, kind=kind)


@pytest.mark.parametrize("offset", ["-2 hours", "-10 years", "2 minutes", "10 years"])
def test_entry_of_another_time_is_refused(database: Database, acme: Visitor, offset: str) -> None:
    add_entry(database, acme, offset="-1 second")

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        add_entry(database, acme, offset=offset)


def test_chain_still_holds_after_all_that_was_tried(database: Database, acme: Visitor) -> None:
    add_entry(database, acme)
    with pytest.raises(psycopg.errors.UniqueViolation), injected(database, acme) as connection:
        connection.execute("INSERT INTO audit_entries SELECT * FROM audit_entries ORDER BY at LIMIT 1")

    verdict = acme.get("/api/v1/audit/verify").get_json()

    assert verdict["is_intact"] is True
