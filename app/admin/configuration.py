"""Configuration of one tenant, for platform staff: what its plan grants can be replaced, its own values cannot."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.overrides import ValueOverride, Withdrawal
from app.admin.scopes import in_tenant
from app.configuration.models import ConfigurationChange
from app.configuration.operations import known_key
from app.configuration.routes import CHANGES
from app.configuration.schemas import ChangeAnswer, ChangeList, ChangeQuery
from app.openapi import answers
from app.plans.overrides import override, withdraw_override
from app.plans.schemas import SettingAnswer, SettingList
from app.plans.standing import standings
from app.plans.terms import TermKind
from app.staff.permissions import StaffPermission


@blueprint.get("/tenants/<uuid:tenant_id>/config")
@staff_may(StaffPermission.CONFIG_READ)
@answers(200, SettingList, tag="admin: configuration")
def list_config(tenant_id: UUID) -> SettingList:
    """List every key with the value that counts for the tenant, and why it is what it is."""
    with in_tenant(tenant_id, reason="admin API: configuration") as session:
        return SettingList.of(standings().read(session))


@blueprint.get("/tenants/<uuid:tenant_id>/config-history")
@staff_may(StaffPermission.CONFIG_READ)
@answers(200, ChangeList, tag="admin: configuration")
def list_config_changes(tenant_id: UUID, query: ChangeQuery) -> ChangeList:
    """List what the tenant set itself and when, the latest first."""
    rows = select(ConfigurationChange)
    if query.key is not None:
        rows = rows.where(ConfigurationChange.key == query.key)
    with in_tenant(tenant_id, reason="admin API: history of the configuration") as session:
        page = CHANGES.page(session, rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
        return ChangeList(items=[ChangeAnswer.model_validate(row) for row in page.rows], next_cursor=page.next_cursor)


@blueprint.put("/tenants/<uuid:tenant_id>/config/<key>")
@staff_may(StaffPermission.CONFIG_WRITE)
@answers(200, SettingAnswer, tag="admin: configuration")
def override_config(tenant_id: UUID, key: str, json: ValueOverride) -> SettingAnswer:
    """Grant a tenant another value than its plan does, until a time if one is given."""
    known = known_key(key)
    with in_tenant(tenant_id, reason=json.reason) as session:
        override(session, TermKind.CONFIGURATION, key, json.value, reason=json.reason, expires_at=json.expires_at)
        return SettingAnswer.of(standings().read(session), known)


@blueprint.delete("/tenants/<uuid:tenant_id>/config/<key>")
@staff_may(StaffPermission.CONFIG_WRITE)
@answers(200, SettingAnswer, tag="admin: configuration")
def withdraw_config(tenant_id: UUID, key: str, query: Withdrawal) -> SettingAnswer:
    """Let the plan say again what the tenant is granted."""
    known = known_key(key)
    with in_tenant(tenant_id, reason=query.reason) as session:
        withdraw_override(session, TermKind.CONFIGURATION, key, reason=query.reason)
        return SettingAnswer.of(standings().read(session), known)
