"""What the routes of the configuration take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from app.schemas import Answer, Body, ListQuery, Name, Text


class NewValue(Body):
    """What to set a key to."""

    value: Any = Field(description="A value of the key's type.")
    reason: Name | None = None


class Restoring(Body):
    """Why a change is taken back."""

    reason: Name | None = None


class ChangeQuery(ListQuery):
    """Which changes to list."""

    key: Text | None = Field(None, max_length=100, description="Of this key only.")
    sort: Text = "-at"


class ChangeAnswer(Answer):
    """One change of one key: what the tenant had set before and after; null where it had set nothing."""

    id: UUID
    at: datetime
    key: str
    before: Any
    after: Any
    actor_label: str
    reason: str | None


class ChangeList(Answer):
    """A page of changes."""

    items: list[ChangeAnswer]
    next_cursor: str | None
