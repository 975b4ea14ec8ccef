"""Tenants, as platform staff see them, and what they do to them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from flask import url_for
from sqlalchemy import column, func, select
from sqlalchemy.orm import Session

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.schemas import (
    DeletionQuery,
    NewTenant,
    StatusChange,
    StepItem,
    TenantChange,
    TenantDetail,
    TenantItem,
    TenantPage,
    TenantQuery,
)
from app.admin.scopes import across_tenants, in_tenant
from app.admin.stats import tenant_counts
from app.audit.entries import record
from app.errors import InvalidInputError
from app.openapi import answers
from app.paging import Sorts
from app.staff.permissions import StaffPermission
from app.staff.principals import check_reach, require_staff
from app.staff.schemas import BecauseOf
from app.tenants import operations
from app.tenants.models import Tenant
from app.tenants.provisioning import create_tenant as write_tenant
from app.tenants.provisioning import provision
from app.tenants.registrar import locked_tenant, registrar
from app.tenants.states import Status, allowed_from
from app.tenants.steps import progress_of, steps_of
from tenancy.session import PlatformSession

_TENANTS = Sorts(Tenant, ("created_at", "name"))


# Looking ----------------------------------------------------------------------------------------------


@blueprint.get("/tenants")
@staff_may(StaffPermission.TENANTS_READ)
@answers(200, TenantPage, tag="tenants")
def list_tenants(query: TenantQuery) -> TenantPage:
    """List tenants, a page at a time, with how many there are in each state."""
    return page_of_tenants(query, reason="admin API: list tenants")


def page_of_tenants(query: TenantQuery, *, reason: str) -> TenantPage:
    """Return one page of the tenants, in the current actor's name."""
    with across_tenants(reason=reason) as session:
        rows = select(Tenant).where(Tenant.id.in_(_matching(session, query)))
        page = _TENANTS.page(session, rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return TenantPage(
        items=[TenantItem.model_validate(row) for row in page.rows],
        next_cursor=page.next_cursor,
        counts=tenant_counts().by_status,
    )


def _matching(session: PlatformSession, query: TenantQuery) -> Sequence[UUID]:
    """Return the ids of the page, and of one tenant more; however many tenants there are, few rows are read."""
    after_value, after_id = _TENANTS.position(query.sort, query.cursor) or (None, None)
    part = (query.search or "").strip()
    whole_id = _id(part)
    if whole_id is not None:
        wanted = select(Tenant.id).where(Tenant.id == whole_id)
        wanted = wanted if query.status is None else wanted.where(Tenant.status == query.status)
        return session.scalars(wanted if query.plan is None else wanted.where(Tenant.plan == query.plan)).all()
    found = func.search_tenants(
        part,
        query.status,
        query.plan,
        query.sort,
        None if after_value is None else str(after_value),
        after_id,
        query.limit + 1,
    ).table_valued(column("found_id", Tenant.id.type))
    return session.scalars(select(found.c.found_id)).all()


def _id(text: str) -> UUID | None:
    try:
        return UUID(text) if len(text) == 36 else None
    except ValueError:
        return None


@blueprint.get("/tenants/<uuid:tenant_id>")
@staff_may(StaffPermission.TENANTS_READ)
@answers(200, TenantDetail, tag="tenants")
def show_tenant(tenant_id: UUID) -> TenantDetail:
    """Show one tenant, what may become of it, and how far its provisioning is."""
    return describe_tenant(tenant_id, reason="admin API: show tenant")


def describe_tenant(tenant_id: UUID, *, reason: str) -> TenantDetail:
    """Return what there is to know of one tenant, in the current actor's name.

    Raises: RowNotFoundError
    """
    with in_tenant(tenant_id, reason=reason) as session:
        return _described(session, session.get_one(Tenant, tenant_id))


def _described(session: Session, tenant: Tenant) -> TenantDetail:
    former = None if tenant.former_status is None or tenant.erasing_since else Status(tenant.former_status)
    return TenantDetail(
        **TenantItem.model_validate(tenant).model_dump(),
        allowed=list(allowed_from(Status(tenant.status), former=former)),
        steps=[StepItem.model_validate(step) for step in progress_of(steps_of(session))],
    )


# Making and changing ----------------------------------------------------------------------------------


@blueprint.post("/tenants")
@staff_may(StaffPermission.TENANTS_WRITE)
@answers(201, TenantDetail, tag="tenants")
def create_tenant(json: NewTenant) -> tuple[TenantDetail, int, dict[str, str]]:
    """Create a tenant. It is pending, and so closed, until it was provisioned."""
    made = write_tenant(
        registrar(),
        name=json.name,
        plan=json.plan,
        reason=json.reason,
        slug=json.slug,
        owner_email=json.owner_email,
        domain=json.domain,
        with_examples=json.with_examples,
    )
    found = describe_tenant(made.id, reason="admin API: show what was created")
    return found, 201, {"Location": url_for("admin.show_tenant", tenant_id=made.id)}


@blueprint.patch("/tenants/<uuid:tenant_id>")
@staff_may(StaffPermission.TENANTS_WRITE)
@answers(200, TenantDetail, tag="tenants")
def change_tenant(tenant_id: UUID, json: TenantChange) -> TenantDetail:
    """Give a tenant another name or slug. The old slug stays reserved for it."""
    given = json.model_fields_set
    if not given & {"name", "slug"}:
        raise InvalidInputError("Nothing is to be changed: send `name`, `slug` or both.")
    if "slug" in given:  # first: it is what may be refused
        operations.change_slug(registrar(), tenant_id, json.slug, reason=json.reason)
    if "name" in given:
        with in_tenant(tenant_id, reason=json.reason) as session:
            tenant = locked_tenant(session, tenant_id)
            before, tenant.name = tenant.name, json.name
            record(
                session,
                "tenant.renamed",
                target=("tenant", tenant_id),
                before={"name": before},
                after={"name": json.name},
                reason=json.reason,
            )
    return describe_tenant(tenant_id, reason="admin API: show what was changed")


@blueprint.post("/tenants/<uuid:tenant_id>/provision")
@staff_may(StaffPermission.TENANTS_WRITE)
@answers(200, TenantDetail, tag="tenants")
def provision_tenant(tenant_id: UUID, json: BecauseOf) -> TenantDetail:
    """Take the steps that are missing, and open the tenant.

    A step that fails says why in `steps`, and the tenant stays pending; call again to go on from there.
    """
    provision(registrar(), tenant_id, reason=json.reason)
    return describe_tenant(tenant_id, reason="admin API: show what was provisioned")


# The states -------------------------------------------------------------------------------------------


@blueprint.put("/tenants/<uuid:tenant_id>/status")
@staff_may(StaffPermission.TENANTS_WRITE)
@answers(200, TenantDetail, tag="tenants")
def put_status(tenant_id: UUID, json: StatusChange) -> TenantDetail:
    """Take a tenant to another status; `allowed` says which. Every process obeys within a second."""
    return _moved(tenant_id, json.status, reason=json.reason)


@blueprint.post("/tenants/<uuid:tenant_id>/suspend")
@staff_may(StaffPermission.TENANTS_WRITE)
@answers(200, TenantDetail, tag="tenants")
def suspend_tenant(tenant_id: UUID, json: BecauseOf) -> TenantDetail:
    """Stop serving a tenant until it is resumed. Its members are told, nobody else is."""
    return _moved(tenant_id, Status.SUSPENDED, reason=json.reason)


@blueprint.post("/tenants/<uuid:tenant_id>/resume")
@staff_may(StaffPermission.TENANTS_WRITE)
@answers(200, TenantDetail, tag="tenants")
def resume_tenant(tenant_id: UUID, json: BecauseOf) -> TenantDetail:
    """Serve a suspended or archived tenant again."""
    return _moved(tenant_id, Status.ACTIVE, reason=json.reason)


@blueprint.post("/tenants/<uuid:tenant_id>/archive")
@staff_may(StaffPermission.TENANTS_WRITE)
@answers(200, TenantDetail, tag="tenants")
def archive_tenant(tenant_id: UUID, json: BecauseOf) -> TenantDetail:
    """Close a tenant and keep its data."""
    return _moved(tenant_id, Status.ARCHIVED, reason=json.reason)


@blueprint.delete("/tenants/<uuid:tenant_id>")
@staff_may(StaffPermission.TENANTS_DELETE)
@answers(202, TenantDetail, tag="tenants")
def delete_tenant(tenant_id: UUID, query: DeletionQuery) -> tuple[TenantDetail, int]:
    """Close a tenant now, and have it erased at `erase_after`; until then the deletion can be undone."""
    return _moved(tenant_id, Status.DELETING, reason=query.reason), 202


@blueprint.post("/tenants/<uuid:tenant_id>/cancel-deletion")
@staff_may(StaffPermission.TENANTS_DELETE)
@answers(200, TenantDetail, tag="tenants")
def cancel_deletion(tenant_id: UUID, json: BecauseOf) -> TenantDetail:
    """Undo a scheduled deletion: the tenant is what it was before."""
    operations.cancel_deletion(registrar(), tenant_id, reason=json.reason)
    return describe_tenant(tenant_id, reason="admin API: show what was kept")


def _moved(tenant_id: UUID, to: Status, *, reason: str) -> TenantDetail:
    if to is Status.DELETING:
        check_reach(require_staff(), frozenset({StaffPermission.TENANTS_DELETE}))
    may_delete = StaffPermission.TENANTS_DELETE in require_staff().permissions
    operations.change_status(registrar(), tenant_id, to, reason=reason, undoes_deletion=may_delete)
    return describe_tenant(tenant_id, reason="admin API: show the new status")
