"""What staff see of tenants' lives: the history of one, and the erasures of all."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.scopes import across_tenants, in_tenant
from app.audit.actors import ActorKind
from app.openapi import answers
from app.paging import Sorts
from app.schemas import Answer, ListQuery
from app.staff.permissions import StaffPermission
from app.tenants.models import Erasure, Transition
from app.tenants.states import Status

_TRANSITIONS = Sorts(Transition, ("at",))
_ERASURES = Sorts(Erasure, ("started_at",))


class TransitionItem(Answer):
    """One change of a tenant's status."""

    at: datetime
    from_status: Status | None
    to_status: Status
    reason: str
    actor_kind: ActorKind
    actor_label: str


class TransitionPage(Answer):
    """A page of a tenant's history, the newest first."""

    items: list[TransitionItem]
    next_cursor: str | None


class ErasureItem(Answer):
    """The erasure of one tenant, and the proof that nothing was left."""

    id: UUID
    erased_tenant: UUID
    slug: str
    started_at: datetime
    finished_at: datetime | None
    counted: dict[str, int]
    remaining: dict[str, int]


class ErasurePage(Answer):
    """A page of erasures, the newest first."""

    items: list[ErasureItem]
    next_cursor: str | None


class HistoryQuery(ListQuery):
    """The query of a list in order of time."""


@blueprint.get("/tenants/<uuid:tenant_id>/transitions")
@staff_may(StaffPermission.TENANTS_READ)
@answers(200, TransitionPage, tag="tenants")
def list_transitions(tenant_id: UUID, query: HistoryQuery) -> TransitionPage:
    """List the changes of a tenant's status: when, by whom and why."""
    with in_tenant(tenant_id, reason="admin API: history of a tenant") as session:
        page = _TRANSITIONS.page(session, select(Transition), sort="-at", cursor=query.cursor, limit=query.limit)
    return TransitionPage(items=[TransitionItem.model_validate(row) for row in page.rows], next_cursor=page.next_cursor)


@blueprint.get("/erasures")
@staff_may(StaffPermission.TENANTS_READ)
@answers(200, ErasurePage, tag="tenants")
def list_erasures(query: HistoryQuery) -> ErasurePage:
    """List the erasures that were begun, with the rows counted before and after."""
    with across_tenants(reason="admin API: list erasures") as session:
        page = _ERASURES.page(session, select(Erasure), sort="-started_at", cursor=query.cursor, limit=query.limit)
    return ErasurePage(items=[ErasureItem.model_validate(row) for row in page.rows], next_cursor=page.next_cursor)
