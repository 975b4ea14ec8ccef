"""Hardening a database, once, as its superuser."""

from __future__ import annotations

import click
from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from tenancy.cli.options import checked
from tenancy.errors import TenancyError
from tenancy.rls import Roles
from tenancy.rls.hardening import hardening_sql, revert_sql, weaknesses
from tenancy.rls.migrations import send

_IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"


@click.command()
@click.argument("admin_url", envvar="TENANCY_ADMIN_URL")
@click.option("--print", "action", flag_value="print", help="Print the statements that are missing (the default).")
@click.option("--apply", "action", flag_value="apply", help="Run them in one transaction, and check.")
@click.option("--check", "action", flag_value="check", help="Name what is not in force; exit 1 if anything is not.")
@click.option("--revert", "action", flag_value="revert", help="Give back exactly what --apply took.")
@click.option("--prefix", default="tenancy", show_default=True, help="Role names begin with this.")
def harden(admin_url: str, action: str | None, prefix: str) -> None:
    """Take from the app and platform roles, in ADMIN_URL's database, what hostile SQL changes its tenant with.

    ADMIN_URL is a superuser's; each database of a server is hardened by itself. Repeatable.
    """
    roles = checked(Roles, prefix)
    engine = checked(create_engine, make_url(admin_url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            _perform(connection, roles, action or "print")
    except TenancyError as error:
        raise click.ClickException(str(error)) from error
    except SQLAlchemyError as error:
        raise click.ClickException(f"the database refused: {getattr(error, 'orig', error)}") from error


def _perform(connection: Connection, roles: Roles, action: str) -> None:
    if action == "print":
        statements = hardening_sql(connection, roles)
        click.echo("\n".join(f"{each};" for each in ["BEGIN", *statements, "COMMIT"]) if statements else "-- in force")
        return
    if action != "check" and not connection.exec_driver_sql(_IS_SUPERUSER).scalar():
        # The server would only warn that it revoked nothing.
        raise click.ClickException(f"--{action} needs a superuser; where you have none, use signed scopes")
    if action == "revert":
        statements = revert_sql(connection)
        send(connection, statements)
        click.echo("what was taken is given back" if statements else "nothing to revert: it was never applied here")
        return
    if action == "apply":
        send(connection, hardening_sql(connection, roles))
    found = weaknesses(connection, roles)
    for line in found:
        click.echo(line)
    if found:
        undone = "; nothing was changed" if action == "apply" else ""
        raise click.ClickException(f"{len(found)} privileges are not as hardening leaves them{undone}")
    click.echo(f"hardened: {roles.app} and {roles.platform} can change no setting within a statement")
