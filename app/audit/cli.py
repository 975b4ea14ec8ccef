"""The command line of the audit: check the chains, write one to a file, check a file."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO
from uuid import UUID

import click
from flask.cli import AppGroup
from rich.console import Console
from rich.progress import track
from sqlalchemy import select

from app.admin.scopes import across_tenants
from app.audit.actors import acting_as
from app.audit.chain import Verdict, chain_of_platform, chain_of_tenant, verify
from app.audit.exports import ExportError, verify_export
from app.audit.models import AuditEntry, AuditHead
from app.audit.reading import ndjson
from app.auth.desk import desk
from app.cli.operators import operator_of
from tenancy.context import platform_scope, tenant_scope
from tenancy.directory import Reference
from tenancy.session import TenantSession

audit = AppGroup("audit", help="Check that nobody has tampered with the audit, and take it along.")
_PLATFORM = "the platform"
_TENANT = click.option("--tenant", help="Slug or id of one tenant; without it all of them, and the platform's own.")


@audit.command("verify")
@_TENANT
def verify_chains(tenant: str | None) -> None:
    """Check the chains, and name the first entry of each that was tampered with; exit code 1 if there is one."""
    console, broken = Console(), 0
    with _as_operator("audit verify"):
        wanted = [_tenant_id(tenant)] if tenant is not None else _tenants()
        for tenant_id in track(wanted, "Checking", console=Console(stderr=True)):
            with _in(tenant_id, "check the audit") as session:
                broken += _tell(console, str(tenant_id), verify(session), tells_intact=tenant is not None)
        if tenant is None:
            with across_tenants(reason="check the platform's audit") as session:
                broken += _tell(console, _PLATFORM, verify(session, chain_of_platform()), tells_intact=True)
            console.print(f"{len(wanted)} tenants checked, {broken} chains broken.")
    raise SystemExit(1 if broken else 0)


@audit.command("verify-file")
@click.argument("file", type=click.File(encoding="utf-8"))
def verify_file(file: TextIO) -> None:
    """Check an NDJSON export; needs no database."""
    try:
        verdict = verify_export(file)
    except ExportError as error:
        raise click.ClickException(f"{error}.") from None
    raise SystemExit(_tell(Console(), file.name, verdict, tells_intact=True))


@audit.command("export")
@click.option("--tenant", help="Slug or id of one tenant; without it the platform's own.")
@click.option("--to", "target", type=click.File("w", encoding="utf-8"), required=True, help="The file to write.")
def export(tenant: str | None, target: TextIO) -> None:
    """Write one chain to a file, as NDJSON with its hashes and head."""
    with _as_operator("audit export"):
        if tenant is None:
            with across_tenants(reason="export the platform's audit") as session:
                target.writelines(ndjson(session, chain_of_platform()))
            return
        with _in(_tenant_id(tenant), "export the audit") as session:
            target.writelines(ndjson(session, chain_of_tenant()))


def _tell(console: Console, whose: str, verdict: Verdict, *, tells_intact: bool) -> int:
    """Print what was found, and return 1 if the chain is broken."""
    if verdict.fault is not None:
        fault = verdict.fault
        named = f", {fault.entry_id}" if fault.entry_id is not None else ""
        console.print(f"[red]BROKEN[/] {whose}: entry {fault.number}{named}: {fault.what}", soft_wrap=True)
        return 1
    if tells_intact:
        console.print(
            f"[green]intact[/] {whose}: {verdict.checked} entries, {verdict.pruned} pruned, "
            f"head {verdict.number} {verdict.hash}",
            soft_wrap=True,
        )
    return 0


def _tenants() -> list[UUID]:
    """Return every tenant that has a head or an entry: who removes the head does not hide the entries."""
    with across_tenants(reason="list tenants with an audit") as session:
        found = {
            *session.scalars(select(AuditHead.tenant_id)),
            *session.scalars(select(AuditEntry.tenant_id).distinct()),
        }
    return sorted(found)


def _tenant_id(named: str) -> UUID:
    try:
        return UUID(named)
    except ValueError:
        found = desk().directory.find(Reference("slug", named))
    if found is None:
        raise click.ClickException(f"No tenant is called {named!r}.")
    return found.id


@contextmanager
def _in(tenant_id: UUID, reason: str) -> Iterator[TenantSession]:
    """Read one tenant as staff; one that has left the registry, too."""
    with (
        platform_scope(actor=f"system:{getpass.getuser()}", reason=reason),
        tenant_scope(tenant_id),
        desk().database.staff_sessions() as session,
    ):
        yield session


@contextmanager
def _as_operator(command: str) -> Iterator[None]:
    with acting_as(operator_of(command)):
        yield
