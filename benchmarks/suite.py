"""The parts of the suite, in the order of the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from benchmarks.bench import Bench
from benchmarks.figures import Outcome, Part
from benchmarks.parts import (
    flask_requests,
    leaky,
    modes,
    onboarding,
    orm,
    policies,
    pooler,
    tenants,
    threads,
    transaction,
)

PARTS: tuple[Part, ...] = (
    transaction.PART,
    orm.PART,
    threads.PART,
    policies.PART,
    leaky.PART,
    flask_requests.PART,
    tenants.PART,
    onboarding.PART,
    modes.PART,
    pooler.PART,
)


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
