"""Arguments of a remembered function as a part of its key: two calls that differ never share one."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID


def digest_of(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return a digest of the arguments as the function would see them, defaults included.

    Raises: TypeError - they do not fit the signature, or one has no plain spelling.
    """
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    spelled = json.dumps([[name, _spelled(name, value)] for name, value in bound.arguments.items()])
    return sha256(spelled.encode()).hexdigest()


def _spelled(name: str, value: Any) -> Any:
    """Return the value as JSON that names its type: 1, 1.0, True and "1" are four."""
    kind = type(value)  # exactly: a subclass may mean something else by the same text
    if value is None or kind in (bool, int, str):
        return [kind.__name__, value]
    if kind in (float, Decimal, UUID, date, datetime, time, timedelta):
        return [kind.__name__, repr(value)]
    if kind is bytes:
        return ["bytes", value.hex()]
    if kind in (list, tuple):
        return [kind.__name__, [_spelled(name, item) for item in value]]
    if kind is dict:
        return ["dict", sorted(([_spelled(name, k), _spelled(name, v)] for k, v in value.items()), key=json.dumps)]
    if kind in (set, frozenset):
        return [kind.__name__, sorted((_spelled(name, item) for item in value), key=json.dumps)]
    raise TypeError(f"argument {name!r} is a {kind.__name__}, which cannot be a part of a key: pass its id")
