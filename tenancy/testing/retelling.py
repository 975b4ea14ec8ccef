"""Stories that can be told again: each step as it was taken, and the shortest story that ends as badly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

# The name of a rule, and what was chosen for it: only texts, numbers, booleans, None and lists of them.
Step = tuple[str, dict[str, Any]]
Rule = Callable[..., None]
BEGINNING = 1  # of a story, which is never left out


class Teller(RuleBasedStateMachine):
    """A state machine that knows the steps it has taken.

    failed: called once with them and the first error. is_spoiled: a step has failed, so the end proves nothing more.
    """

    failed: Callable[[list[Step], Exception], None] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Step] = []
        self.is_spoiled = False

    def _take(self, act: Rule, chosen: dict[str, Any]) -> None:
        self.told.append((act.__name__, chosen))
        self._watch(lambda: act(self, **chosen))
        self._watch(self.check)

    def check(self) -> None:
        """Raise for what is wrong after a step, whatever the step was."""

    def _watch(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            if not self.is_spoiled and type(self).failed is not None:
                type(self).failed(list(self.told), error)  # type: ignore[misc]  # checked in the line before
            self.is_spoiled = True
            raise


def beginning(**strategies: Any) -> Callable[[Rule], Rule]:
    """Mark the rule that every story begins with."""

    def mark(act: Rule) -> Rule:
        @wraps(act)
        def take(self: Teller, **chosen: Any) -> None:
            self._take(act, chosen)

        marked: Rule = initialize(**strategies)(take)  # type: ignore[no-untyped-call]  # typed for bundles
        return marked

    return mark


def step(when: Callable[[Any], Any] = lambda _: True, **strategies: Any) -> Callable[[Rule], Rule]:
    """Mark a rule that is followed only when it can be. Told again at another time, it is passed over."""

    def mark(act: Rule) -> Rule:
        @wraps(act)
        def take(self: Teller, **chosen: Any) -> None:
            if when(self):
                self._take(act, chosen)

        ruled = rule(**strategies)(take)  # type: ignore[no-untyped-call]  # typed for bundles
        marked: Rule = precondition(lambda self: bool(when(self)))(ruled)
        return marked

    return mark


def retell(machine: type[Teller], steps: Sequence[Step]) -> None:
    """Tell these steps to a new machine of this kind.

    Raises: what a step or the end of the story raises.
    """
    telling = machine()
    try:
        for name, chosen in steps:
            getattr(telling, name)(**chosen)
    finally:
        telling.teardown()


def shorten(machine: type[Teller], steps: Sequence[Step], *, like: Exception, within_s: float) -> list[Step]:
    """Return fewer steps that end in an error of the same kind, as far as they are found in time.

    Leaves out half of them, then quarters, and so on to single steps.
    """
    best, until = list(steps), time.monotonic() + within_s
    size = len(best) // 2
    while size > 0:
        start = len(best) - size
        while start >= BEGINNING:
            tried = best[:start] + best[start + size :]
            if time.monotonic() > until:
                return best
            if _ends_like(machine, tried, like):
                best = tried
            start -= size
        size //= 2
    return best


def _ends_like(machine: type[Teller], steps: Sequence[Step], like: Exception) -> bool:
    try:
        retell(machine, steps)
    except Exception as error:  # noqa: BLE001 - of whatever kind the story was found by
        return type(error) is type(like)
    return False


def written(steps: Sequence[Step]) -> str:
    """Return the steps as one line, for `read_steps`."""
    return json.dumps([[name, chosen] for name, chosen in steps], separators=(",", ":"))


def read_steps(text: str) -> list[Step]:
    """Return what `written` wrote."""
    return [(name, chosen) for name, chosen in json.loads(text)]


def listed(steps: Sequence[Step]) -> str:
    """Return the steps for a reader, one a line."""
    return "\n".join(
        f"  {name}({', '.join(f'{key}={value!r}' for key, value in sorted(chosen.items()))})" for name, chosen in steps
    )
