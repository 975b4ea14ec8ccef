"""Checking an export: whether a file still holds the chain it was made from, without the database."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from app.audit.chain import Head, Link, Verdict, Walk

_ENTRY = ', "entry": '


class ExportError(Exception):
    """The file is no export of an audit, or was cut off."""


def verify_export(lines: Iterable[str]) -> Verdict:
    """Check the lines of an NDJSON export; the hashes are computed anew from the text as it stands there.

    Raises: ExportError - a line is not one of ours, or the last one, which names the head, is missing.
    """
    head: dict[str, Any] | None = None
    links: list[Link] = []
    for number, line in enumerate(lines, start=1):
        if head is not None:
            raise ExportError(f"line {number} comes after the head, which ends an export")
        try:
            found = json.loads(line)
            if "head" in found:
                head = found["head"]
            else:
                links.append(_link(found, line))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ExportError(f"line {number} is no line of an audit's export") from None
    if head is None:
        raise ExportError("the export was cut off: its last line, which names the head, is missing")
    return _follow(head, links)


def _link(found: dict[str, Any], line: str) -> Link:
    text = line.rstrip("\n").partition(_ENTRY)[2][:-1]
    gone = found["entry"] is None
    return Link(
        number=found["number"],
        entry_id=UUID(int=0) if gone else UUID(found["entry"]["id"]),
        at=datetime.fromisoformat(found["linked_at"]),
        previous_hash=bytes.fromhex(found["previous_hash"]),
        hash=bytes.fromhex(found["hash"]),
        text=None if gone else text,
    )


def _follow(head: dict[str, Any], links: list[Link]) -> Verdict:
    genesis = sha256(str(head["owner"]).encode()).digest()
    walk = Walk(genesis)
    if head["hash"] is not None:
        walk.begin(
            Head(
                head["number"],
                bytes.fromhex(head["hash"]),
                head["pruned_number"],
                bytes.fromhex(head["pruned_hash"]),
            )
        )
    for link in links:
        if not walk.follow(link):
            break
    return walk.verdict(walk.fault or walk.end())
