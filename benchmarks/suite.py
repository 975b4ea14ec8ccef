"""The parts of the suite: every module of `benchmarks/parts`, in the order of the report."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Sequence

import benchmarks.parts
from benchmarks.bench import Bench
from benchmarks.figures import Outcome, Part

# A part that is not named here comes last.
ORDER = (
    "transaction",
    "orm",
    "threads",
    "policies",
    "leaky",
    "flask",
    "tenants",
    "registry",
    "onboarding",
    "modes",
    "extras",
    "pooler",
    "replica",
)


def find_parts() -> tuple[Part, ...]:
    """Return the `PART` of each module, so that a new one is in the suite by existing."""
    found: list[Part] = [
        importlib.import_module(f"benchmarks.parts.{module.name}").PART
        for module in pkgutil.iter_modules(benchmarks.parts.__path__)
    ]
    return tuple(sorted(found, key=lambda part: ORDER.index(part.name) if part.name in ORDER else len(ORDER)))


PARTS = find_parts()


def run_parts(bench: Bench, parts: Sequence[Part], *, tell: Callable[[Part, str], None]) -> list[Outcome]:
    """Run parts one after the other; one that stops keeps the rows it had, and the rest go on.

    tell: called with the part and the name of each row as it is finished.
    """
    outcomes = []
    for part in parts:
        outcome, begun = Outcome(part), time.monotonic()
        outcomes.append(outcome)
        try:
            for row in part.run(bench):
                outcome.rows.append(row)
                tell(part, row.name)
        except Exception as error:  # noqa: BLE001 - shown in the report and by the exit status
            outcome.error = f"{type(error).__name__}: {error}"
        outcome.seconds = time.monotonic() - begun
    return outcomes
