"""Checks and how they are run: one that fails is reported by name, and stops none of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from tenancy.doctor.findings import NOT_CHECKED, Finding, Rule
from tenancy.errors import TenancyError

T = TypeVar("T")


@dataclass(frozen=True)
class Check(Generic[T]):
    """A function over what was read, and the rules it may report."""

    rules: tuple[Rule, ...]
    run: Callable[[T], Iterator[Finding]]


def rules_of(checks: Iterable[Check[T]]) -> tuple[Rule, ...]:
    """Return the rules of some checks, each once, by id."""
    return tuple(sorted({rule for check in checks for rule in check.rules}, key=lambda rule: rule.id))


def run_checks(checks: Iterable[Check[T]], read: T) -> Iterator[Finding]:
    """Run each check. One that raises is itself a finding that names what nobody looked at."""
    for check in checks:
        try:
            yield from check.run(read)
        except (SQLAlchemyError, TenancyError) as error:
            yield not_checked(check.rules, error)


def not_checked(rules: Iterable[Rule], error: Exception) -> Finding:
    """Report rules whose check could not run, with the server's own words."""
    names = ", ".join(f"{rule.id} {rule.name}" for rule in rules)
    return NOT_CHECKED.finding(
        f"check {names}",
        f"the check could not run: {first_line(error)}",
        remedy="examine the database as the migrator or as a superuser",
    )


def first_line(error: Exception) -> str:
    """Return what an error says, without the statement, its parameters and any detail of rows."""
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
