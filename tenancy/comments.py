"""SQL comments: whose statement it is and what asked for it, where the server's logs and pg_stat_activity show it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Engine, event

from tenancy.context import current_scope

Tags = Callable[[], Mapping[str, str]]

# What could end the comment, be taken for a placeholder, or be no character of the server's encoding.
_UNPRINTABLE = re.compile(r"[^A-Za-z0-9._~/:@+-]")
_LONGEST = 200


def comment_statements(engine: Engine, tags: Tags | None = None) -> None:
    """Append `/*tenant_id='…'*/` to each statement of the engine, in sqlcommenter's form, and the caller's tags.

    engine: before its first connection. tags: asked for each statement, so it answers from memory; such as the id of
    the request and its route. No secrets: the server's logs keep them. A character that is no letter, digit or one of
    `._~/:@+-` becomes `_`.
    A text that differs each time cannot be prepared, so this engine's statements are planned each time.
    Source: the sqlcommenter specification, https://google.github.io/sqlcommenter/spec.
    """

    def leave_unprepared(connection: Any, _entry: object) -> None:
        connection.prepare_threshold = None

    def append(
        _connection: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: bool
    ) -> tuple[str, Any]:
        return f"{statement.rstrip().rstrip(';')} {comment(tags)}".rstrip(), parameters

    event.listen(engine, "connect", leave_unprepared)
    event.listen(engine, "before_cursor_execute", append, retval=True)


def comment(tags: Tags | None = None) -> str:
    """Return the comment for a statement of the current scope; "" when there is nothing to say."""
    scope = current_scope()
    found = dict(tags()) if tags is not None else {}
    if scope is not None and scope.tenant is not None:
        found["tenant_id"] = str(scope.tenant)
    shown = ",".join(f"{_plain(name)}='{_plain(found[name])}'" for name in sorted(found) if found[name])
    return f"/*{shown}*/" if shown else ""


def _plain(text: str) -> str:
    # Two of these would not end a comment without the other, but `/*` could begin one inside it.
    return _UNPRINTABLE.sub("_", text)[:_LONGEST]
