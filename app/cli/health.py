"""Health at the command line: of this installation, or of one tenant."""

from __future__ import annotations

import click
from flask.cli import with_appcontext
from rich.console import RenderableType

from app.admin.scopes import in_tenant
from app.cli.operators import operated, table_of, tenant_named
from app.observability.health import health as current_health
from app.observability.probes import State, worst
from app.observability.schemas import CheckAnswer
from app.schemas import Answer

_COLOURS = {State.OK: "green", State.DEGRADED: "yellow", State.DOWN: "red"}


class Found(Answer):
    """How the parts are."""

    state: State
    checks: list[CheckAnswer]


def _table(found: Found) -> RenderableType:
    rows = [
        (one.name, f"[{_COLOURS[one.state]}]{one.state}[/]", f"{one.took_ms:g}", one.reason, one.fix)
        for one in found.checks
    ]
    return table_of(("part", "is", "ms", "why", "what to do"), rows)


@click.command("health")
@click.argument("tenant", required=False)
@with_appcontext
@operated(_table, is_failure=lambda found: found.state is State.DOWN)
def health(tenant: str | None) -> Found:
    """Say how the parts of this installation are, or those that TENANT needs; exit code 1 if one is down."""
    if tenant is None:
        checks = current_health().readiness.checks()
    else:
        tenant_id = tenant_named(tenant)
        with in_tenant(tenant_id, reason="command line: health"):
            pass  # it is there
        checks = current_health().of(tenant_id).checks
    return Found(state=worst(checks), checks=[CheckAnswer.model_validate(one) for one in checks])
