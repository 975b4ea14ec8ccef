"""Keeping secrets out of the audit: by the name a value goes under, and by the mark of its column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import inspect

REDACTED = "[redacted]"
SECRET = "secret"  # noqa: S105 - the key in `mapped_column(info={SECRET: True})` of a column that holds one
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRETS = re.compile(
    r"password|passwd|passphrase|secrets?|tokens?|hash|digest|cookie|credentials?|authorization|signature|otp|pin"
    r"|ciphertext|nonce"
)
_KEYS = re.compile(r"(api|private|secret|access|signing|encryption|data|master|wrapped|webhook|hmac) keys?")


def redacted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields as JSON, with a word in the place of each secret.

    The last words of a name decide: `password_hash` and `apiKey` are secrets, `password_policy` and `token_ttl_s`
    are not. Bytes are taken for a secret under any name.
    """
    return {
        name: REDACTED if is_secret_name(name) and value is not None else _plain(value)
        for name, value in fields.items()
    }


def is_secret_name(name: str) -> bool:
    """Tell whether what goes under this name is a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
    return _SECRETS.fullmatch(" ".join(words[-1:])) is not None or _KEYS.fullmatch(" ".join(words[-2:])) is not None


def _plain(value: Any) -> Any:
    match value:
        case Enum():
            return _plain(value.value)
        case None | bool() | int() | float() | str():
            return value
        case bytes() | bytearray() | memoryview():
            return REDACTED
        case UUID():
            return str(value)
        case datetime() | date():
            return value.isoformat()
        case Mapping():
            return redacted({str(name): inner for name, inner in value.items()})
        case list() | tuple() | set() | frozenset():
            return [_plain(inner) for inner in value]
    return str(value)


def changes_of(row: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a change to a row that is not flushed yet was from, and to; ask before the flush.

    A column marked `info={"secret": True}` says that it changed, and nothing else.
    """
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    state = inspect(row, raiseerr=True)
    for attribute in state.mapper.column_attrs:
        history = state.attrs[attribute.key].history
        if not history.has_changes():
            continue
        is_secret = any(column.info.get(SECRET) for column in attribute.columns)
        was = history.deleted[0] if history.deleted else None
        now = history.added[0] if history.added else None
        before[attribute.key] = REDACTED if is_secret and was is not None else was
        after[attribute.key] = REDACTED if is_secret and now is not None else now
    return redacted(before), redacted(after)
