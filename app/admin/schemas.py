"""What the admin routes of tenants take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from app.schemas import Answer, Body, Email, ListQuery, Name, Query, Text, omitted
from app.staff.schemas import Reason
from app.tenants.models import Plan, StepState
from app.tenants.states import Status

GivenSlug = Annotated[Text, StringConstraints(min_length=1, max_length=63)]


class TenantQuery(ListQuery):
    """The query of the list of tenants."""

    status: Status | None = None
    plan: Plan | None = None
    search: Annotated[Text, StringConstraints(max_length=200)] | None = Field(
        None, description="Part of a name or slug, of one or two characters its beginning; or a whole id."
    )
    sort: str = Field("-created_at", description="`created_at`, `name`, or either with `-` for downwards.")


class TenantItem(Answer):
    """One tenant."""

    id: UUID
    slug: str
    name: str
    status: Status
    plan: Plan
    plan_version: int
    created_at: datetime
    updated_at: datetime
    erase_after: datetime | None = Field(
        description="When a scheduled deletion falls due; it can be undone until then."
    )


class TenantPage(Answer):
    """One page of tenants, and how many there are in each state, which may be some seconds old."""

    items: list[TenantItem]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")
    counts: dict[Status, int]


class StepItem(Answer):
    """One step of provisioning."""

    step: str
    state: StepState
    attempts: int
    error: str | None
    finished_at: datetime | None


class TenantDetail(TenantItem):
    """One tenant, what may become of it, and how far its provisioning is."""

    allowed: list[Status] = Field(description="The states that may follow by somebody's decision.")
    steps: list[StepItem]


class NewTenant(Body):
    """A tenant to create. It is pending until it was provisioned."""

    name: Name
    plan: Plan
    slug: GivenSlug | None = Field(None, description="Left out: taken from the name.")
    owner_email: Email | None = Field(None, description="Who is invited to own it.")
    domain: Annotated[Text, StringConstraints(min_length=1, max_length=253)] | None = Field(
        None, description="A custom domain to claim for it."
    )
    with_examples: bool = Field(False, description="Whether it starts with examples in it.")
    reason: Reason


class TenantChange(Body):
    """Another name or slug, or both. The old slug stays reserved."""

    name: Name = omitted()
    slug: GivenSlug = omitted()
    reason: Reason


class StatusChange(Body):
    """Another status."""

    status: Status
    reason: Reason


class DeletionQuery(Query):
    """Why a tenant is deleted."""

    reason: Reason


class Stats(Answer):
    """Figures over all tenants, some seconds old at most."""

    tenants: int
    by_status: dict[Status, int]
    by_plan: dict[Plan, int]
    counted_at: datetime
