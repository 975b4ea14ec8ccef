"""The command line of tenants: what an operator does to one of them, or to many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click
from flask.cli import AppGroup
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sqlalchemy import select

from app.audit.actors import acting_as
from app.cli.operators import operated, operator_of, table_of
from app.errors import ProblemError
from app.schemas import Answer
from app.tenants import operations
from app.tenants.bulk import Outcome, Preview, Wanted, carry_on, outcome, preview, start_run
from app.tenants.jobs import check_due_domains, erase_due_tenants
from app.tenants.models import Plan, StepState, Transition
from app.tenants.provisioning import make_tenant, provision
from app.tenants.registrar import Registrar, registrar
from app.tenants.states import Status
from app.tenants.steps import Progress as StepProgress
from tenancy.directory import Reference, TenantRecord

tenants = AppGroup("tenants", help="Create tenants, suspend, archive, delete and erase them; one or many.")
_TENANT = click.argument("tenant")
_REASON = click.option("--reason", required=True, help="Why; it stands in the audit.")


class Now(Answer):
    """What a tenant has become."""

    id: UUID
    slug: str
    status: Status


class Turn(Answer):
    """One turn of a tenant's life."""

    at: datetime
    from_status: str | None
    to_status: str
    actor_label: str
    reason: str


class History(Answer):
    """What became of a tenant, from the beginning."""

    items: list[Turn]


def _now(found: Now) -> RenderableType:
    return f"{found.slug} is {found.status}."


def _turns(found: History) -> RenderableType:
    return table_of(
        ("when", "from", "to", "by", "why"),
        [(f"{t.at:%Y-%m-%d %H:%M:%S}", t.from_status, t.to_status, t.actor_label, t.reason) for t in found.items],
    )


@tenants.command("create")
@click.argument("name")
@click.option("--plan", type=click.Choice([plan.value for plan in Plan]), default=Plan.BASIC.value, show_default=True)
@click.option("--slug", help="Without it, one is taken from the name.")
@click.option("--owner", "owner_email", help="E-mail address of who is invited to own it.")
@click.option("--domain", help="A custom domain to claim for it.")
@click.option("--with-examples", is_flag=True, help="Fill it with something to look at.")
@_REASON
def create(
    name: str,
    plan: str,
    slug: str | None,
    owner_email: str | None,
    domain: str | None,
    with_examples: bool,
    reason: str,
) -> None:
    """Create a tenant called NAME, and take every step that makes it ready."""
    with _as_operator("tenants create"):
        made, steps = make_tenant(
            registrar(),
            name=name,
            plan=plan,
            reason=reason,
            slug=slug,
            owner_email=owner_email,
            domain=domain,
            with_examples=with_examples,
        )
        click.echo(f"{made.slug} has the id {made.id}.")
    _show_steps(steps)


@tenants.command("provision")
@_TENANT
@_REASON
def go_on(tenant: str, reason: str) -> None:
    """Take the steps that TENANT, a slug or an id, is still missing."""
    with _as_operator("tenants provision"):
        steps = provision(registrar(), _found(tenant).id, reason=reason)
    _show_steps(steps)


@tenants.command("suspend")
@_TENANT
@_REASON
@operated(_now)
def suspend(tenant: str, reason: str) -> Now:
    """Stop serving TENANT until it is resumed; its members are told."""
    return _move(tenant, reason, operations.suspend)


@tenants.command("resume")
@_TENANT
@_REASON
@operated(_now)
def resume(tenant: str, reason: str) -> Now:
    """Serve TENANT again, and let its parked jobs run."""
    return _move(tenant, reason, operations.resume)


@tenants.command("archive")
@_TENANT
@_REASON
@operated(_now)
def archive(tenant: str, reason: str) -> Now:
    """Close TENANT and keep its data."""
    return _move(tenant, reason, operations.archive)


@tenants.command("delete")
@_TENANT
@click.option("--grace-days", type=click.IntRange(0, 3650), help="Until it is erased; without it, the usual time.")
@_REASON
@operated(_now)
def delete(tenant: str, grace_days: int | None, reason: str) -> Now:
    """Close TENANT now, and have it erased when the grace is over; `keep` undoes that until then."""
    grace = None if grace_days is None else timedelta(days=grace_days)

    def schedule(office: Registrar, tenant_id: UUID, *, reason: str) -> TenantRecord:
        return operations.schedule_deletion(office, tenant_id, reason=reason, grace=grace)

    return _move(tenant, reason, schedule)


@tenants.command("keep")
@_TENANT
@_REASON
@operated(_now)
def keep(tenant: str, reason: str) -> Now:
    """Undo the deletion of TENANT: it is what it was before."""
    return _move(tenant, reason, operations.cancel_deletion)


@tenants.command("history")
@_TENANT
@operated(_turns)
def show_history(tenant: str) -> History:
    """Show what became of TENANT, when, by whom and why."""
    with registrar().in_tenant(_found(tenant).id, reason="history of a tenant") as session:
        rows = session.scalars(select(Transition).order_by(Transition.at, Transition.id))
        return History(items=[Turn.model_validate(row) for row in rows])


@tenants.command("change-many")
@click.option("--to", "to", type=click.Choice([one.value for one in Status]), required=True, help="The new status.")
@click.option("--status", type=click.Choice([one.value for one in Status]), help="Only those that have it now.")
@click.option("--plan", help="Only those on this plan.")
@click.option("--created-before", type=click.DateTime(["%Y-%m-%d"]), help="Only those made before this day, UTC.")
@click.option("--id", "ids", type=click.UUID, multiple=True, help="Only these; may be given many times.")
@click.option("--token", help="Of the dry run; without it, this is the dry run.")
@click.option("--reason", help="Why; needed with --token.")
def change_many(
    to: str,
    status: str | None,
    plan: str | None,
    created_before: datetime | None,
    ids: tuple[UUID, ...],
    token: str | None,
    reason: str | None,
) -> None:
    """Take many tenants to another status. Without --token it only says which."""
    day = created_before.replace(tzinfo=UTC) if created_before is not None else None
    wanted = Wanted(Status(status) if status else None, plan, day, tuple(sorted(ids)))
    with _as_operator("tenants change-many"):
        if token is None:
            _show(preview(registrar(), wanted, Status(to)))
            return
        if not reason:
            raise click.UsageError("--reason is missing: it stands in the audit of each tenant")
        run_id = start_run(registrar(), wanted, Status(to), token=token, reason=reason)
        click.echo(f"This is run {run_id}; stopped, it goes on with: tenants go-on-with {run_id}")
        _carry_on(run_id)


@tenants.command("go-on-with")
@click.argument("run_id", type=click.UUID)
def go_on_with(run_id: UUID) -> None:
    """Change the tenants of RUN_ID that are still waiting."""
    with _as_operator("tenants go-on-with"):
        _carry_on(run_id)


@tenants.command("erase-due")
def erase_due() -> None:
    """Erase every tenant whose deletion has fallen due; the worker does so by itself."""
    click.echo(f"{erase_due_tenants(registrar())} erased.")


@tenants.command("check-domains")
def check_domains() -> None:
    """Look again at every verified domain whose turn it is; the worker does so by itself."""
    click.echo(f"{check_due_domains(registrar())} checked.")


@contextmanager
def _as_operator(command: str) -> Iterator[None]:
    """Act in the name of who is signed in to this machine; a refusal is one sentence."""
    try:
        with acting_as(operator_of(command)):
            yield
    except ProblemError as error:
        faults = "; ".join(f"{fault.field} {fault.message}" for fault in error.errors)
        raise click.ClickException(f"{error.detail} {faults}".strip()) from None


def _found(text: str) -> TenantRecord:
    try:
        by_id: UUID | None = UUID(text)
    except ValueError:
        by_id = None
    reference = Reference("slug", text.lower()) if by_id is None else Reference("id", str(by_id))
    tenant = registrar().directory.find(reference)
    if tenant is None:
        raise click.ClickException(f"No tenant has the slug or the id {text!r}.")
    return tenant


def _move(tenant: str, reason: str, change: Callable[..., TenantRecord]) -> Now:
    now = change(registrar(), _found(tenant).id, reason=reason)
    return Now(id=now.id, slug=now.slug, status=Status(now.status))


def _show_steps(steps: Sequence[StepProgress]) -> None:
    table = Table("step", "state", "attempts", "error")
    for step in steps:
        table.add_row(step.step, step.state, str(step.attempts), step.error)
    Console().print(table)
    if any(step.state is not StepState.DONE for step in steps):
        raise click.ClickException("It stays closed. Put right what failed, then: tenants provision")


def _show(found: Preview) -> None:
    table = Table("tenant", "slug", "is")
    for tenant_id, slug, status in found.shown:
        table.add_row(str(tenant_id), slug, status)
    Console().print(table)
    click.echo(f"{found.changed} would change; {found.refused} match and cannot. Do it with: --token {found.token}")


def _carry_on(run_id: UUID) -> None:
    now: Outcome = outcome(registrar(), run_id)
    columns = (TextColumn("tenants"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        line = bar.add_task("tenants", total=now.total, completed=now.total - now.waiting)
        for now in carry_on(registrar(), run_id):
            bar.update(line, completed=now.total - now.waiting)
    found = outcome(registrar(), run_id)
    click.echo(f"{found.done} changed, {found.failed} failed.")
    for target, error in (found.errors or {}).items():
        click.echo(f"  {target}: {error}", err=True)
    if found.failed:
        raise SystemExit(1)
