"""Decisions written beside the code: `# tenancy: ignore[TEN403] the migrator's own until 2027-01-31`."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from datetime import date

from tenancy.doctor.code.sources import Source
from tenancy.doctor.findings import Finding
from tenancy.doctor.ignores import IGNORE_MALFORMED, Ignore

_MARK = re.compile(r"#\s*tenancy:\s*ignore\b(?P<rest>.*)$", re.MULTILINE)
_REST = re.compile(r"\[(?P<rules>TEN\d{3}(?:\s*,\s*TEN\d{3})*)\]\s*(?P<reason>.*?)(?:\s*\buntil\s+(?P<until>\S+))?\s*$")


def read_comments(source: Source) -> Iterator[Ignore | Finding]:
    """Yield each decision; one that lacks its rule or reason is a finding instead.

    A comment stands for its own line; one that is alone on a line stands for the next line of code.
    """
    if not _MARK.search(source.text):
        return
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        mark = _MARK.search(token.string) if token.type == tokenize.COMMENT else None
        if mark is not None:
            yield from _read(source, mark["rest"], token.start[0], _line_meant(source, token))


def _read(source: Source, rest: str, line: int, meant: int) -> Iterator[Ignore | Finding]:
    found = _REST.match(rest)
    try:
        until = date.fromisoformat(found["until"]) if found is not None and found["until"] else None
    except ValueError:
        found = None
        until = None
    if found is None or len(found["reason"].strip(" .:-")) < 3:
        yield IGNORE_MALFORMED.finding(
            source.name,
            f"{rest.strip() or 'the comment'} names no rule, no reason, or no day",
            remedy="write # tenancy: ignore[TEN403] why it is safe here until 2027-01-31",
            line=line,
        )
        return
    for rule_id in re.findall(r"TEN\d{3}", found["rules"]):
        yield Ignore(rule_id, source.name, found["reason"].strip(), source.name, until, meant)


def _line_meant(source: Source, token: tokenize.TokenInfo) -> int:
    lines = source.text.splitlines()
    line = token.start[0]
    if token.line[: token.start[1]].strip():
        return line
    while line < len(lines) and (not lines[line].strip() or lines[line].lstrip().startswith("#")):
        line += 1
    return line + 1
