"""Changing the status of many tenants: a dry run, then a run that a worker does."""

from __future__ import annotations

from uuid import UUID

from flask import url_for
from pydantic import AwareDatetime, Field

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.openapi import answers
from app.queue import enqueue_platform
from app.schemas import Answer, Body, Query, Text
from app.staff.permissions import StaffPermission
from app.staff.principals import check_reach, require_staff
from app.staff.schemas import Reason
from app.tenants import bulk
from app.tenants.jobs import carry_on_run
from app.tenants.registrar import registrar
from app.tenants.states import Status


class TenantFilter(Body):
    """Which tenants: those that match all that is given."""

    status: Status | None = None
    plan: Text | None = Field(None, max_length=63)
    created_before: AwareDatetime | None = None
    ids: list[UUID] = Field(default_factory=list, max_length=10_000)

    def wanted(self) -> bulk.Wanted:
        return bulk.Wanted(
            status=self.status, plan=self.plan, created_before=self.created_before, ids=tuple(sorted(self.ids))
        )


class DryRun(Body):
    """Which tenants would go to which status."""

    filter: TenantFilter
    status: Status


class BulkOrder(DryRun):
    """A run over exactly the tenants of a dry run."""

    token: Text = Field(min_length=1, max_length=100, description="Of the dry run.")
    reason: Reason


class Shown(Answer):
    """A tenant that would change."""

    tenant_id: UUID
    slug: str
    status: Status


class DryRunAnswer(Answer):
    """What a run would do. Nothing was changed."""

    changed: int = Field(description="How many would change.")
    refused: int = Field(description="How many match the filter, and cannot go to this status.")
    tenants: list[Shown] = Field(description="The first of those that would change.")
    token: str = Field(description="What the run has to bring. It stands for these tenants and this status only.")


class Failure(Answer):
    """A tenant that did not change, and why."""

    tenant_id: UUID
    error: str


class RunAnswer(Answer):
    """How far a run is."""

    id: UUID
    total: int
    done: int
    failed: int
    waiting: int
    errors: list[Failure] = Field(description="The first of those that failed.")

    @classmethod
    def of(cls, found: bulk.Outcome) -> RunAnswer:
        return cls(
            id=found.run_id,
            total=found.total,
            done=found.done,
            failed=found.failed,
            waiting=found.waiting,
            errors=[Failure(tenant_id=target, error=error) for target, error in (found.errors or {}).items()],
        )


class RunQuery(Query):
    """A run has nothing to ask for."""


@blueprint.post("/tenants/bulk/preview")
@staff_may(StaffPermission.TENANTS_READ)
@answers(200, DryRunAnswer, tag="tenants")
def preview_bulk(json: DryRun) -> DryRunAnswer:
    """Say which tenants would change, and change none."""
    found = bulk.preview(registrar(), json.filter.wanted(), json.status)
    return DryRunAnswer(
        changed=found.changed,
        refused=found.refused,
        tenants=[Shown(tenant_id=one, slug=slug, status=Status(status)) for one, slug, status in found.shown],
        token=found.token,
    )


@blueprint.post("/tenants/bulk")
@staff_may(StaffPermission.TENANTS_WRITE)
@answers(202, RunAnswer, tag="tenants")
def start_bulk(json: BulkOrder) -> tuple[RunAnswer, int, dict[str, str]]:
    """Have a worker change the tenants of a dry run. If others match by now, nothing is done: look again."""
    if json.status is Status.DELETING:
        check_reach(require_staff(), frozenset({StaffPermission.TENANTS_DELETE}))
    run_id = bulk.start_run(
        registrar(),
        json.filter.wanted(),
        json.status,
        token=json.token,
        reason=json.reason,
        undoes_deletions=StaffPermission.TENANTS_DELETE in require_staff().permissions,
        then=lambda session, run_id: enqueue_platform(session, carry_on_run, run_id=str(run_id)),
    )
    found = RunAnswer.of(bulk.outcome(registrar(), run_id))
    return found, 202, {"Location": url_for("admin.read_bulk", run_id=run_id)}


@blueprint.get("/tenants/bulk/<uuid:run_id>")
@staff_may(StaffPermission.TENANTS_READ)
@answers(200, RunAnswer, tag="tenants")
def read_bulk(run_id: UUID, query: RunQuery) -> RunAnswer:
    """Say how far a run is."""
    return RunAnswer.of(bulk.outcome(registrar(), run_id))
