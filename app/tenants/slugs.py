"""Slugs: derived from the name an organisation gives itself."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterator

from tenancy.errors import MalformedReferenceError
from tenancy.resolvers import RESERVED_SLUGS, normalize_slug

_LONGEST = 48  # leaves room for a suffix below the 63 of a DNS label
_TRIES = 8


def slug_candidates(name: str) -> Iterator[str]:
    """Yield slugs for an organisation, best first: its name as a DNS label, then with a random suffix.

    A name without a Latin letter, or a reserved one, goes straight to the suffix. Letters of other scripts
    are dropped rather than mapped, so that no slug imitates another.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    stem = re.sub(r"[^a-z0-9]+", "-", plain)[:_LONGEST].strip("-")
    try:
        yield normalize_slug(stem, reserved=RESERVED_SLUGS)
    except MalformedReferenceError:
        stem = f"tenant-{stem}".strip("-") if not re.search("[a-z]", stem) else stem
    for _ in range(_TRIES):
        yield f"{stem}-{secrets.token_hex(3)}"
