"""Put the application under load: python -m benchmarks.load [--tenants 10] [--users 100]"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from benchmarks.__main__ import RESULTS
from benchmarks.figures import SCHEMA, Outcome, Part, Row
from benchmarks.load.rows import QUANTILES, quantile, rows_of
from benchmarks.load.run import Course, Plan, measure
from benchmarks.load.subject import build
from benchmarks.load.users import OPERATIONS, SEARCH, Tally
from benchmarks.machine import describe_machine, describe_server
from benchmarks.parts.load import HOW, SETTINGS
from benchmarks.report import render
from tenancy.embedded import start


def main(arguments: list[str] | None = None) -> int:
    """Run the load and write its report. Returns 1 when a foreign row or an error was seen, else 0."""
    given = _parser().parse_args(arguments)
    plan = Plan(
        tenants=given.tenants,
        users=given.users,
        think_s=given.think,
        window_s=given.seconds,
        rounds=given.rounds,
        clients=given.clients,
        on={
            "tenant_concurrency": given.concurrency,
            "tenant_wait_s": given.wait,
            "tenant_waiting": given.waiting,
            "tenant_share": given.share,
        },
    )
    console = Console()
    taken_at, machine, begun = datetime.datetime.now(datetime.UTC), describe_machine(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="load-") as folder, start(Path(folder) / "pg", settings=SETTINGS) as server:
        with server.connect() as admin:
            described = describe_server(admin)
        console.print(f"Filling {plan.tenants} tenants with {plan.users} users each ...")
        service = build(server, Path(folder), tenants=plan.tenants, users=plan.users, noisy_people=plan.people)
        with Live(console=console, refresh_per_second=2) as live:
            course = measure(service, plan, lambda name, done, tally: live.update(_view(name, done, tally)))
    rows = list(rows_of(course))
    part = Part("load", "The application under load", HOW, rows=len(rows), run=lambda _bench: iter(rows))
    outcome = Outcome(part, rows, time.monotonic() - begun)
    result = {
        "schema": SCHEMA,
        "taken_at": taken_at.isoformat(timespec="seconds"),
        "scale": 1,
        "machine": machine,
        "server": described,
        "parts": [outcome.as_json()],
    }
    _write(result, given.report, console)
    _tell(rows, console)
    return int(_has_failed(course))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    default = Plan()
    parser.add_argument("--tenants", type=int, default=default.tenants, help="at least 2: the last one is noisy")
    parser.add_argument("--users", type=int, default=default.users, help="of each tenant")
    parser.add_argument("--think", type=float, default=default.think_s, help="seconds between two requests of a user")
    parser.add_argument("--seconds", type=float, default=default.window_s, help="of everybody at once")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="of alone, noise off and noise on")
    parser.add_argument("--clients", type=int, default=default.clients, help="of the noisy tenant")
    parser.add_argument("--concurrency", type=int, default=default.on["tenant_concurrency"], help="a tenant's budget")
    parser.add_argument(
        "--wait", type=float, default=default.on["tenant_wait_s"], help="its wait for a slot, in seconds"
    )
    parser.add_argument("--waiting", type=int, default=default.on["tenant_waiting"], help="how many wait at once")
    parser.add_argument("--share", type=float, default=default.on["tenant_share"], help="how much of the time it works")
    parser.add_argument("--report", type=Path, default=None, help="the page to write, with its JSON beside it")
    return parser


def _view(name: str, done: float, tally: Tally) -> Group:
    table = Table(
        "operation",
        *(f"{label}, ms" for label in QUANTILES),
        "requests",
        "requests/s",
        title=name,
        title_justify="left",
    )
    for operation in (*OPERATIONS, SEARCH):
        times = tally.of(operation)
        if times:
            shown = [f"{quantile(times, part) * 1000:,.0f}" for part in QUANTILES.values()]
            table.add_row(operation, *shown, f"{len(times):,}", f"{len(times) / max(tally.seconds, 0.1):,.1f}")
    foreign, errors = len(tally.foreign), sum(tally.errors.values())
    words = Text(f"{tally.checked:,} answers checked, ")
    words.append(f"{foreign} with a foreign row", style="bold red" if foreign else "green")
    words.append(f", {errors} errors", style="bold red" if errors else "green")
    words.append(f", {sum(tally.refusals.values()):,} told to wait")
    return Group(ProgressBar(total=1.0, completed=done, width=60), table, words)


def _write(result: dict[str, Any], report: Path | None, console: Console) -> None:
    target = report or RESULTS / f"{result['taken_at'][:10]}-load.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render(result))
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"Written: {target} and {target.with_suffix('.json')}")


def _tell(rows: list[Row], console: Console) -> None:
    table = Table("row", "what", "figure", "ratio", "goal")
    for row in rows:
        shown = row.as_json()
        for figure in shown["figures"]:
            ratio = figure["ratio"]
            goals = [goal for goal in shown["goals"] if goal["of"] == figure["name"]]
            table.add_row(
                row.name,
                figure["name"],
                f"{figure['value']['median']:,.4g} {row.unit}",
                f"{ratio['median']:.2f}" if ratio else "",
                "; ".join(f"{goal['goal']}: {'reached' if goal['is_reached'] else 'MISSED'}" for goal in goals),
            )
        table.add_section()
    console.print(table)


def _has_failed(course: Course) -> bool:
    return any(tally.foreign for tally in course.tallies) or bool(course.together.errors)


if __name__ == "__main__":
    sys.exit(main())
