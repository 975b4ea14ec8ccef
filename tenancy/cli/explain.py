"""One request explained: which resolver saw what, whether the cache knew it, the decision, and the status."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import click

from tenancy.cli.doctor import close_directory
from tenancy.cli.options import imported


@click.command()
@click.argument("url")
@click.option("--app", "app_path", required=True, help="The Flask app, or a function that makes it: shop:create_app.")
@click.option("--method", default="GET", show_default=True)
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="May be given more than once.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(url: str, app_path: str, method: str, headers: tuple[str, ...], as_json: bool) -> None:
    """Say how a request to URL would be resolved and answered. Its route does not run."""
    found = imported(app_path, "--app", "shop:create_app")
    app = found if hasattr(found, "wsgi_app") or not callable(found) else found()
    if not hasattr(app, "wsgi_app"):
        raise click.UsageError(f"--app {app_path} is neither a Flask app nor a function that makes one")
    try:
        show_explanation(app, url, method=method, headers=headers, as_json=as_json)
    finally:
        close_directory(app)


def show_explanation(app: Any, url: str, *, method: str, headers: Iterable[str], as_json: bool) -> None:
    """Print how the app would resolve and answer a request; `headers` as in `Name: value`."""
    tenancy = app.extensions.get("tenancy")
    if tenancy is None:
        raise click.ClickException("the app has no Tenancy: call Tenancy(...).init_app(app)")
    explanation = tenancy.explain(app, environ_of(url, method, headers)).as_dict()
    if as_json:
        click.echo(json.dumps(explanation, indent=2))
    else:
        _print(explanation)


def environ_of(url: str, method: str, headers: Iterable[str]) -> dict[str, Any]:
    """Return the WSGI environ of the request that the arguments describe."""
    from werkzeug.test import EnvironBuilder

    pairs = [header.partition(":") for header in headers]
    if any(not separator or not name.strip() for name, separator, _ in pairs):
        raise click.UsageError("write a header as in 'X-Tenant-Slug: acme'")
    parts = urlsplit(url if "://" in url else f"http://localhost/{url.removeprefix('/')}")
    builder = EnvironBuilder(
        path=parts.path or "/",
        base_url=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/",
        query_string=parts.query,
        method=method.upper(),
        headers=[(name.strip(), value.strip()) for name, _, value in pairs],
    )
    try:
        return builder.get_environ()
    finally:
        builder.close()


def _print(explanation: dict[str, Any]) -> None:
    try:
        from rich.box import MINIMAL
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError as error:
        raise click.ClickException("the text needs the extra `cli`; --json does without") from error

    console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 140)
    console.print(f"{explanation['request']} -> {explanation['route']}")
    if explanation["exempt"] is not None:
        console.print(f"exempt: {explanation['exempt']}; its tenant is not looked for")
    table = Table("resolver", "looked at", "saw", "reference", "cache", box=MINIMAL)
    table.add_column("tenant", no_wrap=True)
    for row in explanation["resolvers"]:
        saw = row.get("source") or row.get("refusal") or row["outcome"]
        claims = row.get("claims") or row.get("unverified_claims")
        if claims:
            saw += f"\n{'claims' if row.get('claims') else 'unverified claims'} {json.dumps(claims)}"
        memory = row.get("memory") or "-"
        tenant = row.get("tenant") or ("nobody" if row.get("memory") else "-")
        table.add_row(row["resolver"], row["looked_at"], saw, row.get("reference") or "-", memory, tenant)
    console.print(table)
    if explanation["tenant"]:
        console.print("tenant: {id} {slug}, {status}".format_map(explanation["tenant"]))
    console.print(f"decision: {explanation['decision']}")
    if explanation["error"]:
        console.print("for staff: {kind}: {message} (hint: {hint})".format_map(explanation["error"]))
    for answer in explanation["answers"]:
        vary = f", Vary: {answer['vary']}" if answer["vary"] else ""
        console.print(f"{answer['caller']} gets: {answer['status'] or 'what the route answers'}{vary}")
        if answer["body"]:
            console.print(f"  {answer['body']}")
