"""The program: run a development server, or migrate and seed a database given by its URL."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import rich_click as click
from click.core import ParameterSource
from flask import Flask
from flask.cli import ScriptInfo
from rich_click import RichGroup
from sqlalchemy.exc import OperationalError

from app import close_app, create_app
from app.cli.commands import COMMANDS
from app.config import Settings, SettingsError, read_migration_settings, read_settings
from app.development import (
    DevelopmentError,
    development_app,
    examine_application,
    open_development,
    upgrade_database,
    welcome,
)
from app.observability.logs import configure_logging
from app.queue.worker import work, worker_beside
from app.seed import ACCOUNTS, SeedError, seed
from app.server import PortError, StopAsked, listen, serve, stop_on_signals
from app.staff.cli import greet_first_owner
from tenancy.cli.doctor import telling_options
from tenancy.errors import TenancyError

_FOLDER = Path("instance")


@click.group(cls=RichGroup, commands=list(COMMANDS), invoke_without_command=True)
@click.option("--port", type=click.IntRange(0, 65_535), envvar="APP_PORT", default=5000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=_FOLDER, show_default=True, help="Keeps the data.")
@click.pass_context
def program(context: click.Context, port: int, folder: Path) -> None:
    """Serve the application on this machine, with a database of its own and something in it to look at.

    The commands of operators work on the installation that the APP_* variables describe, or with --folder on the
    development database that is kept there.
    """
    is_given = context.get_parameter_source("folder") is ParameterSource.COMMANDLINE
    # Made when a command first needs it, and closed with the program.
    context.obj = ScriptInfo(create_app=lambda: _operated_app(context, folder if is_given else None))
    if context.invoked_subcommand is None:
        run(port, folder)


def _operated_app(context: click.Context, folder: Path | None) -> Flask:
    """Return the application that an operator's command works on."""
    if folder is None:
        try:
            app = create_app(quieted(read_settings()))
        except SettingsError as error:
            raise SettingsError(f"{error}\nSet them, or name a development database: --folder {_FOLDER}") from None
        context.call_on_close(lambda: close_app(app))
        return app
    context.with_resource(stop_on_signals())
    development = context.with_resource(open_development(folder))
    return context.with_resource(development_app(development, log_level=os.environ.get("APP_LOG_LEVEL", "WARNING")))


@program.command()
def migrate() -> None:
    """Upgrade the database of APP_MIGRATOR_DATABASE_URL."""
    upgrade_database(read_migration_settings().migrator_database_url.get_secret_value())


@program.command("seed")
@click.option("--password", envvar="APP_SEED_PASSWORD", help="Of the example accounts; for APP_DATABASE_URL.")
@click.option("--folder", type=click.Path(path_type=Path), default=_FOLDER, show_default=True)
def seed_database(password: str | None, folder: Path) -> None:
    """Put the example tenants into the database of APP_DATABASE_URL; without it, into the development database."""
    if "APP_DATABASE_URL" not in os.environ:
        with stop_on_signals(), open_development(folder) as development, development_app(development):
            click.echo(f"The examples are there; their passwords are in {development.kept_in}.")
        return
    if not password:
        raise SettingsError("APP_SEED_PASSWORD is missing: it becomes the password of the example accounts")
    app = create_app(quieted(read_settings()))
    try:
        seed(app.extensions["auth"], dict.fromkeys(ACCOUNTS, password))
    finally:
        close_app(app)


@program.command("worker")
@click.option("--folder", type=click.Path(path_type=Path), default=_FOLDER, show_default=True)
def run_worker(folder: Path) -> None:
    """Run jobs from the queue of APP_DATABASE_URL until SIGTERM; without it, from the development database's."""
    if "APP_DATABASE_URL" not in os.environ:
        with stop_on_signals(), open_development(folder) as development, development_app(development) as app:
            _work(app)
        return
    app = create_app(read_settings())
    try:
        _work(app)
    finally:
        close_app(app)


def _work(app: Flask) -> None:
    click.echo("Working. Stop with Ctrl-C or SIGTERM; running jobs are finished, or given back.")
    work(app)
    click.echo("Stopped.")


@program.command("doctor")
@telling_options
def examine(**options: Any) -> None:
    """Examine this application: code, configuration, models, and a database that its migrations have just made."""
    with TemporaryDirectory() as folder, stop_on_signals(), open_development(Path(folder)) as development:
        raise SystemExit(examine_application(development, **options))


def quieted(settings: Settings) -> Settings:
    """Return the settings for a command: people read what it prints, and of the log what went wrong."""
    return (
        settings if "log_level" in settings.model_fields_set else settings.model_copy(update={"log_level": "WARNING"})
    )


def run(port: int, folder: Path) -> None:
    """Run the development server until it is asked to stop."""
    with (
        stop_on_signals(),
        listen(port) as listener,
        open_development(folder) as development,
        development_app(development) as app,
    ):
        app.extensions["tenancy"].examine(app)
        port = listener.getsockname()[1]
        click.echo(welcome(development, port))
        invitation = greet_first_owner(app, base=f"http://localhost:{port}")
        if invitation is not None:
            click.echo(invitation)
        with worker_beside(app):
            serve(app, listener)


def main() -> None:
    """Run the program; every expected failure is one sentence and exit code 1."""
    configure_logging(level="WARNING", as_json=False)
    try:
        program(standalone_mode=False)
    except StopAsked:
        click.echo("\nStopped. The data is kept for the next run.")
    except TenancyError as error:
        first, *more = error.message.splitlines()
        _fail("\n".join([f"{first[:1].upper()}{first[1:]}; {error.hint}.", *more]))
    except OperationalError as error:
        _fail(f"The database does not answer: {str(error.orig).strip().splitlines()[0]}")
    except (DevelopmentError, PortError, SeedError, SettingsError) as error:
        _fail(str(error))
    except click.ClickException as error:
        _fail(error.format_message())


def _fail(sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(1)
