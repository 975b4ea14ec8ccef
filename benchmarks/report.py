"""The report: one page that stands alone, with its plots in it, for a reader who knows nothing of this run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from benchmarks.plots import draw_row

TEMPLATE = Path(__file__).with_name("report.html.j2")


def render(result: dict[str, Any]) -> str:
    """Render the JSON of a run as a page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    environment.filters["prose"] = prose
    environment.filters["plot"] = lambda row: Markup(draw_row(row))
    goals = [goal for part in result["parts"] for row in part["rows"] for goal in row["goals"]]
    return environment.from_string(TEMPLATE.read_text()).render(
        result=result,
        machine=result["machine"],
        server=result["server"],
        reached=sum(goal["is_reached"] is True for goal in goals),
        missed=sum(goal["is_reached"] is False for goal in goals),
        unmeasured=sum(goal["is_reached"] is None for goal in goals),
    )


def number(value: float) -> str:
    """Write a figure with three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def prose(text: str) -> Markup:
    """Show what stands between backticks as code."""
    pieces = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if place % 2 else piece for place, piece in enumerate(pieces)
    )
