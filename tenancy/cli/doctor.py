"""The doctor on the command line: what to examine, and how to tell of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click
from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from tenancy.binding import create_tenant_engine
from tenancy.cli.options import checked, imported
from tenancy.doctor.examination import KINDS, Report, examine
from tenancy.doctor.findings import LEVELS, Level, Subject
from tenancy.doctor.ignores import CONFIG_FILE, baseline_text, read_baseline, read_ignores
from tenancy.doctor.reports import render_json, render_junit, render_sarif
from tenancy.rls import Flavour, Roles

Command = TypeVar("Command", bound=Callable[..., Any])
_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Telling:
    """How an examination is told. Its fields are the options of `telling_options`, by name."""

    format: str
    output: Path | None
    config: Path | None
    baseline: Path | None
    write_baseline: Path | None
    fail_on: Level
    docs_url: str | None


def telling_options(command: Command) -> Command:
    """Add the options of `Telling`, and --code, --kind, --roles-prefix and --flavour, to a command."""
    options = [
        click.argument("url", required=False, envvar="TENANCY_DOCTOR_URL"),
        click.option("--app-url", envvar="TENANCY_DOCTOR_APP_URL", help="As the application connects."),
        click.option("--code", multiple=True, type=click.Path(exists=True, path_type=Path), help="Files and folders."),
        click.option("--kind", "kinds", multiple=True, type=click.Choice([*KINDS.values()]), help="[default: all]"),
        click.option("--roles-prefix", default="tenancy", show_default=True, help="Role names begin with this."),
        click.option("--flavour", type=click.Choice(["postgres", "citus"]), default="postgres", show_default=True),
        click.option(
            "--format", type=click.Choice(["text", "json", "sarif", "junit"]), default="text", show_default=True
        ),
        click.option("--output", type=_FILE, help="Write there instead of to the terminal."),
        click.option("--config", type=_FILE, help=f"What to ignore. [default: {CONFIG_FILE}, if it is there]"),
        click.option("--baseline", type=_FILE, help="Findings in this file fail nothing."),
        click.option("--write-baseline", type=_FILE, help="Write the findings of this run to a baseline."),
        click.option("--fail-on", type=click.Choice(LEVELS), default="warning", show_default=True),
        click.option("--docs-url", help="Where the pages of the rules are served, for links in SARIF."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@telling_options
@click.option("--metadata", "metadata_path", help="The models: shop.models:Base.metadata.")
@click.option("--app", "app_path", help="The Flask app, or a function that makes it: shop:create_app.")
@click.option("--list", "only_list", is_flag=True, help="List what is looked for, and stop.")
def doctor(metadata_path: str | None, app_path: str | None, only_list: bool, **options: Any) -> None:
    """Examine the database of URL (the migrator's), models, code and application for what opens a hole.

    Exit status: 0 nothing found, 1 findings of the level of --fail-on or worse, 2 it could not begin.
    """
    if only_list:
        print_rules()
        return
    metadata = imported(metadata_path, "--metadata", "shop.models:Base.metadata") if metadata_path else None
    if metadata_path and not isinstance(metadata, MetaData):
        raise click.UsageError(f"--metadata {metadata_path} is {type(metadata).__name__}, not a MetaData")
    app = imported(app_path, "--app", "shop:create_app") if app_path else None
    if app is not None and not hasattr(app, "extensions"):
        app = _made(app, str(app_path))
    try:
        raise SystemExit(conduct(app, metadata, **options))
    finally:
        close_directory(app)


def conduct(
    app: Any,
    metadata: MetaData | None,
    *,
    url: str | None,
    app_url: str | None,
    code: Sequence[Path],
    kinds: Sequence[str],
    roles_prefix: str,
    flavour: Flavour,
    **telling: Any,
) -> int:
    """Examine and tell; returns the exit status. What is not given is taken from the app, where it has it."""
    how = Telling(**telling)
    config = how.config or (Path(CONFIG_FILE) if Path(CONFIG_FILE).exists() else None)
    decisions = checked(read_ignores, config) if config is not None else []
    baseline = checked(read_baseline, how.baseline) if how.baseline is not None else None
    extension = app.extensions.get("tenancy") if app is not None else None
    if metadata is None and extension is not None:
        metadata = getattr(extension.chain.directory, "metadata", None)
    with _connected(url) as connection, _app_engine(app_url, extension, app) as app_engine:
        subject = Subject(
            roles=checked(Roles, roles_prefix),
            flavour=flavour,
            connection=connection,
            metadata=metadata,
            app_engine=app_engine,
            code=tuple(code),
            app=app,
        )
        report = examine(subject, decisions=decisions, kinds=kinds or tuple(KINDS.values()))
    if how.write_baseline is not None:
        how.write_baseline.write_text(baseline_text(report.findings))
        click.echo(f"{len(report.findings)} findings are known from now on, by {how.write_baseline}")
        return 0
    if baseline is not None:
        report = report.against(baseline)
    tell(report, how)
    return int(report.fails_at(how.fail_on))


def tell(report: Report, how: Telling) -> None:
    """Print the report, or write it to its file and say so on the error channel."""
    renderings: dict[str, Callable[[], str]] = {
        "json": lambda: render_json(report),
        "sarif": lambda: render_sarif(report, docs_url=how.docs_url),
        "junit": lambda: render_junit(report, fail_on=how.fail_on),
    }
    if how.output is None:
        if how.format == "text":
            _print(report, sys.stdout)
        else:
            click.echo(renderings[how.format](), nl=False)
        return
    try:
        with how.output.open("w", encoding="utf-8") as file:
            if how.format == "text":
                _print(report, file)
            else:
                file.write(renderings[how.format]())
    except OSError as error:
        raise click.UsageError(f"--output {how.output}: {error.strerror}") from error
    counts = ", ".join(f"{report.count(level)} {level}s" for level in LEVELS)
    click.echo(f"{counts}: see {how.output}", err=True)


def print_rules() -> None:
    """Print every rule there is, with its level and why it matters."""
    terminal = _terminal()
    terminal.print_rules(terminal.Console())


def _print(report: Report, file: TextIO) -> None:
    terminal = _terminal()
    terminal.print_report(report, terminal.Console(file=file, highlight=False))


def _terminal() -> Any:
    try:
        from tenancy.doctor.reports import terminal
    except ModuleNotFoundError as error:
        raise click.UsageError("text needs the extra `cli`; --format json does without") from error
    return terminal


@contextmanager
def _connected(url: str | None) -> Iterator[Connection | None]:
    """Yield a connection in a transaction that is rolled back: the doctor leaves nothing behind."""
    if url is None:
        yield None
        return
    engine = create_engine(_parsed(url), poolclass=NullPool, hide_parameters=True)
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        raise _unreachable(error) from error
    with connection:
        yield connection  # closing it rolls back


@contextmanager
def _app_engine(url: str | None, extension: Any, app: Any) -> Iterator[Engine | None]:
    engine: Engine | None
    if url is not None:
        engine = checked(create_tenant_engine, _parsed(url), pool_size=1, hide_parameters=True)
    else:
        engine = extension.engine_of(app) if extension is not None else None
    try:
        yield engine
    finally:
        if engine is not None:
            engine.dispose()


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise click.UsageError("the URL is no database URL: write it as postgresql+psycopg://role@host/name") from error
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "postgresql+psycopg":
        raise click.UsageError(f"the URL is for {parsed.drivername}: write it as postgresql+psycopg://role@host/name")
    return parsed


def _unreachable(error: SQLAlchemyError) -> click.UsageError:
    first = str(getattr(error, "orig", error)).strip().splitlines()[0]
    return click.UsageError(f"the database does not answer: {first}")


def _made(factory: Any, path: str) -> Any:
    try:
        app = factory()
    except Exception as error:  # the factory is the user's code, and may fail in any way
        raise click.UsageError(f"--app {path} could not be made: {type(error).__name__}: {error}") from error
    if not hasattr(app, "extensions"):
        raise click.UsageError(f"--app {path} made {type(app).__name__}, which is no Flask app")
    return app


def close_directory(app: Any) -> None:
    """Stop the thread of an app's directory, where it has one."""
    extension = app.extensions.get("tenancy") if app is not None else None
    close = getattr(extension and extension.chain.directory, "close", None)
    if close is not None:
        close()
