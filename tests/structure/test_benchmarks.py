"""The benchmark suite holds together: every part can be named, and what it writes can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.figures import SCHEMA, Goal, Part, Row
from benchmarks.machine import describe_machine
from benchmarks.measuring import interleave, ratio, row
from benchmarks.report import render
from benchmarks.suite import ORDER, PARTS, run_parts

FOLDER = Path(__file__).parents[2] / "benchmarks"


def slower_and_slower() -> Row:
    samples = {"plain": [1.0, 2.0, 3.0] * 20, "tenancy": [2.0, 4.0, 6.0] * 20}
    goals = (Goal("tenancy", at_most=1.1, reason="it does twice the <work>"), Goal("tenancy", below=("nobody",)))
    return row("one", samples, baseline="plain", goals=goals)


def result_of(*parts: Part) -> dict[str, Any]:
    outcomes = run_parts(None, parts, tell=lambda _part, _row: None)  # type: ignore[arg-type]  # parts that need none
    return {
        "schema": SCHEMA,
        "taken_at": "2026-11-21T10:00:00+00:00",
        "scale": 1.0,
        "machine": describe_machine(),
        "server": {"version": "PostgreSQL 18", "settings": {"fsync": "off"}},
        "parts": [outcome.as_json() for outcome in outcomes],
    }


def a_part(run: Any) -> Part:
    return Part("sample", "A sample", "How it is got.", rows=1, run=run)


def yielding(_bench: object) -> Iterator[Row]:
    yield slower_and_slower()


def test_every_part_of_the_folder_is_in_the_suite() -> None:
    files = {path.stem for path in (FOLDER / "parts").glob("*.py")}

    assert {part.run.__module__.rpartition(".")[2] for part in PARTS} == files


def test_every_part_that_has_a_place_in_the_report_exists() -> None:
    names = [part.name for part in PARTS]

    assert names[: len(ORDER)] == list(ORDER)


def test_parts_are_named_once_and_say_how_they_measure() -> None:
    names = [part.name for part in PARTS]

    assert len(names) == len(set(names))
    assert [part.name for part in PARTS if not part.title or len(part.how) < 40 or part.rows < 1] == []


def test_list_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--list"])

    shown = capsys.readouterr().out
    assert status == 0
    assert [part.name for part in PARTS if not re.search(rf"\b{part.name}\b", shown)] == []


def test_page_of_figures_names_every_part() -> None:
    page = (FOLDER.parent / "docs/explanation/performance.md").read_text()

    assert [part.name for part in PARTS if f"`{part.name}`" not in page] == []


def test_keys_of_the_json_are_those_of_schema_1() -> None:
    result = json.loads(json.dumps(result_of(a_part(yielding))))

    (part,) = result["parts"]
    (only,) = part["rows"]
    assert sorted(part) == ["error", "how", "name", "rows", "seconds", "title"]
    assert sorted(only) == ["baseline", "better", "figures", "goals", "name", "note", "unit"]
    assert sorted(only["figures"][0]) == ["name", "ratio", "value"]
    assert sorted(only["figures"][0]["value"]) == ["fast", "high", "low", "median", "n"]
    assert sorted(only["goals"][0]) == ["goal", "is_reached", "of", "reason"]


def test_goal_missed_is_said_with_its_reason() -> None:
    goals = slower_and_slower().as_json()["goals"]

    assert [(goal["goal"], goal["is_reached"]) for goal in goals] == [
        ("≤ 1.1 × plain", False),
        ("less than nobody", None),
    ]


def test_page_stands_alone_and_shows_each_row() -> None:
    page = render(result_of(a_part(yielding)))

    assert "<svg" in page
    assert "it does twice the &lt;work&gt;" in page
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"|@import|url\(', page) == []


def test_part_that_stops_keeps_its_rows_and_says_why() -> None:
    def stopping(_bench: object) -> Iterator[Row]:
        yield slower_and_slower()
        raise ZeroDivisionError("no rows")

    result = result_of(a_part(stopping), a_part(yielding))

    assert [(len(part["rows"]), part["error"]) for part in result["parts"]] == [
        (1, "ZeroDivisionError: no rows"),
        (1, None),
    ]
    assert "Stopped: ZeroDivisionError" in render(result)


def test_alternatives_take_turns_and_none_is_always_first() -> None:
    calls: list[str] = []

    interleave({name: lambda _, name=name: calls.append(name) for name in "abc"}, rounds=3, budget_s=5, warm_up=0)

    assert "".join(calls) == "abcbcacab"


def test_ratio_of_medians_comes_with_the_spread_of_its_stretches() -> None:
    found = ratio([2.0] * 30 + [3.0] * 30, [1.0] * 60)

    assert (found.low, found.median, found.high) == (2.0, 2.5, 3.0)
