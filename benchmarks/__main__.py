"""Measure everything, or some parts: python -m benchmarks [--list] [PART ...]"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.bench import opened
from benchmarks.figures import SCHEMA, Outcome, Part
from benchmarks.machine import describe_machine, describe_server
from benchmarks.report import render
from benchmarks.suite import PARTS, run_parts
from benchmarks.workers import default_cache, make_environments

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    """Run the suite. Returns 1 when a part stopped, else 0: a missed goal is a result."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if given.list:
        console.print(_listing())
        return 0
    chosen = [part for part in PARTS if part.name in given.parts or not given.parts]
    result, outcomes = _measure(chosen, given, console)
    given.results.mkdir(parents=True, exist_ok=True)
    name = result["taken_at"][:10] + ("" if not given.parts else "-" + "-".join(part.name for part in chosen))
    target = given.results / name
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    target.with_suffix(".html").write_text(render(result))
    for outcome in outcomes:
        console.print(_table(outcome.as_json()))
    console.print(f"Written: {target.with_suffix('.json')} and {target.with_suffix('.html')}")
    return int(any(outcome.error for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[[], *(part.name for part in PARTS)])
    parser.add_argument("--list", action="store_true", help="show the parts and stop")
    parser.add_argument("--scale", type=float, default=1.0, help="of rounds and budgets; 0.1 is a rehearsal")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON and the page")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of the rivals' environments")
    return parser


def _measure(parts: list[Part], given: argparse.Namespace, console: Console) -> tuple[dict[str, Any], list[Outcome]]:
    if any(part.has_rivals for part in parts):
        with console.status("preparing the rivals' environments"):
            for why in make_environments(cache=given.cache):
                console.print(f"left out: {why}")
    taken_at, machine = datetime.datetime.now(datetime.UTC), describe_machine()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        opened(Path(folder), cache=given.cache, scale=given.scale) as bench,
        Progress(
            TextColumn("{task.description:34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=2,  # it runs beside what is measured
        ) as progress,
    ):
        with bench.admin("postgres") as admin:
            server = describe_server(admin)
        task = progress.add_task("starting", total=sum(part.rows for part in parts))
        outcomes = run_parts(
            bench,
            parts,
            tell=lambda part, row: progress.update(task, advance=1, description=f"{part.name}: {row}"[:34]),
        )
    result = {
        "schema": SCHEMA,
        "taken_at": taken_at.isoformat(timespec="seconds"),
        "scale": given.scale,
        "machine": machine,
        "server": server,
        "parts": [outcome.as_json() for outcome in outcomes],
    }
    return result, outcomes


def _listing() -> Table:
    table = Table("part", "rows", "what it measures")
    for part in PARTS:
        table.add_row(part.name, str(part.rows), part.title)
    return table


def _table(part: dict[str, Any]) -> Table:
    table = Table("row", "what", "figure", "ratio", "goal", title=f"{part['title']} ({part['seconds']:.0f} s)")
    for row in part["rows"]:
        for figure in row["figures"]:
            value, ratio = figure["value"], figure["ratio"]
            goals = [goal for goal in row["goals"] if goal["of"] == figure["name"]]
            table.add_row(
                row["name"],
                figure["name"],
                f"{value['median']:,.4g} {row['unit']} ({value['low']:,.4g}–{value['high']:,.4g})",
                f"{ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})" if ratio else "",
                "; ".join(f"{goal['goal']}: {_word(goal['is_reached'])}" for goal in goals),
            )
        table.add_section()
    if part["error"]:
        table.caption = f"stopped: {part['error']}"
    return table


def _word(is_reached: bool | None) -> str:
    return {True: "reached", False: "MISSED", None: "not measured"}[is_reached]


if __name__ == "__main__":
    sys.exit(main())
