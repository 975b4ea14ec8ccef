"""Keys: what a tenant's values and objects are kept under. Two different names never make the same key."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID

from tenancy.errors import KeyRefusedError

Key = str | Sequence[str]

# No capitals: on a disk that takes `A` for `a`, two names must stay two. No separator and no sign of a pattern.
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_DOT = ord(".")
_LONGEST_PART = 240  # bytes; file systems stop at 255
_LONGEST_OBJECT_KEY = 900  # bytes; S3 stops at 1,024
_LONGEST_CACHE_KEY = 200  # bytes; memcached stops at 250
# Stands before a digest; no encoded part holds it.
_DIGEST = "#"
TENANTS = "tenants"
EVERYONE = "everyone"


def encode_part(part: str) -> str:
    """Spell one part of a key in lower-case ASCII; every other byte of its UTF-8 becomes `=` and two digits.

    Raises: KeyRefusedError - it is empty, `.` or `..`, or holds NUL or half a surrogate pair.
    """
    if not isinstance(part, str):
        raise TypeError(f"a part of a key is text, not {type(part).__name__}")
    if part in ("", ".", "..") or "\0" in part:
        raise KeyRefusedError(
            f"{part!r} cannot be a part of a key", hint="name it by text that is neither empty nor dots"
        )
    try:
        raw = part.encode()
    except UnicodeEncodeError:
        raise KeyRefusedError(
            f"{part!r} holds half a surrogate pair", hint="check text where it enters the program"
        ) from None
    inner = range(1, len(raw) - 1)  # a dot at either end hides a file, or is dropped by some file systems
    return "".join(
        chr(byte) if byte in _PLAIN or (byte == _DOT and at in inner) else f"={byte:02x}" for at, byte in enumerate(raw)
    )


def parts_of(key: Key) -> tuple[str, ...]:
    """Return the parts of a key, encoded; text alone is one part, whatever it holds.

    Raises: KeyRefusedError - a part cannot be used, or there is none.
    """
    parts = (key,) if isinstance(key, str) else tuple(key)
    if not parts:
        raise KeyRefusedError("a key without parts", hint="name what is kept")
    return tuple(encode_part(part) for part in parts)


def cache_key(namespace: str, owner: UUID | None, key: Key) -> str:
    """Return what a cache keeps a value under; a key that grows too long ends in its digest instead.

    owner: the tenant; None for what is everyone's.
    Raises: KeyRefusedError
    """
    whose = [EVERYONE] if owner is None else [TENANTS, owner.hex]
    start = ":".join([encode_part(namespace), *whose])
    parts = ":".join(parts_of(key))
    if len(start) + 1 + len(parts) > _LONGEST_CACHE_KEY:
        parts = _DIGEST + sha256(parts.encode()).hexdigest()
    return f"{start}:{parts}"


def storage_prefix(tenant: UUID) -> str:
    """Return the folder below which everything of the tenant is stored; it ends in `/`."""
    return f"{TENANTS}/{tenant}/"


def object_key(tenant: UUID, name: str) -> str:
    """Return where an object of this name lies. `/` in a name parts folders, as in `files/photo.png`.

    Raises: KeyRefusedError - a part is empty or dots, as in `/etc` or `a/../b`, or it is too long.
    """
    parts = parts_of(name.split("/"))
    found = storage_prefix(tenant) + "/".join(parts)
    if len(found) > _LONGEST_OBJECT_KEY or max(map(len, parts)) > _LONGEST_PART:
        raise KeyRefusedError(
            f"the name of an object is too long: {len(name)} characters",
            hint="store under an id, and keep the name in a row",
        )
    return found


def name_of(tenant: UUID, key: str) -> str | None:
    """Return the name that made the key of an object; None when no name of this tenant's makes it."""
    prefix = storage_prefix(tenant)
    if not key.startswith(prefix):
        return None
    try:
        name = _decode(key.removeprefix(prefix))
        return name if object_key(tenant, name) == key else None
    except (ValueError, KeyRefusedError):
        return None


def _decode(parts: str) -> str:
    first, *escaped = parts.split("=")
    raw = first.encode() + b"".join(bytes.fromhex(rest[:2]) + rest[2:].encode() for rest in escaped)
    return raw.decode()
