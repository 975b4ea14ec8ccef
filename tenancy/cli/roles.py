"""The roles: what an administrator sets up once, and what anyone may check."""

from __future__ import annotations

import click
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from tenancy.binding import create_tenant_engine
from tenancy.cli.options import checked
from tenancy.errors import TenancyError
from tenancy.rls import Roles, bootstrap_sql


@click.command()
@click.argument("admin_url", envvar="TENANCY_ADMIN_URL")
@click.option("--prefix", default="tenancy", show_default=True, help="Role names begin with this.")
@click.option("--sql", "only_print", is_flag=True, help="Print the statements instead of running them.")
def bootstrap(admin_url: str, prefix: str, only_print: bool) -> None:
    """Create the roles and hand them the database of ADMIN_URL, a superuser's URL. Repeatable."""
    url = make_url(admin_url)
    if not url.database:
        raise click.UsageError("the URL names no database")
    roles = checked(Roles, prefix)
    statements = bootstrap_sql(roles, url.database)
    if only_print:
        click.echo(";\n".join(statements) + ";")
        return
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    except SQLAlchemyError as error:
        raise click.ClickException(f"the database refused: {getattr(error, 'orig', error)}") from error
    click.echo(f"roles {roles.migrator}, {roles.app} and {roles.platform} may now connect to {url.database!r}")
    click.echo("give each a password (psql: \\password ROLE), then run your migrations as the migrator")


@click.command()
@click.argument("url", envvar="TENANCY_CHECK_URL")
def check(url: str) -> None:
    """Connect with URL as an application would, and say whether its role can keep tenants apart."""
    engine = checked(create_tenant_engine, url, poolclass=NullPool)
    try:
        engine.connect().close()
    except TenancyError as error:
        raise click.ClickException(str(error)) from error
    except SQLAlchemyError as error:
        raise click.ClickException(f"no connection: {getattr(error, 'orig', error)}") from error
    click.echo("this role owns nothing, is a member of nothing and can bypass nothing")
