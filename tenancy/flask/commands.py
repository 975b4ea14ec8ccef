"""`flask tenancy`: commands on the application that Flask has found. Each is listed here."""

from __future__ import annotations

import click
from flask import current_app
from flask.cli import AppGroup

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
