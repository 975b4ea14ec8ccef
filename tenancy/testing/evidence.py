"""The evidence: what was proven, by which statements, on what; as one page for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import jinja2

from tenancy.testing.premises import Premises

FORMAT = 1
Found: TypeAlias = Mapping[str, Any]  # the properties of one generated test
Line: TypeAlias = list[tuple[str, str]]  # pieces of text, each with the name of a colour or ""

# By name: what people call the actor, and who that is.
_ACTORS = {
    "owner": ("right tenant", "acts for the tenant whose rows these are; its own statements must work"),
    "stranger": ("other tenant", "acts for another tenant"),
    "unbound": ("no tenant", "acts for nobody: nothing was ever said of a tenant"),
    "empty": ("empty setting", "acts for nobody: the settings are there, and empty, as after a transaction"),
    "table_owner": ("table's owner", "the role that owns the tables, for no tenant: what a migration runs as"),
}
_BY_WEIGHT = ("stranger", "unbound", "empty", "table_owner", "owner")  # the worst first
_OUTCOMES = {
    "refused": "a foreign id is answered like a missing one",
    "apart": "nothing of the other tenant is in the answer",
    "leaks": "the answer holds something of the other tenant",
    "changes": "rows of the other tenant were changed",
    "told apart": "a foreign id is answered otherwise than a missing one",
    "not called": "could not be called",
}
_KINDS = {"cell": "cells", "route": "routes", "control": "controls"}
_GROUPS = ("select", "join", "copy", "insert", "update", "delete")


@dataclass(frozen=True)
class Evidence:
    """The results of one run.

    collected: how many tests of each kind there are, run or not: what did not run is told.
    premises: None when no database came to be.
    """

    cells: Sequence[Found]
    routes: Sequence[Found]
    controls: Sequence[Found]
    collected: Mapping[str, int]
    premises: Premises | None
    made_at: datetime

    @classmethod
    def of(cls, found: Sequence[Found], *, collected: Mapping[str, int], premises: Premises | None) -> Evidence:
        """Sort the results by kind."""
        by_kind = {kind: [one for one in found if one["kind"] == kind] for kind in _KINDS}
        return cls(by_kind["cell"], by_kind["route"], by_kind["control"], collected, premises, datetime.now(UTC))

    @property
    def failed(self) -> list[Found]:
        return [one for one in (*self.cells, *self.routes, *self.controls) if not one["passed"]]

    @property
    def missing(self) -> int:
        """How many tests were collected and did not run."""
        ran = {"cell": len(self.cells), "route": len(self.routes), "control": len(self.controls)}
        return sum(max(0, self.collected.get(kind, 0) - number) for kind, number in ran.items())

    @property
    def passed(self) -> bool:
        return bool(self.cells) and not self.failed and not self.missing

    @property
    def declared(self) -> list[Found]:
        """Routes that were not called, for a declared reason."""
        return [one for one in self.routes if one.get("outcome") in ("declared", "exempt")]

    @property
    def sentence(self) -> str:
        """The verdict."""
        if not self.cells:
            return "Nothing was proven: no cell of the matrix ran."
        if self.failed:
            broken = [f"{n} of {len(all_of)} {_KINDS[kind]}" for kind, all_of, n in self._failures() if n]
            return f"Isolation was not proven: {' and '.join(broken)} failed."
        if self.missing:
            return f"Isolation was proven in part: all that ran passed, and {_count(self.missing, 'test')} did not run."
        return f"No tenant could reach another: {self._scope()} passed, and each of {self._holes()} was noticed."

    def _failures(self) -> Iterator[tuple[str, Sequence[Found], int]]:
        for kind, all_of in (("cell", self.cells), ("route", self.routes), ("control", self.controls)):
            yield kind, all_of, sum(not one["passed"] for one in all_of)

    def _scope(self) -> str:
        swept = len(self.routes) - len(self.declared)
        cells = f"all {_count(len(self.cells), 'cell')} of the matrix"
        return f"{cells} and {_count(swept, 'route')}" if self.routes else cells

    def _holes(self) -> str:
        return _count(len(self.controls), "hole") + " made on purpose"

    @property
    def tables(self) -> list[str]:
        return list(dict.fromkeys(one["table"] for one in self.cells))

    @property
    def verbs(self) -> list[str]:
        """The columns: `unique:email` and `unique:name` share one."""
        return list(dict.fromkeys(_column(one) for one in self.cells))

    def _places(self) -> dict[tuple[str, str, str], bool]:
        """Tell of each place of the page's grid whether all of its cells passed."""
        places: dict[tuple[str, str, str], bool] = {}
        for one in self.cells:
            place = (one["table"], _column(one), one["actor"])
            places[place] = places.get(place, True) and one["passed"]
        return places

    def heat(self) -> Iterator[Line]:
        """Draw tables by verbs: a dot where all actors passed, else the first letter of the worst who did not."""
        if self.cells:
            yield from self._grid()
        for kind, all_of, failed in self._failures():
            left = f", {len(self.declared)} declared or exempt" if kind == "route" else ""
            yield [(f"{_KINDS[kind]}: {len(all_of)} ran, {failed} failed{left}", "")]

    def _grid(self) -> Iterator[Line]:
        letters = dict(zip(self.verbs, _letters(), strict=False))
        width = max((len(table) for table in self.tables), default=0)
        yield [(" " * (width + 2) + " ".join(letters.values()), "")]
        nothing = ("- ", "yellow") if self.missing else ("  ", "")
        by_place: dict[tuple[str, str], list[Found]] = {}
        for one in self.cells:
            by_place.setdefault((one["table"], _column(one)), []).append(one)
        for table in self.tables:
            line: Line = [(f"{table:<{width}}  ", "")]
            for verb in self.verbs:
                found = by_place.get((table, verb), [])
                red = sorted((one["actor"] for one in found if not one["passed"]), key=_BY_WEIGHT.index)
                line.append((f"{red[0][0].upper()} ", "red") if red else (". ", "green") if found else nothing)
            yield line
        if any(not one["passed"] for one in self.cells):
            yield from _legend([f"{name[0].upper()} wrong for {words[0]}" for name, words in _ACTORS.items()])
        yield from _legend([f"{letter} {verb}" for verb, letter in letters.items()])

    def as_json(self) -> str:
        """Return the evidence for programs; `format` grows when a field changes its meaning."""
        told = {
            "format": FORMAT,
            "made_at": self.made_at.isoformat(timespec="seconds"),
            "passed": self.passed,
            "sentence": self.sentence,
            "not_run": self.missing,
            "premises": vars(self.premises) if self.premises else None,
            "cells": [_without_kind(one) for one in self.cells],
            "routes": [_without_kind(one) for one in self.routes],
            "controls": [_without_kind(one) for one in self.controls],
        }
        return json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def as_html(self) -> str:
        """Return one page that needs nothing else: no network, no script."""
        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
        page = environment.from_string((Path(__file__).parent / "evidence.html").read_text(encoding="utf-8"))
        owner, stranger = self.premises.tenants if self.premises else ("one", "another")
        return page.render(
            evidence=self,
            premises=self.premises,
            passed=self._places(),
            states={table["name"]: table for table in self.premises.tables} if self.premises else {},
            actors=[(name, *words) for name, words in _ACTORS.items() if any(c["actor"] == name for c in self.cells)],
            labels={name: label for name, (label, _) in _ACTORS.items()},
            outcomes=_OUTCOMES,
            owner=owner,
            stranger=stranger,
        )


def _column(cell: Found) -> str:
    return str(cell["verb"]).partition(":")[0]


def _without_kind(found: Found) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "kind"}


def _letters() -> Iterator[str]:
    yield from "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _legend(entries: Sequence[str], width: int = 78) -> Iterator[Line]:
    line = ""
    for entry in entries:
        if line and len(line) + len(entry) + 3 > width:
            yield [(line, "")]
            line = ""
        line = f"{line} · {entry}" if line else entry
    if line:
        yield [(line, "")]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
