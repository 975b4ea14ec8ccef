"""The plot of one row: a dot for each median, a bar for its quartiles, on one axis, with the baseline and the goal."""

from __future__ import annotations

import math
from typing import Any

import drawsvg

LABEL_PX, WIDTH_PX, LINE_PX, AXIS_PX, RIGHT_PX = 205, 790, 26, 22, 96
_TICKS = (1, 2, 5)


def draw_row(row: dict[str, Any]) -> str:
    """Return the SVG of a row as text. Its colours are classes, which the page gives for light and dark."""
    figures = row["figures"]
    if not figures:
        return ""
    axis = _Axis([value for figure in figures for value in (figure["value"]["low"], figure["value"]["high"])])
    height = LINE_PX * len(figures) + AXIS_PX
    drawing = drawsvg.Drawing(WIDTH_PX, height)
    base = next((figure for figure in figures if figure["name"] == row["baseline"]), None)
    for tick in axis.ticks():
        drawing.append(drawsvg.Line(axis.at(tick), 0, axis.at(tick), height - AXIS_PX, class_="grid"))
        drawing.append(_text(f"{tick:,g}", axis.at(tick), height - 6, "tick", "middle"))
    if base is not None:
        at = axis.at(base["value"]["median"])
        drawing.append(drawsvg.Line(at, 0, at, height - AXIS_PX, class_="baseline"))
    for number, figure in enumerate(figures):
        middle = LINE_PX * number + LINE_PX / 2
        kind = _kind(figure["name"], row["baseline"])
        value = figure["value"]
        bar = drawsvg.Line(axis.at(value["low"]), middle, axis.at(value["high"]), middle, class_=f"bar {kind}")
        dot = drawsvg.Circle(axis.at(value["median"]), middle, 5, class_=f"dot {kind}")
        dot.append_title(f"{figure['name']}: {value['median']:,.4g} {row['unit']}, n = {value['n']}")
        drawing.append(_text(figure["name"], LABEL_PX - 10, middle + 4, f"label {kind}", "end"))
        drawing.append(bar)
        drawing.append(dot)
        if figure["ratio"]:
            drawing.append(
                _text(f"× {figure['ratio']['median']:.2f}", WIDTH_PX - RIGHT_PX + 16, middle + 4, "ratio", "start")
            )
    text: str = drawing.as_svg(header="")
    return text


def _kind(name: str, baseline: str) -> str:
    if name == baseline:
        return "is-baseline"
    return "is-ours" if name.startswith("tenancy") else "is-other"


def _text(text: str, x: float, y: float, kind: str, anchor: str) -> drawsvg.Text:
    return drawsvg.Text(text, 12, x, y, text_anchor=anchor, class_=kind)


class _Axis:
    """Logarithmic where the values differ by more than eight times, else linear from zero."""

    def __init__(self, values: list[float]) -> None:
        positive = [value for value in values if value > 0] or [1.0]
        self._is_log = max(positive) / min(positive) > 8 and len(positive) == len(values)
        self._low = min(positive) / 1.15 if self._is_log else min(0.0, *values) * 1.08
        self._high = max(positive) * 1.08

    def at(self, value: float) -> float:
        share = (
            math.log(value / self._low) / math.log(self._high / self._low)
            if self._is_log
            else (value - self._low) / (self._high - self._low)
        )
        return LABEL_PX + share * (WIDTH_PX - LABEL_PX - RIGHT_PX)

    def ticks(self) -> list[float]:
        if not self._is_log:
            step = _round_step((self._high - self._low) / 5)
            first = math.ceil(self._low / step)
            return [step * number for number in range(first, int(self._high / step) + 1)]
        decades = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
        every = (1,) if self._high / self._low > 200 else _TICKS
        return [
            tick for decade in decades for step in every if self._low <= (tick := step * 10.0**decade) <= self._high
        ]


def _round_step(wanted: float) -> float:
    size = 10.0 ** math.floor(math.log10(wanted))
    return next(step * size for step in (1, 2, 5, 10) if step * size >= wanted)
