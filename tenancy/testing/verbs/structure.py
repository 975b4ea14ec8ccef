"""What is not a statement of an actor: the policies themselves, and the predicate that sessions add."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from tenancy.testing.verbs.attempts import Attempt, Outcome

_NAMED = re.compile(r"\btenant_id\"? = %\((?P<parameter>\w+)\)s")


def policies(attempt: Attempt) -> None:
    """The table carries the policies and grants that its model asks for, word for word."""
    found = attempt.stage.differences().get(attempt.table.key, [])
    as_written = "as the model asks"
    attempt.judge("policies and grants", Outcome(words=as_written), Outcome(words="; ".join(found) or as_written))


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
