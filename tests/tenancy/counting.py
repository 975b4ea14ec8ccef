"""Counting calls of functions: what work costs, on whatever machine."""

import sys
from collections.abc import Callable
from typing import Any


def calls_of(work: Callable[[], object]) -> int:
    """Count the functions that are called, of Python and of C."""
    seen = 0

    def look(_frame: Any, happened: str, _argument: Any) -> None:
        nonlocal seen
        seen += happened in ("call", "c_call")

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return seen - 1  # the call that ends it


def fewest_calls_of(work: Callable[[], object]) -> int:
    """Count once caches are warm and the statement is prepared; the garbage collector may add some at times."""
    for _ in range(8):
        work()
    return min(calls_of(work) for _ in range(5))
