"""The report for a person at a terminal. Needs rich, of the extra `cli`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from rich.console import Console
from rich.rule import Rule as Line
from rich.table import Table
from rich.text import Text

from tenancy.doctor.examination import RULES, Report
from tenancy.doctor.findings import LEVELS, Finding, Level
from tenancy.doctor.reports.junit import place

_STYLES: Mapping[Level, str] = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def print_report(report: Report, console: Console) -> None:
    """Print what was found, worst first: each rule once, with its objects below it, and the counts at the end.

    Remedies are never broken into lines, so that they can be copied.
    """
    for level in LEVELS:
        found = [finding for finding in report.findings if finding.rule.level == level]
        if found:
            console.print(Line(Text(f"{level}s", style=_STYLES[level]), style=_STYLES[level], align="left"))
            _print_level(found, console)
    if report.ignored:
        console.print(Text("ignored", style="bold"))
        for one in report.ignored:
            until = f" until {one.ignore.until}" if one.ignore.until else ""
            _indented(console, f"{one.finding.rule.id} {place(one.finding)}: {one.ignore.reason}{until}")
        console.print()
    if report.vanished:
        console.print(Text("gone since the baseline", style="bold"))
        for described in report.vanished:
            _indented(console, described)
        console.print()
    _indented(console, _summary(report), by=0)


def print_rules(console: Console) -> None:
    """Print every rule there is."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("id", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("name", no_wrap=True, max_width=32)
    table.add_column("why")
    for rule in sorted(RULES, key=lambda rule: rule.id):
        table.add_row(rule.id, Text(rule.level, style=_STYLES[rule.level]), rule.name, Text(rule.why))
    console.print(table)


def _print_level(findings: Iterable[Finding], console: Console) -> None:
    for rule, found in groupby(findings, key=lambda finding: finding.rule):
        console.print(Text.assemble((rule.id, _STYLES[rule.level]), " ", (rule.name, "bold")))
        _indented(console, rule.why)
        for finding in found:
            _indented(console, Text.assemble((place(finding), "bold"), ": ", finding.what), by=4)
            for line in finding.remedy.splitlines():
                console.print(Text(f"      {line}", style="green"), soft_wrap=True)
        console.print()


def _indented(console: Console, text: str | Text, *, by: int = 2) -> None:
    whole = Text(text) if isinstance(text, str) else text
    for line in whole.wrap(console, console.width - by):
        line.rstrip()
        console.print(Text(" " * by) + line)


def _summary(report: Report) -> Text:
    counts = [f"{report.count(level)} {level}{'' if report.count(level) == 1 else 's'}" for level in LEVELS]
    extra = [f"{len(report.ignored)} ignored"] if report.ignored else []
    extra += [f"{len(report.known)} known"] if report.known else []
    worst: Level | None = next((level for level in LEVELS if report.count(level)), None)
    looked_at = ", ".join(report.kinds) or "nothing"
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return Text.assemble(
        (", ".join(counts + extra), _STYLES[worst] if worst else "bold green"),
        f" in {looked_at}, after {report.seconds:.1f} s ({versions})",
    )
