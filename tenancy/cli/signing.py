"""The keys of signed scopes: added, listed and retired by the migrator; no other role may see them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from tenancy.cli.options import checked
from tenancy.rls import add_key_sql, list_keys_sql, retire_key_sql
from tenancy.rls.migrations import is_signed
from tenancy.signing import SigningKey


@click.group()
def keys() -> None:
    """Manage the keys that sign scopes. URL is the migrator's; reads TENANCY_MIGRATOR_URL when none is given."""


@keys.command()
@click.argument("url", envvar="TENANCY_MIGRATOR_URL")
def add(url: str) -> None:
    """Add a key and print it, once: the last line is what the engines need as signing_key.

    A key in TENANCY_SIGNING_KEY is added instead of a new one, and is not printed.
    """
    written = os.environ.get("TENANCY_SIGNING_KEY")  # no option: a command line is seen by every process
    given = None if written is None else checked(SigningKey.parse, written)
    key = SigningKey.generate() if given is None else given
    inner, outer = key.pads()
    try:
        with _as_owner(url) as connection:
            connection.execute(text(add_key_sql()), {"id": key.id, "inner_pad": inner, "outer_pad": outer})
            connection.exec_driver_sql("ANALYZE tenancy.signing_key")
    except IntegrityError as error:
        raise click.ClickException(f"there is a key {key.id!r} already; a key's secret never changes") from error
    click.echo(f"key {key.id!r} is valid from now on", err=given is None)
    if given is None:
        click.echo("keep the next line in your secret store; it is not shown again", err=True)
        click.echo(key.reveal())


@keys.command("list")
@click.argument("url", envvar="TENANCY_MIGRATOR_URL")
def show(url: str) -> None:
    """List the keys: their ids and dates, never a secret."""
    with _as_owner(url) as connection:
        found = connection.execute(text(list_keys_sql())).all()
    for key_id, created_at, retires_at, is_valid in found:
        end = "" if retires_at is None else f", {'retires' if is_valid else 'retired'} {retires_at:%Y-%m-%d %H:%M:%S%z}"
        click.echo(f"{key_id}: added {created_at:%Y-%m-%d %H:%M:%S%z}{end}")


@keys.command()
@click.argument("url", envvar="TENANCY_MIGRATOR_URL")
@click.argument("key_id")
@click.option("--in", "seconds", default=0, show_default=True, help="Seconds until then.", type=click.IntRange(0))
@click.option("--last", is_flag=True, help="Also when no other key is valid: every tenant is locked out.")
def retire(url: str, key_id: str, seconds: int, last: bool) -> None:
    """End the key KEY_ID, once every engine has another: transactions begun later with it are refused."""
    with _as_owner(url) as connection:
        valid = {row.id for row in connection.execute(text(list_keys_sql())) if row.is_valid and row.retires_at is None}
        if valid == {key_id} and not last:
            raise click.ClickException(f"{key_id!r} is the last valid key: add another first, or say --last")
        ended = connection.execute(text(retire_key_sql()), {"id": key_id, "seconds": seconds}).scalar()
        if ended is None:
            raise click.ClickException(f"there is no key {key_id!r}")
    click.echo(f"key {key_id!r} is retired at {ended:%Y-%m-%d %H:%M:%S%z}")


@contextmanager
def _as_owner(url: str) -> Iterator[Connection]:
    engine = checked(create_engine, url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            if not is_signed(connection):
                raise click.ClickException("the database does not demand signed scopes: migrate it with signed=True")
            yield connection
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        raise click.ClickException(f"the database refused: {getattr(error, 'orig', error)}") from error
