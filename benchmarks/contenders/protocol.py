"""The worker's side of a contender: one JSON line asks, one answers, and all timing happens between the two.

Imports the standard library only: it also runs in the rivals' own environments.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any


def serve(make: Callable[[dict[str, Any]], dict[str, Callable[..., Any]]]) -> None:
    """Answer questions until the asker hangs up. make: gets the first line, returns what can be asked."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not reach the asker
    actions: dict[str, Callable[..., Any]] = {}
    for line in sys.stdin:
        question = json.loads(line)
        reply: dict[str, Any]
        try:
            if not actions:
                actions = make(question)
                reply = {"value": sorted(actions)}
                gc.collect()
                gc.freeze()
            else:
                reply = {"value": actions[question.pop("do")](**question)}
        except Exception:  # noqa: BLE001 - told to the asker, who raises
            reply = {"error": traceback.format_exc()}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def timed(call: Callable[[int], object]) -> Callable[..., list[float]]:
    """Make an action out of a call: run it `n` times and answer with the microseconds of each."""
    count = 0

    def run(n: int) -> list[float]:
        nonlocal count
        times = []
        for number in range(count, count + n):
            before = time.perf_counter_ns()
            call(number)
            times.append((time.perf_counter_ns() - before) / 1000)
        count += n
        return times

    return run
