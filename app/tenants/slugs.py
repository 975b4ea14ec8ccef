"""Slugs: derived from the name an organisation gives itself, or chosen; never one that misleads."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterator
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import InvalidInputError
from app.tenants.models import reserved_slug
from tenancy.errors import MalformedReferenceError
from tenancy.resolvers import RESERVED_SLUGS as ALWAYS_RESERVED
from tenancy.resolvers import normalize_slug

_LONGEST = 48  # leaves room for a suffix below the 63 of a DNS label
_TRIES = 8
# Names that people take for the service's own, or that machines look for below a domain.
RESERVED_SLUGS = ALWAYS_RESERVED | {
    "account",
    "accounts",
    "assets",
    "auth",
    "autoconfig",
    "autodiscover",
    "billing",
    "blog",
    "cdn",
    "dashboard",
    "docs",
    "ftp",
    "help",
    "imap",
    "localhost",
    "login",
    "mta-sts",
    "pop",
    "postmaster",
    "root",
    "security",
    "smtp",
    "sso",
    "support",
    "tenants",
    "webmail",
    "wpad",
}


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


def refuse_unusable_slug(text: str) -> str:
    """Return the slug somebody chose, in its one spelling.

    Raises: InvalidInputError - it is no DNS label of ASCII letters, digits and single inner hyphens, or reserved.
    """
    try:
        return normalize_slug(text, reserved=RESERVED_SLUGS)
    except MalformedReferenceError as error:
        raise InvalidInputError.of("slug", f"{error.message}: {error.hint}") from None


def slug_is_held(session: Session, slug: str, *, by_other_than: UUID) -> bool:
    """Tell whether the slug is reserved for another tenant, or for nobody."""
    rows = reserved_slug.fetch(session.connection(), slug)
    return bool(rows) and rows[0].held_by != by_other_than
