"""What the routes of the audit take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from app.audit.actors import ActorKind
from app.audit.chain import Verdict
from app.schemas import Answer, ListQuery, Query, Text


class _Filters(Query):
    """Which entries; all of what is given must hold."""

    action: Text | None = Field(None, max_length=100, description="Exact, or a noun and a dot: `member.`")
    actor: Text | None = Field(None, max_length=320, description="Id or name of who acted, or impersonated.")
    actor_kind: ActorKind | None = None
    target_kind: Text | None = Field(None, max_length=100)
    target_id: UUID | None = None
    request_id: Text | None = Field(None, max_length=128)
    since: AwareDatetime | None = Field(None, description="Not before this moment.")
    until: AwareDatetime | None = Field(None, description="Before this moment.")


class EntryQuery(_Filters, ListQuery):
    """The query of the list of entries."""

    sort: Literal["at", "-at"] = "-at"


class ExportQuery(_Filters):
    """The query of an export."""

    format: Literal["ndjson", "csv"] = "ndjson"


class EntryAnswer(Answer):
    """One entry. `impersonator` names the staff that acted as the actor."""

    id: UUID
    at: datetime
    action: str
    actor_kind: ActorKind
    actor_id: str
    actor_label: str
    impersonator: str | None
    request_id: str | None
    reason: str | None
    target_kind: str | None
    target_id: UUID | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class EntryList(Answer):
    items: list[EntryAnswer]
    next_cursor: str | None


class FaultAnswer(Answer):
    """The first entry at which the chain is broken."""

    number: int
    entry_id: UUID | None
    what: str


class VerdictAnswer(Answer):
    """What a check of the chain found; keep `number` and `hash` to compare a later check with."""

    is_intact: bool
    checked: int
    pruned: int
    number: int
    hash: str
    fault: FaultAnswer | None

    @classmethod
    def of(cls, verdict: Verdict) -> VerdictAnswer:
        return cls.model_validate(verdict)
