"""The tenant in a bearer token: verified with our own keys, in each key's own algorithm, without any I/O."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from tenancy.errors import ConfigurationError, InvalidTokenError, MalformedReferenceError
from tenancy.resolvers.evidence import Evidence, Request
from tenancy.resolvers.spelling import slug_reference, tenant_id_reference


class VerificationKey(NamedTuple):
    """A key, and the one algorithm tokens are signed with by it.

    algorithm: HS256, RS256, PS256, ES256 (or 384, 512 of each) or EdDSA.
    key: the secret of an HS algorithm, else the public key in PEM.
    """

    algorithm: str
    key: bytes | str


def from_jwt(
    keys: Mapping[str, VerificationKey | tuple[str, bytes | str]],
    *,
    issuer: str,
    audience: str,
    id_claim: str = "tenant_id",
    slug_claim: str = "tenant_slug",
    leeway_s: float = 10.0,
) -> TokenResolver:
    """Take the tenant from a verified token in `Authorization: Bearer`.

    keys: by `kid`; put the next key in before signing with it, take the last out when its tokens expired.
    Raises: ConfigurationError - a key is weak, or not of its algorithm's kind; issuer or audience is blank.
    """
    return TokenResolver(keys, issuer, audience, claims=(id_claim, slug_claim), leeway_s=leeway_s)


class TokenResolver:
    """Verifies bearer tokens. The token chooses among our keys by `kid`, and never an algorithm or a source of keys."""

    vary = ("Authorization",)

    def __init__(
        self,
        keys: Mapping[str, VerificationKey | tuple[str, bytes | str]],
        issuer: str,
        audience: str,
        *,
        claims: tuple[str, str],
        leeway_s: float,
    ) -> None:
        if not keys or not issuer or not audience:
            raise ConfigurationError(
                "a token resolver without keys, issuer or audience",
                hint="call from_jwt(keys, issuer=..., audience=...)",
            )
        import jwt  # only who reads tokens needs it installed

        self._jwt = jwt
        self._keys = {kid: (algorithm, _checked_key(kid, algorithm, key)) for kid, (algorithm, key) in keys.items()}
        self._issuer = issuer
        self._audience = audience
        self._id_claim, self._slug_claim = claims
        self._leeway_s = leeway_s

    def __call__(self, request: Request) -> Sequence[Evidence]:
        value: str = request.environ.get("HTTP_AUTHORIZATION", "")
        if value[:6].lower() != "bearer":
            return ()
        scheme, _, token = value.partition(" ")
        if len(scheme) != 6:
            _refuse("the Authorization header is not one bearer token")
        claims = self.verify(token)
        found = []
        for name, parse in ((self._id_claim, tenant_id_reference), (self._slug_claim, slug_reference)):
            if name in claims:
                value = claims[name]
                if not isinstance(value, str):
                    _refuse(f"its claim {name!r} is not text")
                try:
                    found.append(Evidence("token", parse(value, "token"), claims))
                except MalformedReferenceError:
                    _refuse(f"its claim {name!r} names no tenant")
        if not found:
            _refuse("it names no tenant")
        return found

    def unverified(self, request: Request) -> Mapping[str, Any] | None:
        """Return what a token says of its tenant, maker, audience and times, to explain why it is refused."""
        parts = request.environ.get("HTTP_AUTHORIZATION", "").split(".")
        try:
            claims = _json_object(parts[1]) if len(parts) == 3 else None
        except InvalidTokenError:
            return None
        shown = ("iss", "aud", "iat", "nbf", "exp", self._id_claim, self._slug_claim)
        return None if claims is None else {name: claims[name] for name in shown if name in claims}

    def verify(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token that is signed by one of our keys, for us, and now.

        Raises: InvalidTokenError - anything else; nothing is fetched and no file is opened to find out.
        """
        parts = token.split(".")
        if len(parts) != 3 or len(token) > 8192:
            _refuse("it is not a signed token")
        header = _json_object(parts[0])
        if header.keys() & {"jku", "jwk", "x5u", "x5c", "crit", "b64"}:
            _refuse("its header brings keys or options of its own")
        kid = header.get("kid")
        algorithm, key = self._keys.get(kid, ("", None)) if isinstance(kid, str) else ("", None)
        if key is None or header.get("alg") != algorithm:
            _refuse("it is not signed by a known key in that key's algorithm")
        try:
            claims: dict[str, Any] = self._jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway_s,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except self._jwt.ExpiredSignatureError:
            _refuse("it has expired")
        except (self._jwt.PyJWTError, ValueError, TypeError, OverflowError):
            _refuse("its signature or one of its claims is not right")
        _json_object(parts[1])
        if any(type(claims[name]) not in (int, float) for name in ("exp", "iat", "nbf") if name in claims):
            _refuse("its times are not numbers")
        return claims


def _checked_key(kid: str, algorithm: str, key: bytes | str) -> Any:
    secret = key.encode() if isinstance(key, str) else key
    if not isinstance(algorithm, str) or not isinstance(secret, bytes):
        raise ConfigurationError(f"key {kid!r} is not one algorithm and one key", hint="give each kid one of each")
    family, bits = algorithm[:2], algorithm[2:]
    is_pem = b"-----BEGIN" in secret
    if family == "HS" and bits in ("256", "384", "512"):
        if is_pem or secret.startswith(b"ssh-"):
            raise ConfigurationError(f"key {kid!r} is a public key used as a secret", hint="name its own algorithm")
        if len(secret) < int(bits) // 8:
            raise ConfigurationError(
                f"the secret of key {kid!r} has {len(secret)} bytes",
                hint=f"use {int(bits) // 8} random bytes: secrets.token_bytes({int(bits) // 8})",
            )
        return secret
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(secret)
    except (ValueError, UnsupportedAlgorithm):
        public = None
    curves = {"256": "secp256r1", "384": "secp384r1", "512": "secp521r1"}
    is_right = (
        (family in ("RS", "PS") and bits in curves and isinstance(public, rsa.RSAPublicKey) and public.key_size >= 2048)
        or (family == "ES" and isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name == curves.get(bits))
        or (algorithm == "EdDSA" and isinstance(public, ed25519.Ed25519PublicKey))
    )
    if not is_right:
        raise ConfigurationError(
            f"key {kid!r} is not a key for {algorithm!r}",
            hint="give a public key in PEM of the algorithm's own kind; RSA from 2048 bits",
        )
    return public


def _json_object(part: str) -> dict[str, Any]:
    """Decode a part of a token. A key given twice is refused: two readers would take different values."""
    try:
        found = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        _refuse("a part of it is not JSON")
    if not isinstance(found, dict):
        _refuse("a part of it is not a JSON object")
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("a key occurs in it twice")
    return found


def _refuse(found: str) -> NoReturn:
    raise InvalidTokenError(f"the bearer token is refused: {found}", hint="sign in again and send the new token")
