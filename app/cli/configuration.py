"""The configuration of one tenant at the command line."""

from __future__ import annotations

import json
from uuid import UUID

import click
from flask.cli import AppGroup
from rich.console import RenderableType
from sqlalchemy import select

from app.admin.scopes import in_tenant
from app.cli.operators import REASON, TENANT, operated, table_of, tenant_named
from app.cli.plans import json_of
from app.configuration import operations
from app.configuration.keys import KEYS, Key
from app.configuration.models import ConfigurationChange
from app.configuration.routes import CHANGES
from app.configuration.schemas import ChangeAnswer, ChangeList
from app.plans.schemas import SettingAnswer, SettingList
from app.plans.standing import standings

config = AppGroup("config", help="Show and set what a tenant has configured, and restore what it was.")


def _settings(found: SettingList) -> RenderableType:
    rows = [(one.key, json.dumps(one.value), one.steps[-1].source, one.steps[-1].why) for one in found.items]
    return table_of(("key", "is", "by", "why"), rows)


def _setting(found: SettingAnswer) -> RenderableType:
    return _settings(SettingList(items=[found]))


def _changes(found: ChangeList) -> RenderableType:
    rows = [
        (f"{one.at:%Y-%m-%d %H:%M:%S}", one.key, json.dumps(one.before), json.dumps(one.after), one.actor_label, one.id)
        for one in found.items
    ]
    return table_of(("when", "key", "before", "after", "by", "id"), rows)


@config.command("get")
@TENANT
@click.argument("key", required=False)
@operated(_settings)
def get(tenant: str, key: str | None) -> SettingList:
    """Show what counts for TENANT, of one KEY or of all, and what decided; of a secret, whether it is set."""
    keys = list(KEYS.values()) if key is None else [_known(key)]
    with in_tenant(tenant_named(tenant), reason="command line: configuration") as session:
        standing = standings().read(session)
    return SettingList(items=[SettingAnswer.of(standing, one) for one in keys])


@config.command("set")
@TENANT
@click.argument("key")
@click.argument("value")
@REASON
@operated(_setting)
def set_(tenant: str, key: str, value: str, reason: str) -> SettingAnswer:
    """Set KEY for TENANT to VALUE, as JSON, as if it had done so itself: within what it was granted."""
    known = _known(key)
    if known.is_secret:
        raise click.UsageError(f"{key} is a secret: only the tenant itself sets it")
    with in_tenant(tenant_named(tenant), reason=reason) as session:
        operations.set_value(session, key, json_of(value), reason=reason)
        return SettingAnswer.of(standings().read(session), known)


@config.command("history")
@TENANT
@click.option("--key", help="Of this key only.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@operated(_changes)
def history(tenant: str, key: str | None, limit: int) -> ChangeList:
    """List what was set for TENANT, when and by whom, the latest first."""
    rows = select(ConfigurationChange)
    if key is not None:
        rows = rows.where(ConfigurationChange.key == key)
    with in_tenant(tenant_named(tenant), reason="command line: history of the configuration") as session:
        page = CHANGES.page(session, rows, sort="-at", cursor=None, limit=limit)
        return ChangeList(items=[ChangeAnswer.model_validate(row) for row in page.rows], next_cursor=page.next_cursor)


@config.command("restore")
@TENANT
@click.argument("change_id", type=click.UUID)
@REASON
@operated(_setting)
def restore(tenant: str, change_id: UUID, reason: str) -> SettingAnswer:
    """Set a key of TENANT back to what it was before the change CHANGE_ID."""
    with in_tenant(tenant_named(tenant), reason=reason) as session:
        change = operations.restore(session, change_id, reason=reason)
        return SettingAnswer.of(standings().read(session), _known(change.key))


def _known(key: str) -> Key[object]:
    if key not in KEYS:
        raise click.UsageError(f"no key is named {key!r}: use one of {', '.join(KEYS)}")
    return KEYS[key]
