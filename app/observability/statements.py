"""SQL comments, where the settings ask for them: the server's log then says whose statement was slow."""

from __future__ import annotations

from app.config import Settings
from app.db import Database
from app.observability.tags import current_tags
from tenancy.comments import comment_statements

_SHOWN = ("request_id", "route", "task")


def init_app(settings: Settings, database: Database) -> None:
    """Tag the statements of both engines; before their first connection."""
    if settings.sql_comments:
        comment_statements(database.engine, statement_tags)
        comment_statements(database.platform_engine, statement_tags)


def statement_tags() -> dict[str, str]:
    """Return what a statement says besides its tenant: nobody's address or id, for the server's log keeps it."""
    tags = current_tags()
    return {name: tags[name] for name in _SHOWN if name in tags}
