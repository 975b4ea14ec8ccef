"""Tokens: signed access tokens that name a tenant, and refresh tokens of which only a hash is kept."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import jwt

from app.config import Settings
from tenancy.directory import TenantRecord
from tenancy.resolvers import TokenResolver, VerificationKey, from_jwt
from tenancy.tables import new_id

ALGORITHM = "HS256"


@dataclass(frozen=True)
class Subject:
    """Who a token speaks for: one account, in one tenant, by one sign-in."""

    account_id: UUID
    tenant_id: UUID
    sign_in_id: UUID


class AccessTokens:
    """Signs with one key and verifies with all, so that keys can be replaced while tokens are about."""

    def __init__(self, settings: Settings) -> None:
        self._kid = settings.jwt_signing_kid
        self._key = settings.jwt_keys[self._kid].get_secret_value().encode()
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self.ttl_s = settings.access_token_ttl_s
        self.resolver: TokenResolver = from_jwt(
            {
                kid: VerificationKey(ALGORITHM, key.get_secret_value().encode())
                for kid, key in settings.jwt_keys.items()
            },
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
        )

    def issue(
        self, subject: Subject, tenant: TenantRecord, *, at: datetime | None = None, impersonator: str | None = None
    ) -> str:
        """Return a token that ends `ttl_s` after `at` (aware; None is now).

        impersonator: the staff account that acts as the subject; the token says so (RFC 8693, `act`).
        """
        issued_at = at or datetime.now(UTC)
        marked = {} if impersonator is None else {"act": {"sub": impersonator}}
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(subject.account_id),
            "iat": issued_at,
            "exp": issued_at + timedelta(seconds=self.ttl_s),
            "jti": str(new_id()),
            "sid": str(subject.sign_in_id),
            "tenant_id": str(tenant.id),
            "tenant_slug": tenant.slug,
            **marked,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})

    def read(self, token: str) -> Subject:
        """Return who a token speaks for.

        Raises: InvalidTokenError - it is not ours, not for us, or not now.
        """
        return subject_of(self.resolver.verify(token))


def subject_of(claims: Any) -> Subject:
    """Return who verified claims speak for.

    Raises: ValueError - a claim that every token of ours has is missing or malformed.
    """
    try:
        return Subject(UUID(claims["sub"]), UUID(claims["tenant_id"]), UUID(claims["sid"]))
    except (KeyError, TypeError, AttributeError):
        raise ValueError("the token lacks a claim of ours") from None


def new_refresh_token() -> str:
    """Return a fresh secret; it is shown once and never stored."""
    return secrets.token_urlsafe(32)


def refresh_token_hash(token: str) -> bytes:
    """Return what is stored of a refresh token. It has 256 random bits, so a plain hash is enough."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
