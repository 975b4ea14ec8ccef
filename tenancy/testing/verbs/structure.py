"""What is not a statement of an actor: the policies themselves, and the predicate that sessions add."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from tenancy.rls import quote
from tenancy.testing.verbs.attempts import REFUSED, Attempt, Outcome

_NAMED = re.compile(r"\btenant_id\"? = %\((?P<parameter>\w+)\)s")


def policies(attempt: Attempt) -> None:
    """The table carries the policies and grants that its model asks for, word for word."""
    found = attempt.stage.differences().get(attempt.table.key, [])
    as_written = "as the model asks"
    attempt.judge("policies and grants", Outcome(words=as_written), Outcome(words="; ".join(found) or as_written))


def staff_only(attempt: Attempt) -> None:
    """A table of platform staff is granted to no tenant's role, for nothing at all."""
    name = attempt.shape.sql_name
    first = quote(attempt.table.columns[0].name)
    for what, statement in (
        ("read", f"SELECT * FROM {name}"),  # noqa: S608 - a quoted name
        ("insert", f"INSERT INTO {name} DEFAULT VALUES"),
        ("update", f"UPDATE {name} SET {first} = {first}"),  # noqa: S608 - quoted names
        ("delete", f"DELETE FROM {name}"),  # noqa: S608 - a quoted name
    ):
        refused = Outcome(REFUSED)
        attempt.step(what, _running(statement), owner=refused, stranger=refused, nobody=refused)


def _running(statement: str) -> Callable[[Session], Outcome]:
    def act(session: Session) -> Outcome:
        result: Any = session.connection().execute(text(statement))
        return Outcome(count=result.rowcount)

    return act


def orm_predicate(attempt: Attempt) -> None:
    """A session's select names its tenant by a parameter, so that plans and shards can use it."""
    mapper = attempt.mapper
    sent: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: Any) -> None:
        sent.append((statement, parameters))

    def act(session: Session) -> Outcome:
        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", note)
        try:
            session.execute(select(mapper.class_))
        finally:
            event.remove(engine, "before_cursor_execute", note)
        named = [parameters[found["parameter"]] for text, parameters in sent for found in _NAMED.finditer(text)]
        return Outcome(seen=tuple((str(tenant),) for tenant in named))

    named = Outcome(seen=((str(attempt.owner.id),),))
    attempt.step("select", act, owner=named, stranger=Outcome(seen=((str(attempt.stranger.id),),)))
