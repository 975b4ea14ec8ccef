"""What the operator's commands share: who acts, which tenant is meant, and how the answer is told."""

from __future__ import annotations

import functools
import getpass
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

import click
from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.table import Table
from sqlalchemy import select

from app.admin.scopes import across_tenants
from app.audit.actors import Actor, ActorKind, acting_as
from app.errors import ProblemError
from app.schemas import normalize_email
from app.staff.models import StaffAccount
from app.tenants.registrar import registrar
from tenancy.directory import Reference
from tenancy.errors import TenancyError

Shown = TypeVar("Shown", bound=BaseModel)
Command = Callable[..., Shown]

_STAFF = "staff_email"
_WIDEST = 1_000
_STAFF_HELP = "Address of the staff account that acts; without it, your login here."
REASON = click.option("--reason", required=True, help="Why; it stands in the audit.")


def operated(
    show: Callable[[Shown], RenderableType], *, is_failure: Callable[[Shown], bool] = lambda _answer: False
) -> Callable[[Command[Shown]], Callable[..., None]]:
    """Run a command in the operator's name, and tell its answer: as `show` has it, or as JSON with --json.

    A refusal is one sentence on standard error and exit code 1; so is an answer that is a failure, once it was told.
    """

    def decorate(command: Command[Shown]) -> Callable[..., None]:
        @click.option(
            "--as", "staff_email", help="Address of the staff account that acts; without it, your login here."
        )
        @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
        @functools.wraps(command)
        def run(*args: Any, staff_email: str | None, as_json: bool, **options: Any) -> None:
            with _refusing(), acting_as(operator_of(_name(), staff_email)):
                answer = command(*args, **options)
            if as_json:
                click.echo(json.dumps(answer.model_dump(mode="json"), indent=2))
            else:
                console = Console()
                if not console.is_terminal:  # a table cut to fit is no use to a file, or to the next program
                    console.width = _WIDEST
                console.print(show(answer))
            if is_failure(answer):
                raise SystemExit(1)

        return run

    return decorate


def lets_staff_act(group: click.Group) -> click.Group:
    """Give every command of a group, and of those in it, the option --as; `operator_of` knows whom it names."""
    for command in group.commands.values():
        if isinstance(command, click.Group):
            lets_staff_act(command)
        elif all(parameter.name != _STAFF for parameter in command.params):
            command.params.append(
                click.Option(["--as", _STAFF], help=_STAFF_HELP, expose_value=False, callback=_remember_staff)
            )
    return group


def _remember_staff(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    context.meta[_STAFF] = value


def operator_of(command: str, staff_email: str | None = None) -> Actor:
    """Return who acts: somebody of the staff, or whoever is signed in to this machine.

    staff_email: None takes what was given with --as.
    Raises: ClickException - nobody of the staff has this address, or she is disabled.
    """
    login = getpass.getuser()
    context = click.get_current_context(silent=True)
    if staff_email is None and context is not None:
        staff_email = context.meta.get(_STAFF)
    if staff_email is None:
        return Actor(ActorKind.SYSTEM, command, f"{login} at the command line")
    try:
        email = normalize_email(staff_email)
    except ValueError:
        raise _nobody(staff_email) from None
    asks = Actor(ActorKind.SYSTEM, command, f"{login} at the command line")
    with acting_as(asks), across_tenants(reason="command line: who acts") as session:
        staff_id = session.scalar(
            select(StaffAccount.id).where(StaffAccount.email == email, StaffAccount.disabled_at.is_(None))
        )
    if staff_id is None:
        raise _nobody(staff_email)
    return Actor(ActorKind.STAFF, str(staff_id), f"{email} ({login} at the command line)")


def _nobody(staff_email: str) -> click.ClickException:
    return click.ClickException(f"Nobody of the staff has the address {staff_email!r}, or she is disabled.")


def _name() -> str:
    """Return what the command is called below the program, such as `jobs retry`."""
    return " ".join(click.get_current_context().command_path.split()[1:])


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except ProblemError as error:
        said = [error.detail, *(f"{fault.field} {fault.message}" for fault in error.errors)]
        raise click.ClickException("\n".join(said)) from None
    except TenancyError as error:
        raise click.ClickException(f"{error.message}; {error.hint}" if error.hint else error.message) from None


TENANT = click.argument("tenant")


def tenant_named(text: str) -> UUID:
    """Return the id of the tenant with this slug or id; inside the command, for before it there is no application.

    Raises: ClickException - there is none.
    """
    try:
        reference = Reference("id", str(UUID(text)))
    except ValueError:
        reference = Reference("slug", text.lower())
    found = registrar().directory.find(reference)
    if found is None:
        raise click.ClickException(f"No tenant has the slug or the id {text!r}.")
    return found.id


def table_of(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return a table; what is None is an empty cell."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    return table


def amount_of(value: object) -> str:
    """Return an amount as people read it; None is a limit that there is not."""
    return "unlimited" if value is None else f"{value:,}" if type(value) is int else str(value)
