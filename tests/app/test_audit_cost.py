"""What an entry costs the request that is audited: no flight, little of the program's time, little of the server's."""

from __future__ import annotations

import cProfile
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text

from app.audit.actors import Actor, ActorKind, acting_as
from app.audit.chain import verify
from app.audit.entries import record
from app.auth.desk import Desk
from tenancy.context import tenant_scope
from tests.app.conftest import Truth
from tests.app.test_audit_chain import desk as desk
from tests.conftest import ROLES, Database

ANA = Actor(ActorKind.ACCOUNT, "ana", "ana@acme.test")
# What the client sends before it waits: a flight of the library's, or a lone COMMIT of the driver's.
WAITS = (("flights.py", "__exit__"), ("connection.py", "commit"))
# Each call is of some 0.1 us; by the unit of work an entry took 940.
MOST_CALLS = 330


def change(desk: Desk, tenant: UUID, *, entries: int) -> None:
    with acting_as(ANA), tenant_scope(tenant), desk.database.sessions.begin() as session:
        session.execute(text("UPDATE people SET name = name"))
        for number in range(entries):
            record(session, "thing.done", target=("thing", tenant), before={"n": 0}, after={"n": number})


def cost(desk: Desk, tenant: UUID, *, entries: int) -> tuple[int, int]:
    """Return the flights and the function calls of a change, when everything is compiled and prepared."""
    for _ in range(8):
        change(desk, tenant, entries=entries)
    profile = cProfile.Profile()
    profile.enable()
    change(desk, tenant, entries=entries)
    profile.disable()
    found = {(entry.code.co_filename.rpartition("/")[2], entry.code.co_name): entry.callcount
             for entry in profile.getstats() if not isinstance(entry.code, str)}  # fmt: skip
    return sum(found.get(wait, 0) for wait in WAITS), sum(entry.callcount for entry in profile.getstats())


def test_entry_leaves_in_the_flight_of_the_commit(desk: Desk) -> None:
    assert cost(desk, uuid4(), entries=0)[0] == 2
    assert cost(desk, uuid4(), entries=1)[0] == 2


def test_more_entries_leave_together(desk: Desk) -> None:
    assert cost(desk, uuid4(), entries=5)[0] == 2


def test_entry_takes_few_calls(desk: Desk) -> None:
    tenant = uuid4()

    assert cost(desk, tenant, entries=1)[1] - cost(desk, tenant, entries=0)[1] < MOST_CALLS


def test_entry_alone_is_a_transaction_of_two_flights(desk: Desk, truth: Truth) -> None:
    """There is nothing that could have begun it before."""
    tenant = uuid4()

    with acting_as(ANA), tenant_scope(tenant), desk.database.sessions.begin() as session:
        record(session, "thing.done")

    assert truth.execute("SELECT FROM audit_entries WHERE tenant_id = %s", [tenant]).rowcount == 1


def test_entry_of_a_savepoint_goes_with_it(desk: Desk, truth: Truth) -> None:
    tenant = uuid4()

    with acting_as(ANA), tenant_scope(tenant), desk.database.sessions.begin() as session:
        record(session, "thing.before")
        with session.begin_nested() as savepoint:
            record(session, "thing.undone")
            savepoint.rollback()
        with session.begin_nested():
            record(session, "thing.within")

    with tenant_scope(tenant), desk.database.sessions() as session:
        assert verify(session).is_intact
    found = truth.execute("SELECT action FROM audit_entries WHERE tenant_id = %s ORDER BY at", [tenant]).fetchall()
    assert sorted(found) == [("thing.before",), ("thing.within",)]


def test_entry_that_the_server_refuses_undoes_what_it_was_about(desk: Desk, truth: Truth) -> None:
    tenant = uuid4()

    with acting_as(ANA), tenant_scope(tenant), desk.database.sessions() as session:
        session.execute(text("INSERT INTO companies (tenant_id, id, name) VALUES (:t, :t, 'x')"), {"t": tenant})
        record(session, "thing.done", reason="a\0b")
        with pytest.raises(Exception, match="NUL"):
            session.commit()

    assert truth.execute("SELECT FROM companies WHERE tenant_id = %s", [tenant]).rowcount == 0
    change(desk, tenant, entries=1)
    assert truth.execute("SELECT FROM audit_entries WHERE tenant_id = %s", [tenant]).rowcount == 1


# On the server ----------------------------------------------------------------------------------------


def test_head_moves_on_within_its_page(desk: Desk, truth: Truth) -> None:
    tenant = uuid4()
    change(desk, tenant, entries=1)
    counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_all_tables WHERE relname = 'audit_heads'"

    with truth.transaction():
        truth.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
        for _ in range(40):
            truth.execute(
                "INSERT INTO audit_entries (tenant_id, id, action, actor_kind, actor_id, actor_label)"
                " VALUES (%s, gen_random_uuid(), 'thing.done', 'system', 'x', 'x')",
                [tenant],
            )
        truth.execute("SET CONSTRAINTS ALL IMMEDIATE")
        row = truth.execute(counts).fetchone()

    assert row is not None
    assert row[0] == 40
    assert row[1] >= 38


def test_entry_is_in_four_indexes(truth: Truth) -> None:
    """Its key, its time for the list, its action with it, and what it was done to: each serves a query."""
    count = "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass"

    assert truth.execute(count, ["audit_entries"]).fetchone() == (4,)
    assert truth.execute(count, ["platform_entries"]).fetchone() == (4,)


def test_trigger_sets_nothing(truth: Truth) -> None:
    """A search path of its own made the server plan the policies' functions anew, twice for each entry."""
    found = truth.execute("SELECT proconfig FROM pg_proc WHERE proname IN ('audit_link', 'platform_link')").fetchall()

    assert found == [(None,), (None,)]


def test_trigger_is_not_misled_by_a_search_path(database: Database, desk: Desk, truth: Truth) -> None:
    """T033"""
    tenant, evil = uuid4(), f"evil_{uuid4().hex}"
    shadows = (
        "sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT 'x'::bytea $$",
        "jsonb_build_object(VARIADIC \"any\") RETURNS jsonb LANGUAGE internal AS 'jsonb_build_object_noargs'",
        "clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '2001-01-01'::timestamptz $$",
        "convert_to(text, name) RETURNS bytea LANGUAGE sql AS $$ SELECT 'x'::bytea $$",
        "same(uuid, uuid) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$",
        "glue(bytea, bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT 'x'::bytea $$",
        "glue(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'x'::text $$",
        "less(bigint, integer) RETURNS bigint LANGUAGE sql AS $$ SELECT 1::bigint $$",
    )
    truth.execute(f"CREATE SCHEMA {evil}")
    for shadow in shadows:
        truth.execute(f"CREATE FUNCTION {evil}.{shadow}")
    for name, left, right, function in (
        ("=", "uuid", "uuid", "same"),
        ("||", "bytea", "bytea", "glue"),
        ("||", "text", "text", "glue"),
        ("+", "bigint", "integer", "less"),
    ):
        truth.execute(
            f"CREATE OPERATOR {evil}.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {evil}.{function})"
        )
    for table in ("audit_heads", "audit_links"):
        truth.execute(f"CREATE TABLE {evil}.{table} (LIKE public.{table})")
    truth.execute(f"GRANT USAGE ON SCHEMA {evil} TO PUBLIC")

    with database.connect(ROLES.app) as session, session.transaction():
        session.execute(f"SET LOCAL search_path = {evil}, public, pg_catalog, pg_temp")
        session.execute(f"SET LOCAL app.tenant_id = '{tenant}'".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege), session.transaction():
            session.execute("SELECT FROM audit_heads")
        session.execute(
            "INSERT INTO audit_entries (tenant_id, id, action, actor_kind, actor_id, actor_label)"
            " VALUES (%s, %s, 'thing.done', 'system', 'x', 'x')",
            [tenant, uuid4()],
        )

    with tenant_scope(tenant), desk.database.sessions() as later:
        verdict = verify(later)
    truth.execute(f"DROP SCHEMA {evil} CASCADE")
    assert (verdict.is_intact, verdict.number) == (True, 1)
