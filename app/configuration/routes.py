"""A tenant's own configuration over HTTP."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint
from sqlalchemy import select

from app.auth.access import permits
from app.configuration import operations
from app.configuration.models import ConfigurationChange
from app.configuration.operations import known_key
from app.configuration.schemas import ChangeAnswer, ChangeList, ChangeQuery, NewValue, Restoring
from app.db import session
from app.members.permissions import Permission
from app.openapi import answers
from app.paging import Sorts
from app.plans.schemas import SettingAnswer, SettingList
from app.plans.standing import current_standing, standings

blueprint = Blueprint("configuration", __name__, url_prefix="/api/v1")

CHANGES = Sorts(ConfigurationChange, ("at",))


@blueprint.get("/settings")
@permits(Permission.SETTINGS_READ)
@answers(200, SettingList, tag="settings")
def list_settings() -> SettingList:
    """List every key with the value that counts, and why it is what it is."""
    return SettingList.of(current_standing())


@blueprint.get("/settings/<key>")
@permits(Permission.SETTINGS_READ)
@answers(200, SettingAnswer, tag="settings")
def read_setting(key: str) -> SettingAnswer:
    """Read one key, and why its value is what it is."""
    return SettingAnswer.of(current_standing(), known_key(key))


@blueprint.put("/settings/<key>")
@permits(Permission.SETTINGS_MANAGE)
@answers(200, SettingAnswer, tag="settings")
def change_setting(key: str, json: NewValue) -> SettingAnswer:
    """Set one key, within what the tenant was granted."""
    operations.set_value(session(), key, json.value, reason=json.reason)
    return _answered(key)


@blueprint.delete("/settings/<key>")
@permits(Permission.SETTINGS_MANAGE)
@answers(200, SettingAnswer, tag="settings")
def clear_setting(key: str) -> SettingAnswer:
    """Take the tenant's own value away, so that what it was granted counts."""
    operations.clear_value(session(), key)
    return _answered(key)


@blueprint.get("/settings-history")
@permits(Permission.SETTINGS_READ)
@answers(200, ChangeList, tag="settings")
def list_changes(query: ChangeQuery) -> ChangeList:
    """List what was changed and by whom, the latest first."""
    rows = select(ConfigurationChange)
    if query.key is not None:
        rows = rows.where(ConfigurationChange.key == query.key)
    page = CHANGES.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return ChangeList(items=[ChangeAnswer.model_validate(row) for row in page.rows], next_cursor=page.next_cursor)


@blueprint.post("/settings-history/<uuid:configuration_change_id>/restore")
@permits(Permission.SETTINGS_MANAGE)
@answers(200, SettingAnswer, tag="settings")
def restore_setting(configuration_change_id: UUID, json: Restoring) -> SettingAnswer:
    """Set a key back to what it was before this change."""
    return _answered(operations.restore(session(), configuration_change_id, reason=json.reason).key)


def _answered(key: str) -> SettingAnswer:
    answer = SettingAnswer.of(standings().read(session()), known_key(key))
    session().commit()
    return answer
