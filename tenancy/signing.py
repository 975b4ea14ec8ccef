"""Signed mode: the scope of a transaction carries a signature, which the policies verify."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from tenancy.errors import ConfigurationError

SECRET_BYTES = 32
# A server's clock may be ahead by TOKEN_LIFE_S - RENEW_AFTER_S; one that is behind lengthens a token's life.
TOKEN_LIFE_S = 60
RENEW_AFTER_S = 20
_BLOCK_BYTES = 64
_KEPT_TOKENS = 4096


@dataclass(frozen=True)
class SigningKey:
    """A key that the database knows by `id`. As text: `<id>.<secret in base64>`, what `tenancy keys add` prints.

    secret: 32 to 64 random bytes; never shown by `repr`.
    Raises: ConfigurationError - an id or a secret that cannot be one.
    """

    id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", self.id):
            raise ConfigurationError(
                "the id of a signing key is not a plain name",
                hint="use lower-case letters, digits and hyphens, at most 32",
            )
        if not SECRET_BYTES <= len(self.secret) <= _BLOCK_BYTES:
            raise ConfigurationError(
                f"the secret of signing key {self.id!r} has {len(self.secret)} bytes, not {SECRET_BYTES} to 64",
                hint="make one with `tenancy keys add`",
            )

    @classmethod
    def generate(cls, key_id: str | None = None) -> Self:
        """Make a new key from the operating system's random source. key_id: None for a random one."""
        return cls(key_id if key_id is not None else secrets.token_hex(4), secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key from its text.

        Raises: ConfigurationError - it is not one; the message does not repeat it.
        """
        key_id, _, encoded = text.strip().partition(".")
        try:
            return cls(key_id, base64.b64decode(encoded, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError) as error:
            raise ConfigurationError(
                "the text is not a signing key", hint="pass what `tenancy keys add` printed: <id>.<secret>"
            ) from error

    def reveal(self) -> str:
        """Return the text that `parse` reads: a secret, for a secret store."""
        return f"{self.id}.{base64.urlsafe_b64encode(self.secret).decode()}"

    def pads(self) -> tuple[bytes, bytes]:
        """Return the inner and the outer pad of HMAC (RFC 2104): what the database keeps."""
        block = self.secret.ljust(_BLOCK_BYTES, b"\0")
        return bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)

    def sign(self, tenant: UUID | None, account: UUID | None, *, expiry: int) -> str:
        """Return the token that lets a transaction act for this tenant and account. expiry: epoch, in seconds."""
        message = f"{expiry}|{tenant or ''}|{account or ''}"
        return f"{self.id}.{expiry}.{hmac.digest(self.secret, message.encode(), 'sha256').hex()}"


class Tokens:
    """The tokens of one key, each kept for a third of its life."""

    def __init__(self, key: SigningKey, *, clock: Callable[[], float] = time.time) -> None:
        self.key = key
        self._clock = clock
        self._kept: dict[tuple[UUID | None, UUID | None], tuple[float, bytes]] = {}

    def token(self, tenant: UUID | None, account: UUID | None) -> bytes:
        """Return a token with at least `TOKEN_LIFE_S - RENEW_AFTER_S` left; nothing for no tenant and no account."""
        if tenant is None and account is None:
            return b""
        now = self._clock()
        kept = self._kept.get((tenant, account))
        if kept is not None and 0 <= now - kept[0] < RENEW_AFTER_S:
            return kept[1]
        if len(self._kept) >= _KEPT_TOKENS:
            self._kept.clear()  # cheaper than an order of use: a token is made in a few microseconds
        token = self.key.sign(tenant, account, expiry=int(now) + TOKEN_LIFE_S).encode()
        self._kept[tenant, account] = (now, token)
        return token
