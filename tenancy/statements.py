"""The statement guard: which SQL may run in a scope, judged once per text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from tenancy.errors import StatementRefusedError

_LEADING = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*(?:(?!/\*|\*/).)*\*/|\()*", re.DOTALL)
_REFUSED_START = re.compile(
    r"(?P<what>SET(?!\s+(?:CONSTRAINTS|TRANSACTION(?!.*\bWRITE))\b)|RESET|DISCARD|EXPLAIN|LISTEN|UNLISTEN|PREPARE"
    r"|DEALLOCATE|DO|BEGIN|START|COMMIT|END|ABORT|ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)"
    r"|ALTER\s+(?:ROLE|USER|DATABASE|SYSTEM))\b",
    re.IGNORECASE | re.DOTALL,
)
# Looked for inside literals too: query_to_xml('select set_config(...)') runs what its literal says.
_REFUSED_ANYWHERE = re.compile(
    r"\b(?P<what>set_config|with\s+hold|update\s+(?:only\s+)?\"?(?:pg_catalog\"?\.\"?)?pg_settings)\b", re.IGNORECASE
)
# No text without one of these has any of that. To look for them is quick; a thousand rows to insert are a long text.
_SUSPECT = ("set_config", "hold", "pg_settings")
_LONGEST_REMEMBERED = 8_192  # characters: thousands of longer ones would fill the memory
_COPY_DELIMITER = re.compile(r"\bDELIMITER\s+(?:AS\s+)?';'", re.IGNORECASE)
_LOCKING = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+)?(?:UPDATE|KEY\s+SHARE|SHARE)\b|\bINTO\b", re.IGNORECASE)
_CALLED = re.compile(r"([\w.$\"]+)\s*\(")
_ROLLBACK_TO = re.compile(
    r'\s*ROLLBACK\s+(?:(?:WORK|TRANSACTION)\s+)?TO\s+(?:SAVEPOINT\s+)?(?:\w+|"\w+")\s*;?\s*', re.ASCII | re.IGNORECASE
)
_RELEASE = re.compile(r'\s*RELEASE\s+(?:SAVEPOINT\s+)?(?:\w+|"\w+")\s*;?\s*', re.ASCII | re.IGNORECASE)
_READING = frozenset(
    """
    all and any array as avg between bool_and bool_or by case cast coalesce count cross current_setting date_trunc
    distinct else except exists extract filter from group having in intersect interval join lateral left length like
    limit lower ltrim max min not now nullif numeric offset on or order over partition pg_typeof rank replace right
    round row row_number rtrim select substring sum then to_char trim union unnest upper using values varchar when
    where with within
    """.split()  # noqa: SIM905 - one paragraph of names reads better than a column of strings
)


class Verdict(NamedTuple):
    """What the guard found. `refused` is the offending words, None when the statement may run."""

    refused: str | None
    only_reads: bool


@lru_cache(maxsize=4096)
def judge(sql: str) -> Verdict:
    """Judge one statement text.

    `only_reads` is True only for a plain SELECT whose functions are all known to change nothing, so that
    ending its transaction with COMMIT or with ROLLBACK is the same.
    """
    start = _LEADING.match(sql)
    body = sql[start.end() :] if start else sql
    if body.startswith("/*"):
        return Verdict("a comment within a comment", only_reads=False)
    found = _REFUSED_START.match(body) or (_is_suspect(body) and _REFUSED_ANYWHERE.search(body))
    if found:
        return Verdict(" ".join(found["what"].split()), only_reads=False)
    return Verdict(None, only_reads=body[:6].upper() == "SELECT" and _only_reads(body))


def _is_suspect(body: str) -> bool:
    folded = body.lower()
    return any(word in folded for word in _SUSPECT)


def _only_reads(body: str) -> bool:
    if _LOCKING.search(body) or "/*" in body or "--" in body:  # a comment may part a function from its "("
        return False
    return all(
        name.lower() in _READING or name.startswith(("tenancy.", "pg_catalog.current_"))
        for name in _CALLED.findall(body)
    )


def admit(sql: str) -> Verdict:
    """Return the verdict on a statement that may run.

    Raises: StatementRefusedError - it could change or outlive the scope of the transaction.
    """
    verdict = judge(sql) if len(sql) <= _LONGEST_REMEMBERED else judge.__wrapped__(sql)
    if verdict.refused is not None:
        raise StatementRefusedError(
            f"{verdict.refused!r} is not sent on a tenant connection",
            hint="open another scope or transaction from Python; for administration use an engine of its own",
        )
    return verdict


def admit_copy(sql: str) -> Verdict:
    """Return the verdict on a COPY, which must be one statement: its protocol would run a second one too.

    Raises: StatementRefusedError - as `admit`; or there is a semicolon in it, other than at its end.
    """
    if ";" in _COPY_DELIMITER.sub("", sql).rstrip().removesuffix(";"):
        raise StatementRefusedError(
            "a COPY with a semicolon in it could be two statements", hint="pass values that hold one as parameters"
        )
    return admit(sql)


def rolls_back_to(query: Any) -> bool:
    """Tell whether a statement is ROLLBACK TO SAVEPOINT and nothing more, which must not share a pipeline.

    psycopg forgets its prepared statements when it reads the answer, and tells the server to forget them after the
    statement it sends next. From a pipeline the answer is read too late for that, and what the next statement
    prepares would be forgotten by the server alone.
    """
    return isinstance(query, str) and _ROLLBACK_TO.fullmatch(query) is not None


def releases(query: Any) -> bool:
    """Tell whether a statement is RELEASE SAVEPOINT and nothing more."""
    return isinstance(query, str) and _RELEASE.fullmatch(query) is not None
