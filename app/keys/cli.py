"""The command line of keys: what an operator does with master keys and data keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import click
from flask.cli import AppGroup
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.admin.scopes import in_tenant
from app.audit.actors import acting_as
from app.auth.desk import desk
from app.cli.operators import operator_of
from app.keys.masters import keyring
from app.keys.operations import KeyStatus, begin_rotation, finish_rotation, read_status, rotate_master, shred_keys
from app.tenants.models import Tenant
from tenancy.encryption import MasterKeys
from tenancy.encryption.rotation import Progress as Sealed
from tenancy.encryption.stores import read_keys, write_keys

keys = AppGroup("keys", help="Rotate, show and destroy the keys that tenants' values are encrypted with.")
_TENANT = click.option("--tenant", "tenant_id", type=click.UUID, required=True, help="Id of the tenant.")
_REASON = click.option("--reason", required=True, help="Why; it stands in the audit.")


@keys.command("add-master", with_appcontext=False)
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--id", "key_id", help="Of the new key; without it, today's date and a random part.")
def add_master(path: Path, key_id: str | None) -> None:
    """Add a new master key to the file PATH, and make it the current; without a file, make one.

    Give the file to every machine before `rotate-master`, and keep the old keys until it has ended.
    """
    made = read_keys(path).with_new(key_id) if path.exists() else MasterKeys.generate(key_id)
    write_keys(path, made)
    click.echo(f"The current master key in {path} is {made.current}; {len(made.keys)} in all.")


@keys.command("rotate-master")
@_REASON
def rotate_master_key(reason: str) -> None:
    """Wrap every tenant's data keys with the current master key. Stopped, it goes on when it is started again."""
    with _as_operator("keys rotate-master"), _bar("tenants") as bar:
        line = bar.add_task("wrapping", total=None)
        done = rotate_master(
            desk().database,
            keyring(),
            reason=reason,
            watch=lambda number, total: bar.update(line, completed=number, total=total),
        )
    click.echo(f"{done} tenants were wrapped anew: all are under {keyring().store.current_id}.")


@keys.command("rotate-data")
@_TENANT
@_REASON
def rotate_data_key(tenant_id: UUID, reason: str) -> None:
    """Give a tenant a new data key, and seal its values anew. Stopped, it goes on when it is started again."""
    with _as_operator("keys rotate-data"):
        with in_tenant(tenant_id, reason=reason) as session:
            before = read_status(session).current
            version = begin_rotation(session, keyring(), reason=reason)
        click.echo(f"Going on with version {version}." if version == before else f"Version {version} is new.")
        with _bar("rows") as bar:
            lines: dict[str, TaskID] = {}

            def show(sealed: Sealed) -> None:
                if sealed.table not in lines:
                    lines[sealed.table] = bar.add_task(sealed.table)
                bar.update(lines[sealed.table], completed=sealed.done, total=sealed.done + sealed.left)

            after = finish_rotation(desk().database, tenant_id, keyring(), reason=reason, watch=show)
    if after.values_left:
        click.echo(f"{after.values_left} values could not be sealed anew: somebody holds them, or they are damaged.")
        raise SystemExit(1)
    click.echo(
        f"{after.values} values are under version {version}. Run it again in {keyring().ttl_s:g} s: "
        "until then other processes may seal with the version before."
    )


@keys.command("status")
@_TENANT
def show_status(tenant_id: UUID) -> None:
    """Show the versions of a tenant's data key, and how many values are under each."""
    with _as_operator("keys status"), in_tenant(tenant_id, reason="command line: keys") as session:
        status = read_status(session)
    Console().print(_table_of(status))
    if status.is_destroyed:
        click.echo("The keys were destroyed: nothing they sealed can be read.")
    elif status.values_left:
        click.echo(f"{status.values_left} of {status.values} values are under an older version: `keys rotate-data`.")


@keys.command("shred")
@_TENANT
@_REASON
@click.option("--slug", prompt="Slug of the tenant whose values nobody shall ever read again", help="To be sure.")
def shred(tenant_id: UUID, reason: str, slug: str) -> None:
    """Destroy a tenant's data keys. It cannot be undone; the tenant must be archived or deleted."""
    with _as_operator("keys shred"), in_tenant(tenant_id, reason=reason) as session:
        if session.get_one(Tenant, tenant_id).slug != slug:
            raise click.ClickException("That is not the slug of this tenant; nothing was destroyed.")
        destroyed = shred_keys(session, keyring(), reason=reason)
    click.echo(f"{destroyed} data keys were destroyed. Backups hold them, wrapped, for as long as they are kept.")


def _table_of(status: KeyStatus) -> Table:
    table = Table("version", "master key", "made", "destroyed", "values")
    for one in status.versions:
        destroyed = f"{one.destroyed_at:%Y-%m-%d %H:%M}" if one.destroyed_at else ""
        mark = " (current)" if one.version == status.current else ""
        table.add_row(
            f"{one.version}{mark}", one.master_key_id, f"{one.created_at:%Y-%m-%d %H:%M}", destroyed, str(one.values)
        )
    return table


@contextmanager
def _as_operator(command: str) -> Iterator[None]:
    with acting_as(operator_of(command)):
        yield


@contextmanager
def _bar(what: str) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(what))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        yield bar
