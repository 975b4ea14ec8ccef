"""What a benchmark yields: parts of rows, rows of figures, each against a named baseline and with its spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from benchmarks.bench import Bench

SCHEMA = 1  # of the JSON: raised when a reader of older results would misread a newer one


@dataclass(frozen=True)
class Spread:
    """The middle of many values, and the quartiles around it. n: how many were measured.

    fast: what one in twenty stays under: the figure least disturbed on a busy machine.
    """

    low: float
    median: float
    high: float
    n: int
    fast: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        if len(values) < 2:
            return cls(values[0], values[0], values[0], len(values), values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high, len(values), statistics.quantiles(values, n=20, method="inclusive")[0])

    def as_json(self) -> dict[str, float]:
        shown = {"low": self.low, "median": self.median, "high": self.high, "fast": self.fast}
        return {name: round(value, 4) for name, value in shown.items()} | {"n": self.n}


@dataclass(frozen=True)
class Figure:
    """One alternative in a row. ratio: to the row's baseline, None for the baseline itself."""

    name: str
    value: Spread
    ratio: Spread | None = None


@dataclass(frozen=True)
class Goal:
    """What one figure of a row is to reach. reason: why it is missed where it is, as far as that was measured.

    by: its ratio to the baseline, or its own value. below: names of figures it is to be lower than.
    """

    of: str
    at_most: float | None = None
    at_least: float | None = None
    by: Literal["ratio", "value"] = "ratio"
    below: tuple[str, ...] = ()
    reason: str = ""

    def describe(self, row: Row) -> str:
        unit = f" × {row.baseline}" if self.by == "ratio" else f" {row.unit}"
        if self.below:
            return f"less than {', '.join(self.below)}"
        return f"≤ {self.at_most:g}{unit}" if self.at_most is not None else f"≥ {self.at_least:g}{unit}"

    def is_reached(self, row: Row) -> bool | None:
        """Whether the row reaches it; None when what it compares was not measured."""
        mine = row.figure(self.of)
        if mine is None:
            return None
        if self.below:
            others = [other for name in self.below if (other := row.figure(name)) is not None]
            return all(mine.value.median < other.value.median for other in others) if others else None
        found = mine.ratio if self.by == "ratio" else mine.value
        if found is None:
            return None
        # As it is printed: two figures that read the same are the same.
        shown = round(found.median, 2)
        return (self.at_most is None or shown <= self.at_most) and (self.at_least is None or shown >= self.at_least)


@dataclass(frozen=True)
class Row:
    """Alternatives measured side by side. better: which direction a reader wishes for."""

    name: str
    unit: str
    baseline: str
    figures: tuple[Figure, ...]
    goals: tuple[Goal, ...] = ()
    better: Literal["lower", "higher"] = "lower"
    note: str = ""

    def figure(self, name: str) -> Figure | None:
        return next((figure for figure in self.figures if figure.name == name), None)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "better": self.better,
            "baseline": self.baseline,
            "note": self.note,
            "figures": [
                {
                    "name": figure.name,
                    "value": figure.value.as_json(),
                    "ratio": figure.ratio.as_json() if figure.ratio else None,
                }
                for figure in self.figures
            ],
            "goals": [
                {"of": goal.of, "goal": goal.describe(self), "is_reached": reached, "reason": goal.reason}
                for goal in self.goals
                for reached in (goal.is_reached(self),)
            ],
        }


@dataclass(frozen=True)
class Part:
    """One part of the suite, which can be run alone.

    how: how its figures are got, for the reader of the report. rows: how many `run` yields, for the progress bar.
    has_rivals: whether their environments must exist, which the first run makes.
    """

    name: str
    title: str
    how: str
    rows: int
    run: Callable[[Bench], Iterator[Row]]
    has_rivals: bool = False


@dataclass
class Outcome:
    """What became of a part. error: why it stopped, when it did; the rows before that are kept."""

    part: Part
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.part.name,
            "title": self.part.title,
            "how": self.part.how,
            "seconds": round(self.seconds, 1),
            "error": self.error,
            "rows": [row.as_json() for row in self.rows],
        }


def counted(name: str, unit: str, baseline: str, values: dict[str, float], **more: Any) -> Row:
    """Return a row of counted figures."""
    base = values.get(baseline)
    figures = tuple(
        Figure(which, Spread.of([value]), Spread.of([value / base]) if base and which != baseline else None)
        for which, value in values.items()
    )
    return Row(name, unit, baseline, figures, **more)
