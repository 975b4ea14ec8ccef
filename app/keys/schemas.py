"""What the admin routes of keys take and answer."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from app.schemas import Answer, Text
from app.staff.schemas import BecauseOf


class ShredRequest(BecauseOf):
    """Why, and of whom, written out: it cannot be undone."""

    slug: Text = Field(max_length=63, description="The tenant's slug, to show that it is the one that is meant.")


class KeyVersionItem(Answer):
    """One version of a tenant's data key; the key itself is never shown."""

    version: int
    master_key_id: str = Field(description="The master key that wraps it.")
    created_at: datetime
    destroyed_at: datetime | None
    values: int = Field(description="Stored values that it sealed.")


class KeyStatusAnswer(Answer):
    """A tenant's data keys, and how far the latest rotation is."""

    current: int | None = Field(description="The version that seals; null before the first, and after destruction.")
    is_destroyed: bool
    values: int = Field(description="Stored values that are encrypted.")
    values_left: int = Field(description="Those that are under an older version than the current.")
    versions: list[KeyVersionItem]
