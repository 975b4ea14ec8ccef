"""Passwords: argon2id hashes, checked outside of any transaction because a check takes tens of milliseconds."""

from __future__ import annotations

import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.config import Settings
from app.configuration.keys import PasswordPolicy
from app.errors import InvalidInputError


class Passwords:
    """Hashes and checks at one cost. `check` costs the same whether or not there is an account."""

    def __init__(self, settings: Settings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_parallelism,
        )
        self._nobodys = self._hasher.hash(secrets.token_urlsafe(32))

    def hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def check(self, stored: str | None, password: str) -> bool:
        """Tell whether the password matches; None stands for an account that does not exist, and never does."""
        try:
            self._hasher.verify(stored if stored is not None else self._nobodys, password)
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Tell whether the hash was made at another cost and should be made anew at this sign-in."""
        return self._hasher.check_needs_rehash(stored)


def refuse_weak(password: str, policy: PasswordPolicy, *, field: str) -> None:
    """Refuse a new password that a policy does not let through.

    field: of the request, for the answer. Raises: InvalidInputError - says what the password has not.
    """
    lacking = policy.lacking(password)
    if lacking:
        raise InvalidInputError.of(field, f"needs {', '.join(lacking)}")
