"""What somebody decided to live with: findings ignored for a reason and a time, and a baseline of known ones."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tenancy.doctor.findings import Finding, Rule
from tenancy.errors import ConfigurationError

IGNORE_EXPIRED = Rule(
    "TEN002",
    "ignore-expired",
    "warning",
    "What was to be ignored for a while has outlived the while, and nobody has looked again.",
)
IGNORE_UNUSED = Rule(
    "TEN003",
    "ignore-unused",
    "warning",
    "An ignore that matches nothing lies in wait: it will hide the next finding of its kind.",
)
IGNORE_MALFORMED = Rule(
    "TEN004",
    "ignore-malformed",
    "warning",
    "An ignore without a rule or a reason cannot be reviewed, and so ignores nothing.",
)
RULES = (IGNORE_EXPIRED, IGNORE_UNUSED, IGNORE_MALFORMED)
CONFIG_FILE = "tenancy-doctor.toml"
_VERSION = 1


@dataclass(frozen=True)
class Ignore:
    """One decision to live with a finding.

    object_name: exact, or a pattern with `*`. until: the last day it counts; None counts until removed.
    line: of a comment in code, which stands for this line only. place: where the decision is written.
    """

    rule_id: str
    object_name: str
    reason: str
    place: str
    until: date | None = None
    line: int | None = None

    def covers(self, finding: Finding) -> bool:
        return (
            finding.rule.id == self.rule_id
            and self.line in (None, finding.line)
            and (finding.object_name == self.object_name or fnmatchcase(finding.object_name, self.object_name))
        )


@dataclass(frozen=True)
class Ignored:
    """A finding that counts for nothing, and the decision it is due to."""

    finding: Finding
    ignore: Ignore


def read_ignores(path: Path) -> list[Ignore]:
    """Read `[[ignore]]` tables: rule, object, reason, and until.

    Raises: ConfigurationError - the file cannot be read, or an entry lacks something; it names the entry.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error}", hint="write it as TOML, with a table [[ignore]] for each decision"
        ) from error
    entries = content.pop("ignore", [])
    if content or not isinstance(entries, list):
        raise ConfigurationError(
            f"{path} has {', '.join(map(repr, content)) or 'an ignore that is no list'}",
            hint="it holds nothing but [[ignore]] tables",
        )
    return [_ignore(path, number, entry) for number, entry in enumerate(entries, start=1)]


def _ignore(path: Path, number: int, entry: dict[str, Any]) -> Ignore:
    place = f"{path.name}, ignore {number}"
    unknown = entry.keys() - {"rule", "object", "reason", "until"}
    if unknown:
        raise _malformed(path, number, f"has {sorted(unknown)[0]!r}")
    values: dict[str, str] = {}
    for name in ("rule", "object", "reason"):
        value = entry.get(name)
        if not isinstance(value, str) or not value.strip():
            raise _malformed(path, number, f"has no {name}")
        values[name] = value.strip()
    until = entry.get("until")
    if until is not None and type(until) is not date:
        raise _malformed(path, number, f"ends {until!r}, which is no day")
    return Ignore(values["rule"], values["object"], values["reason"], place, until)


def _malformed(path: Path, number: int, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: ignore {number} {what}",
        hint='write rule = "TEN402", object = "shop/jobs.py", reason = "...", and perhaps until = 2027-01-31',
    )


def sort_out(
    findings: Iterable[Finding], ignores: Sequence[Ignore], *, today: date, unchecked: Collection[str] = ()
) -> tuple[list[Finding], list[Ignored]]:
    """Part what counts from what is ignored, and add what is wrong with the ignores themselves.

    unchecked: ids of rules that nobody looked for; an ignore of one is not called unused.
    """
    counting: list[Finding] = []
    ignored: list[Ignored] = []
    used: set[int] = set()
    for finding in findings:
        covering = [number for number, ignore in enumerate(ignores) if ignore.covers(finding)]
        used.update(covering)
        valid = next((ignores[n] for n in covering if not _is_expired(ignores[n], today)), None)
        if valid is None:
            counting.append(finding)
        else:
            ignored.append(Ignored(finding, valid))
    for number, ignore in enumerate(ignores):
        if _is_expired(ignore, today):
            what = f"the ignore of {ignore.rule_id} on {ignore.object_name} ended on {ignore.until}"
            remedy = "mend what it hid; or look at it anew, and write a later day with today's reason"
            counting.append(IGNORE_EXPIRED.finding(ignore.place, what, remedy=remedy, line=ignore.line))
        elif number not in used and ignore.rule_id not in unchecked:
            what = f"nothing of {ignore.rule_id} was found on {ignore.object_name}"
            counting.append(IGNORE_UNUSED.finding(ignore.place, what, remedy="remove it", line=ignore.line))
    return counting, ignored


def _is_expired(ignore: Ignore, today: date) -> bool:
    return ignore.until is not None and ignore.until < today


# Baseline --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Baseline:
    """Findings that were there when the doctor first came: they fail no run, and more of the same do.

    known: how often each fingerprint may occur. described: what each was, to tell of those that vanished.
    """

    known: Counter[str]
    described: dict[str, str]

    def sort_out(self, findings: Iterable[Finding]) -> tuple[list[Finding], list[Finding], list[str]]:
        """Part new findings from known ones, and describe the known ones that have vanished."""
        left = self.known.copy()
        new: list[Finding] = []
        known: list[Finding] = []
        for finding in findings:
            is_known = left[finding.fingerprint] > 0
            left[finding.fingerprint] -= is_known
            (known if is_known else new).append(finding)
        return new, known, [self.described[mark] for mark in self.known if left[mark] > 0]


def baseline_text(findings: Iterable[Finding]) -> str:
    """Return a baseline file that knows these findings."""
    entries: dict[str, dict[str, Any]] = {}
    for finding in findings:
        fresh = {"rule": finding.rule.id, "object": finding.object_name, "what": finding.what, "count": 0}
        entries.setdefault(finding.fingerprint, fresh)["count"] += 1
    return json.dumps({"version": _VERSION, "findings": entries}, indent=2, ensure_ascii=False) + "\n"


def read_baseline(path: Path) -> Baseline:
    """Read a file that `baseline_text` wrote.

    Raises: ConfigurationError
    """
    try:
        content = json.loads(path.read_text())
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']!r} is not {_VERSION}")
        entries = dict(_entries(content["findings"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is no baseline: {error}", hint=f"write one: tenancy doctor ... --write-baseline {path}"
        ) from error
    return Baseline(
        Counter({mark: count for mark, (count, _) in entries.items()}),
        {mark: text for mark, (_, text) in entries.items()},
    )


def _entries(found: dict[str, Any]) -> Iterator[tuple[str, tuple[int, str]]]:
    for mark, entry in found.items():
        yield mark, (int(entry["count"]), f"{entry['rule']} {entry['object']}: {entry['what']}")
