"""The secrets staff present: opaque, 256 random bits each, and stored by their hash only.

The first letters say what a secret is, so that scanners of leaked secrets and people know one when they see it.
"""

from __future__ import annotations

import secrets
from hashlib import sha256

SIGN_IN = "stf_"
KEY = "key_"
LINK = "once_"


def new_sign_in_token() -> str:
    """Return a fresh secret for a sign-in; it is shown once and never stored."""
    return SIGN_IN + secrets.token_urlsafe(32)


def new_link_token() -> str:
    """Return a fresh secret for a one-time link; it is shown once and never stored."""
    return LINK + secrets.token_urlsafe(32)


def new_key() -> tuple[str, str]:
    """Return a fresh API key, and the prefix it is known by; the key itself is shown once and never stored."""
    prefix = KEY + secrets.token_hex(4)
    return f"{prefix}_{secrets.token_urlsafe(32)}", prefix


def hash_of(secret: str) -> bytes:
    """Return what is stored of a secret. It has 256 random bits, so a plain hash is enough."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()
