"""The command line of staff: who runs the service, and the API keys of their programs. Nobody types a password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import click
from flask import Flask
from flask.cli import AppGroup
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from app.admin.scopes import across_tenants
from app.audit.actors import Actor, ActorKind, acting_as
from app.auth.desk import desk
from app.cli.operators import operator_of
from app.errors import ProblemError, RowNotFoundError
from app.schemas import normalize_email
from app.staff import keys, links, operations
from app.staff.models import StaffAccount, StaffKey
from app.staff.permissions import StaffPermission, StaffRole

staff = AppGroup("staff", help="Say who runs the service, and which of their programs may.")
key = AppGroup("key", help="Make, list and revoke API keys.")
staff.add_command(key)


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return normalize_email(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_EMAIL = click.argument("email", callback=_address)
_REASON = click.option("--reason", required=True, help="Why; it stands in the audit.")


# The people -------------------------------------------------------------------------------------------


@staff.command("create")
@_EMAIL
@click.option("--role", type=click.Choice([*map(str, StaffRole)]), required=True)
@_REASON
def create(email: str, role: str, reason: str) -> None:
    """Add somebody, and print the one-time link by which she sets her password."""
    with _as_operator("staff create"):
        person = operations.add_staff(email=email, role=StaffRole(role), reason=reason)
        token = links.issue_password_link(desk(), person.id, reason=reason)
    click.echo(f"{email} is of the staff, as {role}.\n{_use_of(token)}")


@staff.command("reset-link")
@_EMAIL
@_REASON
def reset_link(email: str, reason: str) -> None:
    """Print a one-time link that sets somebody's password; it voids the one before."""
    with _as_operator("staff reset-link"):
        token = links.issue_password_link(desk(), operations.staff_by_email(desk(), email), reason=reason)
    click.echo(_use_of(token))


@staff.command("first-owner")
def first_owner() -> None:
    """Print the one-time link that makes the first owner; only while there is no staff."""
    with _as_operator("staff first-owner"):
        token = links.issue_first_owner_link(desk())
    if token is None:
        raise click.ClickException("There is staff already: use `staff create`.")
    click.echo(first_owner_help(token, base="https://<host>"))


@staff.command("disable")
@_EMAIL
@_REASON
def disable(email: str, reason: str) -> None:
    """Let somebody no longer in; her sign-ins and keys stop at once."""
    with _as_operator("staff disable"):
        operations.disable_staff(operations.staff_by_email(desk(), email), reason=reason)
    click.echo(f"{email} is disabled.")


@staff.command("list")
def list_staff() -> None:
    """List the staff."""
    with _as_operator("staff list"), across_tenants(reason="command line: list staff") as session:
        people = session.scalars(select(StaffAccount).order_by(StaffAccount.email)).all()
    table = Table("e-mail", "role", "password", "disabled")
    for person in people:
        has_password = "set" if person.password_hash else "not yet set"
        table.add_row(person.email, person.role, has_password, _day(person.disabled_at))
    Console().print(table)


# The keys ---------------------------------------------------------------------------------------------


@key.command("create")
@_EMAIL
@click.option("--name", required=True, help="What the key is for.")
@click.option(
    "--may",
    "permissions",
    type=click.Choice([*map(str, StaffPermission)]),
    multiple=True,
    required=True,
    help="A permission; give it again for more.",
)
@click.option("--days", type=click.IntRange(1, keys.LONGEST_LIFE.days), required=True, help="How long it counts.")
@_REASON
def create_key(email: str, name: str, permissions: tuple[str, ...], days: int, reason: str) -> None:
    """Make an API key that the person with this address answers for, and print it this once."""
    with _as_operator("staff key create"):
        made = keys.make_key(
            operations.staff_by_email(desk(), email),
            name=name,
            permissions=frozenset(map(StaffPermission, permissions)),
            expires_at=datetime.now(UTC) + timedelta(days=days),
            reason=reason,
        )
    click.echo(f"{made.secret}\nThis is shown once. It counts until {_day(made.key.expires_at)}.")


@key.command("list")
def list_keys() -> None:
    """List the API keys that were not revoked."""
    wanted = select(StaffKey, StaffAccount.email).join(StaffAccount, StaffAccount.id == StaffKey.staff_id)
    wanted = wanted.where(StaffKey.revoked_at.is_(None)).order_by(StaffKey.expires_at)
    with _as_operator("staff key list"), across_tenants(reason="command line: list keys") as session:
        rows = session.execute(wanted).all()
    table = Table("prefix", "name", "answers for it", "may", "until", "last used")
    for found, email in rows:
        may = ", ".join(found.permissions)
        table.add_row(found.prefix, found.name, email, may, _day(found.expires_at), _day(found.last_used_at))
    Console().print(table)


@key.command("revoke")
@click.argument("prefix")
@_REASON
def revoke_key(prefix: str, reason: str) -> None:
    """Stop the key with this prefix at once, for good."""
    with _as_operator("staff key revoke"):
        with across_tenants(reason="command line: find a key") as session:
            key_id = session.scalar(select(StaffKey.id).where(StaffKey.prefix == prefix))
        if key_id is None:
            raise RowNotFoundError
        keys.revoke_key(key_id, reason=reason)
    click.echo(f"{prefix} is revoked.")


# What is printed --------------------------------------------------------------------------------------


def greet_first_owner(app: Flask, *, base: str) -> str | None:
    """Return what to print while there is no staff: how the first owner is made; None once there is some."""
    with app.app_context(), acting_as(Actor(ActorKind.SYSTEM, "start", "start of the server")):
        token = links.issue_first_owner_link(desk())
        return None if token is None else first_owner_help(token, base=base)


def first_owner_help(token: str, *, base: str) -> str:
    """Say how the first owner is made by the link."""
    body = f'{{"token": "{token}", "email": "you@example.com", "password": "<12 characters or more>"}}'
    return (
        f"Nobody runs the service yet. Make its first owner, once, within {_hours()} h:\n\n"
        f"  curl -X POST {base}/api/v1/admin/auth/first-owner -H 'Content-Type: application/json' -d '{body}'\n"
    )


def _use_of(token: str) -> str:
    path = "/api/v1/admin/auth/set-password"
    body = f'{{"token": "{token}", "password": "<12 characters or more>"}}'
    return (
        f"The password is set, once, within {_hours()} h, by\n\n"
        f"  curl -X POST https://<host>{path} -H 'Content-Type: application/json' -d '{body}'\n"
    )


def _hours() -> str:
    return f"{desk().staff_link_ttl.total_seconds() / 3600:.2g}"


def _day(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


@contextmanager
def _as_operator(command: str) -> Iterator[None]:
    """Act as whoever is at this machine; a refusal is one sentence."""
    try:
        with acting_as(operator_of(command)):
            yield
    except RowNotFoundError:
        raise click.ClickException("There is no such person, or no such key; or she is disabled.") from None
    except ProblemError as error:
        said = [error.detail, *(f"{fault.field}: {fault.message}" for fault in error.errors)]
        raise click.ClickException("\n".join(said)) from None
