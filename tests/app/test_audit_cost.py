"""What an entry costs the request that is audited: one statement, and no other round trip to learn anything."""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy import event, text

from app.audit.actors import Actor, ActorKind, acting_as
from app.audit.entries import record
from app.auth.desk import Desk
from tenancy.context import tenant_scope
from tests.app.test_audit_chain import desk as desk

ANA = Actor(ActorKind.ACCOUNT, "ana", "ana@acme.test")


def statements(desk: Desk, tenant: UUID, *, entries: int) -> list[str]:
    """Return what is sent for a change with so many entries."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(desk.database.engine, "before_cursor_execute", note)
    try:
        with acting_as(ANA), tenant_scope(tenant), desk.database.sessions.begin() as session:
            session.execute(text("UPDATE people SET name = name"))
            for _ in range(entries):
                record(session, "thing.done", after={"n": 1})
    finally:
        event.remove(desk.database.engine, "before_cursor_execute", note)
    return seen


def test_entry_is_one_statement_of_the_flush(desk: Desk) -> None:
    without = statements(desk, uuid4(), entries=0)
    with_one = statements(desk, uuid4(), entries=1)

    assert len(without) == 1
    assert [sent.split()[2] for sent in with_one[1:]] == ["audit_entries"]


def test_more_entries_of_one_flush_go_out_together(desk: Desk) -> None:
    assert len(statements(desk, uuid4(), entries=5)) == 2
