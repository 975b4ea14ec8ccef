"""The audit's chain: whoever changes, removes, inserts or reorders is found out, and the first entry is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.audit.actors import Actor, ActorKind, acting_as
from app.audit.chain import Verdict, chain_of_platform, verify
from app.audit.entries import record, record_platform
from app.auth.desk import Desk
from tenancy.context import platform_scope, tenant_scope
from tenancy.session import platform_sessionmaker
from tests.app.conftest import Truth, Visitor
from tests.conftest import ROLES, Database

ANA = Actor(ActorKind.ACCOUNT, "ana", "ana@platform.test", request_id="r-1")


@pytest.fixture
def desk(app: Flask) -> Desk:
    found: Desk = app.extensions["auth"]
    return found


@pytest.fixture
def tenant() -> UUID:
    """A tenant in which nothing has happened yet. The audit asks for no row of the registry, and outlives it."""
    return uuid7()


@pytest.fixture
def write(desk: Desk, tenant: UUID) -> Callable[..., None]:
    """Add entries to the tenant's audit, each in a transaction of its own."""

    def add(*actions: str, to: UUID | None = None) -> None:
        for action in actions:
            with acting_as(ANA), tenant_scope(to or tenant), desk.database.sessions.begin() as session:
                record(session, action, target=("thing", uuid7()), before={"n": 1.5}, after={"ü": ["x"]}, reason="why")

    return add


@pytest.fixture
def check(desk: Desk, tenant: UUID) -> Callable[..., Verdict]:
    def run(of: UUID | None = None) -> Verdict:
        with tenant_scope(of or tenant), desk.database.sessions() as session:
            return verify(session)

    return run


@pytest.fixture
def intruder(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A superuser who has switched the triggers off."""
    with database.connect("postgres") as connection:
        connection.autocommit = True
        connection.execute("SET session_replication_role = replica")
        yield connection


def found(verdict: Verdict) -> tuple[int, str]:
    assert verdict.fault is not None
    return verdict.fault.number, verdict.fault.what


def test_chain_of_untouched_entries_is_intact(write: Callable[..., None], check: Callable[..., Verdict]) -> None:
    write("thing.made", "thing.moved", "thing.lost")

    verdict = check()

    assert (verdict.is_intact, verdict.checked, verdict.number, verdict.pruned) == (True, 3, 3, 0)


def test_tenant_without_entries_has_an_intact_chain(check: Callable[..., Verdict]) -> None:
    assert (check().is_intact, check().number) == (True, 0)


def test_chains_of_tenants_begin_differently(
    write: Callable[..., None], check: Callable[..., Verdict], truth: Truth, tenant: UUID, acme: Visitor
) -> None:
    write("thing.made")

    firsts = truth.execute(
        "SELECT previous_hash FROM audit_links WHERE number = 1 AND tenant_id = ANY (%s)", [[tenant, acme.tenant_id]]
    ).fetchall()

    assert len({bytes(first[0]) for first in firsts}) == len(firsts)
    assert check().is_intact


CHANGES = {
    "action": "UPDATE audit_entries SET action = 'thing.kept' WHERE {second}",
    "time": "UPDATE audit_entries SET at = at + interval '1 microsecond' WHERE {second}",
    "actor": "UPDATE audit_entries SET actor_label = 'bob' WHERE {second}",
    "impersonator": "UPDATE audit_entries SET impersonator = 'bob' WHERE {second}",
    "what was before": """UPDATE audit_entries SET before = '{{"n": 2}}' WHERE {second}""",
    "reason": "UPDATE audit_entries SET reason = NULL WHERE {second}",
    "target": "UPDATE audit_entries SET target_id = gen_random_uuid() WHERE {second}",
    "time of the link": "UPDATE audit_links SET at = at - interval '1 year' WHERE {second}",
    "hash": "UPDATE audit_links SET hash = sha256('x') WHERE {second}",
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_entry_is_named(
    write: Callable[..., None], check: Callable[..., Verdict], intruder: Truth, tenant: UUID, name: str
) -> None:
    write("thing.made", "thing.moved", "thing.lost")
    second = f"tenant_id = '{tenant}' AND id = (SELECT id FROM audit_links WHERE tenant_id = '{tenant}' AND number = 2)"

    assert intruder.execute(CHANGES[name].format(second=second)).rowcount == 1

    assert found(check()) == (2, "the entry was changed")


def test_entry_changed_and_sealed_anew_is_found_at_the_next(
    write: Callable[..., None], check: Callable[..., Verdict], intruder: Truth, tenant: UUID
) -> None:
    write("thing.made", "thing.moved", "thing.lost")
    intruder.execute("UPDATE audit_entries SET reason = 'x' WHERE tenant_id = %s AND action = 'thing.moved'", [tenant])

    reseal(intruder, tenant, [2])

    assert found(check()) == (3, "the entry does not continue the one before it")


def test_removed_entry_is_named(
    write: Callable[..., None], check: Callable[..., Verdict], intruder: Truth, tenant: UUID
) -> None:
    write("thing.made", "thing.moved", "thing.lost")

    intruder.execute("DELETE FROM audit_entries WHERE tenant_id = %s AND action = 'thing.moved'", [tenant])

    assert found(check()) == (2, "the entry was removed")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_entry_removed_with_its_link_is_named(
    write: Callable[..., None], check: Callable[..., Verdict], intruder: Truth, tenant: UUID, number: int
) -> None:
    write("thing.made", "thing.moved", "thing.lost")

    remove(intruder, tenant, number)

    assert found(check()) == (number, "the entry is missing")


def test_chain_cut_short_together_with_its_head_shows_against_an_earlier_head(
    write: Callable[..., None], check: Callable[..., Verdict], intruder: Truth, tenant: UUID
) -> None:
    """What was cut off so is past finding from inside: that is what the head in an export is for."""
    write("thing.made", "thing.moved", "thing.lost")
    earlier = check()

    remove(intruder, tenant, 3)
    cut = "SELECT number, hash FROM audit_links WHERE tenant_id = h.tenant_id ORDER BY number DESC LIMIT 1"
    intruder.execute(f"UPDATE audit_heads h SET (number, hash) = ({cut}) WHERE tenant_id = %s", [tenant])

    later = check()
    assert later.is_intact
    assert (later.number, earlier.number) == (2, 3)


def test_head_set_back_alone_leaves_an_entry_behind_it(
    write: Callable[..., None], check: Callable[..., Verdict], intruder: Truth, tenant: UUID
) -> None:
    write("thing.made", "thing.moved", "thing.lost")

    intruder.execute("UPDATE audit_heads SET number = 2 WHERE tenant_id = %s", [tenant])

    assert found(check()) == (3, "the entry was added behind the head of the chain")


def test_removed_head_leaves_every_entry_behind_it(
    write: Callable[..., None], check: Callable[..., Verdict], intruder: Truth, tenant: UUID
) -> None:
    write("thing.made")

    intruder.execute("DELETE FROM audit_heads WHERE tenant_id = %s", [tenant])

    assert found(check()) == (1, "the entry was added behind the head of the chain")


def test_head_with_another_hash_is_found(
    write: Callable[..., None], check: Callable[..., Verdict], intruder: Truth, tenant: UUID
) -> None:
    write("thing.made")

    intruder.execute("UPDATE audit_heads SET hash = sha256('x') WHERE tenant_id = %s", [tenant])

    assert found(check()) == (1, "the head has another hash")


def test_entry_inserted_past_the_trigger_is_named(
    write: Callable[..., None], check: Callable[..., Verdict], intruder: Truth, tenant: UUID
) -> None:
    write("thing.made")
    forged = uuid7()

    intruder.execute(
        "INSERT INTO audit_entries (tenant_id, id, action, actor_kind, actor_id, actor_label)"
        " VALUES (%s, %s, 'thing.forged', 'system', 'x', 'x')",
        [tenant, forged],
    )

    verdict = check()
    assert found(verdict) == (2, "the entry was inserted past the chain")
    assert verdict.fault is not None
    assert verdict.fault.entry_id == forged


def test_reordered_entries_are_named(
    write: Callable[..., None], check: Callable[..., Verdict], intruder: Truth, tenant: UUID
) -> None:
    write("thing.made", "thing.moved", "thing.lost")

    for number, becomes in ((2, -1), (3, 2), (-1, 3)):
        intruder.execute(
            "UPDATE audit_links SET number = %s WHERE tenant_id = %s AND number = %s", [becomes, tenant, number]
        )

    assert found(check()) == (2, "the entry does not continue the one before it")


def test_link_moved_before_the_beginning_is_named(
    write: Callable[..., None], check: Callable[..., Verdict], intruder: Truth, tenant: UUID
) -> None:
    write("thing.made", "thing.moved")

    intruder.execute("UPDATE audit_links SET number = 0 WHERE tenant_id = %s AND number = 1", [tenant])

    assert found(check()) == (0, "the entry stands before the beginning of the chain")


# What is refused while the triggers are on ------------------------------------------------------------

TABLES = ("audit_entries", "audit_links", "audit_heads")


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "attempt", ["UPDATE {} SET tenant_id = tenant_id WHERE {}", "DELETE FROM {} WHERE {}", "TRUNCATE {} CASCADE --{}"]
)
def test_nobody_changes_or_removes_while_the_triggers_are_on(
    write: Callable[..., None], truth: Truth, tenant: UUID, table: str, attempt: str
) -> None:
    """As a superuser: neither grants nor policies hold her, so what refuses is the trigger, which holds the owner."""
    write("thing.made")

    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        truth.execute(attempt.format(table, f"tenant_id = '{tenant}'"))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("role", ["app", "platform"])
def test_runtime_roles_may_not_update_entries_or_links(desk: Desk, truth: Truth, table: str, role: str) -> None:
    name = getattr(ROLES, role)

    allowed = truth.execute("SELECT has_table_privilege(%s, %s, 'UPDATE')", [name, table]).fetchone()

    assert allowed == (False,)


@pytest.mark.parametrize("table", ["audit_links", "audit_heads"])
def test_app_role_writes_no_link_and_no_head(truth: Truth, table: str) -> None:
    found = truth.execute(
        "SELECT has_table_privilege(%s, %s, 'INSERT'), has_any_column_privilege(%s, %s, 'UPDATE'),"
        " has_table_privilege(%s, %s, 'DELETE')",
        [ROLES.app, table] * 3,
    ).fetchone()

    assert found == (False, False, False)


def test_platform_role_may_not_move_a_head_on(desk: Desk, write: Callable[..., None], tenant: UUID) -> None:
    write("thing.made")

    with (
        platform_scope(actor="ana", reason="test"),
        tenant_scope(tenant),
        desk.database.staff_sessions() as session,
        pytest.raises(Exception, match="append-only"),
    ):
        session.execute(text("UPDATE audit_heads SET number = number + 1, previous_hash = hash, hash = sha256('x')"))


# Transactions -----------------------------------------------------------------------------------------


def test_rolled_back_transaction_leaves_no_gap(
    desk: Desk, write: Callable[..., None], check: Callable[..., Verdict], tenant: UUID
) -> None:
    write("thing.made")

    with acting_as(ANA), tenant_scope(tenant), desk.database.sessions() as session:
        record(session, "thing.undone")
        session.flush()
        session.rollback()
    write("thing.lost")

    assert (check().is_intact, check().number) == (True, 2)


def test_transaction_that_stays_open_holds_nobody_up(
    desk: Desk, write: Callable[..., None], check: Callable[..., Verdict], tenant: UUID
) -> None:
    """The head is taken while committing, not when the entry is written."""
    with acting_as(ANA), tenant_scope(tenant), desk.database.sessions() as session:
        record(session, "thing.slow")
        session.flush()

        write("thing.fast")

        assert check().number == 1
        session.commit()
    assert (check().is_intact, check().number) == (True, 2)


def test_writers_at_one_moment_make_one_chain(
    desk: Desk, check: Callable[..., Verdict], tenant: UUID, truth: Truth
) -> None:
    writers, each = 6, 15
    barrier = Barrier(writers)

    def run(_writer: int) -> None:
        barrier.wait()
        for _ in range(each):
            with acting_as(ANA), tenant_scope(tenant), desk.database.sessions.begin() as session:
                record(session, "thing.made")
                record(session, "thing.moved")

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(run, range(writers)))

    verdict = check()
    assert (verdict.is_intact, verdict.checked) == (True, writers * each * 2)


def test_audited_transactions_that_hold_rows_of_each_other_do_not_deadlock_over_the_head(
    desk: Desk, tenant: UUID, check: Callable[..., Verdict]
) -> None:
    """One holds a row and commits while the other waits for that row with its own entry already written."""
    barrier = Barrier(2)
    with tenant_scope(tenant), desk.database.sessions.begin() as session:
        session.execute(text("INSERT INTO companies (tenant_id, id, name) VALUES (:t, :t, 'x')"), {"t": tenant})

    def run(_writer: int) -> None:
        for _ in range(20):
            barrier.wait()
            with acting_as(ANA), tenant_scope(tenant), desk.database.sessions.begin() as session:
                record(session, "thing.made")
                session.flush()
                session.execute(text("UPDATE companies SET name = 'y'"))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2)))

    assert (check().is_intact, check().number) == (True, 40)


# The platform's ---------------------------------------------------------------------------------------


def test_platform_has_a_chain_of_its_own(desk: Desk, truth: Truth, intruder: Truth) -> None:
    sessions = platform_sessionmaker(desk.database.platform_engine)

    def check() -> Verdict:
        with platform_scope(actor="ana", reason="check"), sessions() as session:
            return verify(session, chain_of_platform())

    with acting_as(ANA), platform_scope(actor="ana", reason="test", reads_only=False), sessions.begin() as session:
        record_platform(session, "plan.published", after={"token": "t"})
    before = check()
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        truth.execute("UPDATE platform_entries SET action = 'x'")
    intruder.execute("UPDATE platform_entries SET reason = 'x' WHERE id = (SELECT id FROM platform_links LIMIT 1)")

    assert before.is_intact
    assert before.checked >= 1
    assert found(check())[1] == "the entry was changed"
    intruder.execute("UPDATE platform_entries SET reason = NULL WHERE reason = 'x'")
    assert check().is_intact


# Tampering --------------------------------------------------------------------------------------------


def remove(intruder: Truth, tenant: UUID, number: int) -> None:
    where = "id = (SELECT id FROM audit_links WHERE tenant_id = %s AND number = %s)"
    intruder.execute(f"DELETE FROM audit_entries WHERE {where}", [tenant, number])
    intruder.execute("DELETE FROM audit_links WHERE tenant_id = %s AND number = %s", [tenant, number])


def reseal(intruder: Truth, tenant: UUID, numbers: Sequence[int]) -> None:
    """Give links the hash that their entries would have now."""
    for number in numbers:
        intruder.execute(
            "UPDATE audit_links l SET hash = sha256(l.previous_hash || convert_to(l.number || ' ' ||"
            """ to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || ' ' || audit_text(e), 'UTF8'))"""
            " FROM audit_entries e WHERE e.tenant_id = l.tenant_id AND e.id = l.id"
            " AND l.tenant_id = %s AND l.number = %s",
            [tenant, number],
        )
