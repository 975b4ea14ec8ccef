"""The leak fuzzer: a state machine that does everything in every order, and an oracle that knows what must come of it.

Run `python -m tenancy.testing.fuzzer --help`.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker

from tenancy.binding import create_tenant_engine
from tenancy.session import tenant_sessionmaker
from tenancy.testing.ledger import Ledger, add_arguments, open_ledger
from tenancy.testing.oracle import LeakError, OracleError, StallError
from tenancy.testing.retelling import Step, listed, read_steps, retell, shorten, written
from tenancy.testing.rules import LeakMachine
from tenancy.testing.story import Tally

__all__ = ["LeakError", "LeakMachine", "OracleError", "StallError", "Tally", "fuzz", "leak_machine", "replay"]

STEPS = 10_000
STEPS_A_STORY = 100
STORIES_A_ROUND = 10
SHRINK_S = 30.0
HANG_S = 600.0  # for one round, which takes seconds: longer than all that the server waits for
COMMAND = "python -m tenancy.testing.fuzzer"


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


def fuzz(
    ledger: Ledger, *, steps: int = STEPS, seed: int | None = None, shrink_s: float = SHRINK_S, **makers: Any
) -> Tally:
    """Tell stories until so many steps have been taken, in rounds of one seed each.

    steps: 0 goes on until interrupted. seed: of the first round; each later round adds one. None chooses one.
    shrink_s: how long to look for a shorter story after one that failed. makers: those of `leak_machine`.
    Raises: LeakError, OracleError, StallError - the first of its round; its notes tell the story and how to
    tell it again.
    """
    tally, current = Tally(), secrets.randbelow(1 << 32) if seed is None else seed
    while steps == 0 or tally.steps < steps:
        with _lost_cursors():
            _tell_a_round(ledger, tally, current, shrink_s, makers)
        current += 1
    return tally


def replay(ledger: Ledger, steps: Sequence[Step], **makers: Any) -> Tally:
    """Tell one story again, of steps as `retelling.read_steps` returns them."""
    tally = Tally()
    with _lost_cursors():
        retell(leak_machine(ledger, tally=tally, **makers), steps)
    return tally


@contextmanager
def _lost_cursors() -> Iterator[None]:
    """Let server-side cursors be collected here that psycopg could not close, as their connection had been killed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*ServerCursor.*was deleted while still open", ResourceWarning)
        try:
            yield
        finally:
            gc.collect()


def _tell_a_round(ledger: Ledger, tally: Tally, seed: int, shrink_s: float, makers: dict[str, Any]) -> None:
    # Hypothesis generates; it may shrink for five minutes, and a story needs less cunning: `shorten` does it.
    chosen = settings(
        max_examples=STORIES_A_ROUND,
        stateful_step_count=STEPS_A_STORY,
        phases=(Phase.generate,),
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    failures: list[tuple[list[Step], Exception]] = []
    machine = leak_machine(ledger, tally=tally, **makers)
    machine.failed = staticmethod(lambda story, error: failures.append((story, error)))
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=chosen)
    except Exception:
        if not failures:
            raise
    if failures:
        story, error = failures[0]
        short = shorten(leak_machine(ledger, **makers), story, like=error, within_s=shrink_s)
        error.add_note(f"a story of {len(short)} steps ends so; it had {len(story)}:\n{listed(short)}")
        error.add_note(f"this story again: {COMMAND} --story '{written(short)}'")
        error.add_note(f"the same stories again: {COMMAND} --seed {seed} --steps 1")
        raise error


def main() -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="0 goes on until interrupted")
    parser.add_argument("--story", type=read_steps, help="tell this one instead, as printed by an earlier run")
    add_arguments(parser)
    arguments = parser.parse_args()
    for name in ("psycopg", "sqlalchemy.pool"):  # they tell of each connection that is killed here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
    with open_ledger(arguments) as ledger:
        if arguments.story:
            tally = replay(ledger, arguments.story)
        else:
            sys.stdout.write(f"seed {seed}\n")
            tally = _fuzz_aloud(ledger, arguments.steps, seed)
    sys.stdout.write(tally.text() + "\n")
    return 0


def _fuzz_aloud(ledger: Ledger, steps: int, seed: int) -> Tally:
    """Do what `fuzz` does, and end the process with the place of every thread when a round hangs."""
    tally = Tally()
    while steps == 0 or tally.steps < steps:
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        with _lost_cursors():
            _tell_a_round(ledger, tally, seed, SHRINK_S, {})
        seed += 1
    faulthandler.cancel_dump_traceback_later()
    return tally


if __name__ == "__main__":
    sys.exit(main())
