"""`flask tenancy`: commands on the application that Flask has found. Each is listed here."""

from __future__ import annotations

from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from tenancy.cli.doctor import close_directory, conduct, telling_options
from tenancy.cli.explain import show_explanation

commands = AppGroup("tenancy", help="How this application keeps its tenants apart.")


@commands.command()
@click.argument("url")
@click.option("--method", default="GET", show_default=True)
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="May be given more than once.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(url: str, method: str, headers: tuple[str, ...], as_json: bool) -> None:
    """Say how a request to URL would be resolved and answered. Its route does not run."""
    # The app itself, as `tenancy explain` has it: the proxy ends with the context.
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    show_explanation(app, url, method=method, headers=headers, as_json=as_json)


@commands.command()
@telling_options
def doctor(**options: Any) -> None:
    """Examine this application, its models and the database of URL (the migrator's) for what opens a hole.

    Exit status: 0 nothing found, 1 findings of the level of --fail-on or worse, 2 it could not begin.
    """
    # A method of the proxy that its types do not show.
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    try:
        raise SystemExit(conduct(app, None, **options))
    finally:
        close_directory(app)
