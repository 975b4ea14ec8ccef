"""The leak fuzzer: a state machine that does everything in every order, and an oracle that knows what must come of it.

Run `python -m tenancy.testing.fuzzer --help`.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker

from tenancy.binding import create_tenant_engine
from tenancy.session import tenant_sessionmaker
from tenancy.testing.ledger import Ledger, add_arguments, open_ledger
from tenancy.testing.rules import LeakMachine
from tenancy.testing.story import LeakError, OracleError, Tally

__all__ = ["LeakError", "LeakMachine", "OracleError", "Tally", "fuzz", "leak_machine"]

STEPS = 10_000
STEPS_A_STORY = 100
STORIES_A_ROUND = 10


def leak_machine(
    ledger: Ledger,
    *,
    tally: Tally | None = None,
    open_engine: Callable[..., Engine] = create_tenant_engine,
    open_sessions: Callable[[Engine], sessionmaker[Any]] = tenant_sessionmaker,
) -> type[LeakMachine]:
    """Return the state machine for one ledger, for `run_state_machine_as_test` or its `TestCase`.

    open_engine, open_sessions: make what is tested, from the app role's URL and the options of a pool, and from that.
    """
    found = {
        "ledger": ledger,
        "tally": tally or Tally(),
        "open_engine": staticmethod(open_engine),
        "open_sessions": staticmethod(open_sessions),
    }
    return type("LeakMachineOfALedger", (LeakMachine,), found)


def fuzz(ledger: Ledger, *, steps: int = STEPS, seed: int | None = None, shrinks: bool = True, **makers: Any) -> Tally:
    """Tell stories until so many steps have been taken, in rounds of one seed each.

    steps: 0 goes on until interrupted. seed: of the first round; each later round adds one. None chooses one.
    shrinks: look for a shorter story after one that failed. makers: those of `leak_machine`.
    Raises: LeakError, OracleError - with the seed of the round in which it happened, in a note.
    """
    tally, current = Tally(), secrets.randbelow(1 << 32) if seed is None else seed
    chosen = settings(
        max_examples=STORIES_A_ROUND,
        stateful_step_count=STEPS_A_STORY,
        phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    while steps == 0 or tally.steps < steps:
        machine = hypothesis.seed(current)(leak_machine(ledger, tally=tally, **makers))
        try:
            run_state_machine_as_test(machine, settings=chosen)
        except Exception as error:
            error.add_note(f"the same stories again: python -m tenancy.testing.fuzzer --seed {current} --steps 1")
            raise
        current += 1
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tenancy.testing.fuzzer", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="0 goes on until interrupted")
    add_arguments(parser)
    arguments = parser.parse_args()
    for name in ("psycopg", "sqlalchemy.pool"):  # they tell of each connection that is killed here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
    sys.stdout.write(f"seed {seed}\n")
    with open_ledger(arguments) as ledger:
        tally = fuzz(ledger, steps=arguments.steps, seed=seed)
    sys.stdout.write(tally.text() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
