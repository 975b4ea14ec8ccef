"""One examination: every kind of check on what was given, and a report that says what could not be looked at."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from importlib.metadata import version

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from tenancy.doctor import catalog, code, configuration, ignores, models, roles
from tenancy.doctor.findings import LEVELS, NOT_CHECKED, Finding, Level, Rule, Subject
from tenancy.doctor.ignores import Baseline, Ignore, Ignored, sort_out

RULES: tuple[Rule, ...] = (
    NOT_CHECKED,
    *ignores.RULES,
    *catalog.RULES,
    *roles.RULES,
    *models.RULES,
    *code.RULES,
    *configuration.RULES,
)
_ID = re.compile(r"TEN\d{3}")
# By the first digit of their rules' ids.
KINDS: Mapping[str, str] = {"1": "catalog", "2": "roles", "3": "models", "4": "code", "5": "configuration"}
_CHECKS: Mapping[str, Callable[[Subject], Iterable[Finding | Ignore]]] = {
    "1": catalog.examine_catalog,
    "2": roles.examine_roles,
    "3": models.examine_models,
    "4": code.examine_code,
    "5": configuration.examine_configuration,
}


@dataclass(frozen=True)
class Report:
    """What one examination found.

    findings: those that count, worst first. ignored: those somebody decided to live with. known: those of the
    baseline; vanished: what the baseline knew and is gone. started_at: aware UTC. unchecked: ids of the rules that
    nobody looked for, because they were not asked for, had no input, or their check failed.
    """

    findings: tuple[Finding, ...]
    ignored: tuple[Ignored, ...]
    started_at: datetime
    seconds: float
    versions: Mapping[str, str]
    unchecked: frozenset[str]
    known: tuple[Finding, ...] = ()
    vanished: tuple[str, ...] = ()

    @property
    def kinds(self) -> list[str]:
        """The kinds of which at least one rule was looked for."""
        seen = {rule.id[3] for rule in RULES if rule.id not in self.unchecked}
        return [kind for digit, kind in KINDS.items() if digit in seen]

    def count(self, level: Level) -> int:
        return sum(finding.rule.level == level for finding in self.findings)

    def fails_at(self, level: Level) -> bool:
        """Tell whether any finding that counts is of this level or worse."""
        return any(LEVELS.index(finding.rule.level) <= LEVELS.index(level) for finding in self.findings)

    def against(self, baseline: Baseline) -> Report:
        """Return the report without what the baseline knows."""
        new, known, vanished = baseline.sort_out(self.findings)
        return replace(self, findings=tuple(new), known=tuple(known), vanished=tuple(vanished))


def examine(
    subject: Subject,
    *,
    decisions: Sequence[Ignore] = (),
    kinds: Collection[str] = tuple(KINDS.values()),
    today: date | None = None,
) -> Report:
    """Run every check on the subject; one that cannot run is a finding and never ends the examination.

    decisions: what to live with, besides the comments in the code. kinds: those that are asked for; what is not
    asked for is not missed. today: None is today, in UTC.
    """
    started_at, clock = datetime.now(UTC), time.perf_counter()
    found: list[Finding] = []
    written: list[Ignore] = list(decisions)
    unchecked: set[str] = set()
    for digit, check in _CHECKS.items():
        kind = KINDS[digit]
        if kind not in kinds:
            unchecked |= _ids(digit)
            continue
        for result in _run(kind, check, subject):
            if isinstance(result, Ignore):
                written.append(result)
                continue
            found.append(result)
            if result.rule is NOT_CHECKED:
                named = _ID.findall(result.object_name) if result.object_name.startswith("check ") else ()
                unchecked |= _ids(digit) if result.object_name == f"kind {kind}" else set(named)
    counting, ignored = sort_out(found, written, today=today or started_at.date(), unchecked=unchecked)
    return Report(
        findings=tuple(sorted(dict.fromkeys(counting), key=_weight)),
        ignored=tuple(sorted(ignored, key=lambda one: _weight(one.finding))),
        started_at=started_at,
        seconds=time.perf_counter() - clock,
        versions=_versions(subject),
        unchecked=frozenset(unchecked),
    )


def _ids(digit: str) -> set[str]:
    return {rule.id for rule in RULES if rule.id[3] == digit}


def _run(kind: str, check: Callable[[Subject], Iterable[Finding | Ignore]], subject: Subject) -> list[Finding | Ignore]:
    results: list[Finding | Ignore] = []
    try:
        results.extend(check(subject))  # what came before an error is kept
    except Exception as error:  # noqa: BLE001 - whatever a check dies of, the others run and the report says so
        if subject.connection is not None:
            with suppress(SQLAlchemyError):  # the connection itself may be what was lost
                subject.connection.rollback()
        remedy = "mend what the error names, and run the doctor again; if it is the doctor's, report it"
        results.append(NOT_CHECKED.finding(f"kind {kind}", f"a check ended with {_describe(error)}", remedy=remedy))
    return results


def _describe(error: Exception) -> str:
    """Name the error by its class, and by the server's own words for one that came from there."""
    cause = getattr(error, "orig", None)
    first = str(cause).strip().splitlines()[:1] if cause is not None else []
    return ": ".join([type(cause or error).__name__, *first])


def _weight(finding: Finding) -> tuple[int, str, str, int]:
    return LEVELS.index(finding.rule.level), finding.rule.id, finding.object_name, finding.line or 0


def _versions(subject: Subject) -> dict[str, str]:
    found = {
        "tenancy": version("sqlalchemy-tenancy"),
        "python": platform.python_version(),
        "sqlalchemy": sqlalchemy.__version__,
    }
    if subject.connection is not None:
        number = subject.connection.dialect.server_version_info or ()
        found["postgresql"] = ".".join(map(str, number[:2]))
    return found
