"""Bearer tokens: what `from_jwt` accepts, and everything it must not."""

import base64
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from tenancy.directory import Reference
from tenancy.errors import ConfigurationError, ConflictingReferencesError, InvalidTokenError
from tenancy.resolvers import Chain, TokenResolver, VerificationKey, from_jwt, from_subdomain
from tests.tenancy.directories import ACME, GLOBEX, ListedDirectory

SECRET = bytes(range(32))
ISSUER = "https://id.example.com"
AUDIENCE = "crm"


def pem(public: Any) -> bytes:
    return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


RSA = rsa.generate_private_key(65537, 2048)
SMALL_RSA = rsa.generate_private_key(65537, 1024)
CURVE = ec.generate_private_key(ec.SECP256R1())
OTHER_CURVE = ec.generate_private_key(ec.SECP384R1())
LARGE_CURVE = ec.generate_private_key(ec.SECP521R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()
RSA_PEM = pem(RSA.public_key())


@pytest.fixture
def resolver() -> TokenResolver:
    return from_jwt(
        {"2026-11": VerificationKey("HS256", SECRET), "rsa": VerificationKey("RS256", RSA_PEM)},
        issuer=ISSUER,
        audience=AUDIENCE,
    )


def now() -> int:
    return int(datetime.now(UTC).timestamp())


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, with changes; a claim changed to Ellipsis is left out."""
    good = {
        "iss": ISSUER, "aud": AUDIENCE, "iat": now(), "exp": now() + 600, "sub": "ada", "tenant_id": str(ACME.id),
    }  # fmt: skip
    return {name: value for name, value in (good | changes).items() if value is not ...}


def part(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def signed(
    payload: Mapping[str, Any] | str, *, header: Mapping[str, Any] | str | None = None, secret: bytes = SECRET
) -> str:
    """Sign by hand: a library would not write what is tested here."""
    head = {"alg": "HS256", "typ": "JWT", "kid": "2026-11"} if header is None else header
    message = f"{part(head)}.{part(payload)}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(message.encode(), secret)
    return f"{message}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def bearing(token: str, *, scheme: str = "Bearer", host: str = "example.com") -> Request:
    built = EnvironBuilder(headers=[("Authorization", f"{scheme} {token}")]).get_environ()
    return Request(built | {"HTTP_HOST": host})


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_verified_token_names_its_tenant_and_hands_on_its_claims(resolver: TokenResolver, scheme: str) -> None:
    (found,) = resolver(bearing(signed(claims()), scheme=scheme))

    assert found.source == "token"
    assert found.reference == Reference("id", "0197c1a2-0000-7000-8000-00000000000a")
    assert found.claims is not None
    assert found.claims["sub"] == "ada"


@pytest.mark.parametrize(
    ("algorithm", "private", "public"),
    [
        ("RS256", RSA, RSA.public_key()),
        ("PS512", RSA, RSA.public_key()),
        ("ES256", CURVE, CURVE.public_key()),
        ("ES384", OTHER_CURVE, OTHER_CURVE.public_key()),
        ("ES512", LARGE_CURVE, LARGE_CURVE.public_key()),
        ("EdDSA", EDWARDS, EDWARDS.public_key()),
    ],
)
def test_token_signed_by_a_key_pair_is_verified(algorithm: str, private: Any, public: Any) -> None:
    resolver = from_jwt({"k": (algorithm, pem(public))}, issuer=ISSUER, audience=AUDIENCE)
    token = jwt.encode(claims(), private, algorithm, headers={"kid": "k"})

    assert len(resolver(bearing(token))) == 1


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
@pytest.mark.parametrize("is_text", [True, False])
def test_token_signed_by_a_secret_of_full_length_is_verified(algorithm: str, size: int, is_text: bool) -> None:
    secret = "s" * size
    given = secret if is_text else secret.encode()
    resolver = from_jwt({"k": (algorithm, given)}, issuer=ISSUER, audience=AUDIENCE)
    token = jwt.encode(claims(), secret, algorithm, headers={"kid": "k"})

    assert len(resolver(bearing(token))) == 1


def test_tenant_id_in_upper_case_is_read_canonically(resolver: TokenResolver) -> None:
    """T102"""
    (found,) = resolver(bearing(signed(claims(tenant_id=str(ACME.id).upper()))))

    assert found.reference.value == "0197c1a2-0000-7000-8000-00000000000a"


def test_id_and_slug_are_each_evidence(resolver: TokenResolver) -> None:
    found = resolver(bearing(signed(claims(tenant_slug="globex"))))

    assert [evidence.reference.kind for evidence in found] == ["id", "slug"]


def test_claim_names_can_be_chosen() -> None:
    resolver = from_jwt(
        {"2026-11": ("HS256", SECRET)}, issuer=ISSUER, audience=AUDIENCE, id_claim="tid", slug_claim="tsl"
    )

    (found,) = resolver(bearing(signed(claims(tenant_id="ignored", tid=str(GLOBEX.id)))))

    assert found.reference == Reference("id", str(GLOBEX.id))


@pytest.mark.parametrize("header", [None, "Basic YTpi", "Digest x", "token abc"])
def test_request_without_a_bearer_token_names_no_tenant(resolver: TokenResolver, header: str | None) -> None:
    environ = EnvironBuilder(headers={"Authorization": header} if header else {}).get_environ()

    assert list(resolver(Request(environ))) == []


def test_token_outside_the_authorization_header_is_not_read(resolver: TokenResolver) -> None:
    token = signed(claims())
    environ = EnvironBuilder(f"/?access_token={token}", headers={"Cookie": f"token={token}"}).get_environ()

    assert list(resolver(Request(environ))) == []


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "NONE", "", None, ["HS256"], "HS512", "RS256"])
def test_token_that_names_another_algorithm_is_refused(resolver: TokenResolver, algorithm: object) -> None:
    """T098"""
    header = {"alg": algorithm, "kid": "2026-11"}

    with pytest.raises(InvalidTokenError):
        resolver(bearing(signed(claims(), header=header)))
    with pytest.raises(InvalidTokenError):
        resolver(bearing(f"{part(header)}.{part(claims())}."))


def test_token_with_an_empty_signature_is_refused(resolver: TokenResolver) -> None:
    """T098"""
    head, body, _signature = signed(claims()).split(".")

    with pytest.raises(InvalidTokenError):
        resolver(bearing(f"{head}.{body}."))


@pytest.mark.parametrize("secret", [RSA_PEM, RSA_PEM.strip(), b"", b"2026-11"])
@pytest.mark.parametrize("kid", ["rsa", "2026-11"])
def test_token_signed_with_what_is_public_is_refused(resolver: TokenResolver, kid: str, secret: bytes) -> None:
    """T099"""
    token = signed(claims(), header={"alg": "HS256", "kid": kid}, secret=secret)

    with pytest.raises(InvalidTokenError):
        resolver(bearing(token))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every file opened and every connection made while the test runs."""
    events: list[str] = []
    is_on = [True]

    def note(event: str, args: tuple[Any, ...]) -> None:
        if is_on[0] and event in ("open", "socket.connect", "socket.getaddrinfo"):
            events.append(f"{event} {args!r}")

    sys.addaudithook(note)
    yield events
    is_on[0] = False


@pytest.mark.parametrize(
    "kid",
    ["../../../dev/null", "/etc/passwd", "' OR 1=1 --", "http://evil.test/k", "", "2026-12", None, 7, ["rsa"], {}],
)
def test_unknown_kid_is_refused_without_any_io(resolver: TokenResolver, kid: object, opened: list[str]) -> None:
    """T100"""
    token = signed(claims(), header={"alg": "HS256", "kid": kid})
    sent = bearing(token)
    opened.clear()

    with pytest.raises(InvalidTokenError):
        resolver(sent)

    assert opened == []


@pytest.mark.parametrize("name", ["jku", "jwk", "x5u", "x5c", "crit", "b64"])
def test_token_that_brings_its_own_key_is_refused_without_any_io(
    resolver: TokenResolver, name: str, opened: list[str], tmp_path: Path
) -> None:
    """T100"""
    header = {"alg": "HS256", "kid": "2026-11", name: f"file://{tmp_path}"}
    sent = bearing(signed(claims(), header=header))
    opened.clear()

    with pytest.raises(InvalidTokenError):
        resolver(sent)

    assert opened == []


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": ...}, {"iat": ...}, {"iss": ...}, {"aud": ...}, {"tenant_id": ...},
        {"exp": 1}, {"exp": "9999999999"}, {"exp": None}, {"exp": True}, {"exp": float("inf")}, {"exp": float("nan")},
        {"iat": 9999999999}, {"iat": "1"}, {"iat": True}, {"nbf": 9999999999}, {"nbf": "1"},
        {"iss": "https://evil.test"}, {"iss": [ISSUER]}, {"iss": None},
        {"aud": "cards"}, {"aud": []}, {"aud": 7}, {"aud": None},
        {"tenant_id": [str(ACME.id)]}, {"tenant_id": {"id": str(ACME.id)}}, {"tenant_id": 7}, {"tenant_id": None},
        {"tenant_id": ""}, {"tenant_id": "acme"}, {"tenant_id": f"{{{ACME.id}}}"}, {"tenant_id": f"{ACME.id}\n"},
        {"tenant_slug": None}, {"tenant_slug": "Acme"}, {"tenant_slug": ["acme"]},
    ],
)  # fmt: skip
def test_missing_or_wrong_claim_is_refused(resolver: TokenResolver, changes: dict[str, Any]) -> None:
    """T101, T102"""
    with pytest.raises(InvalidTokenError):
        resolver(bearing(signed(claims(**changes))))


def test_token_that_expired_within_the_leeway_is_accepted(resolver: TokenResolver) -> None:
    assert len(resolver(bearing(signed(claims(exp=now() - 3))))) == 1


@pytest.mark.parametrize("where", ["header", "claims"])
def test_key_given_twice_is_refused(resolver: TokenResolver, where: str) -> None:
    """T102"""
    body = json.dumps(claims())[:-1] + f', "tenant_id": "{GLOBEX.id}"}}'
    head = '{"alg": "HS256", "kid": "rsa", "kid": "2026-11"}'

    with pytest.raises(InvalidTokenError, match="twice"):
        resolver(bearing(signed(body) if where == "claims" else signed(claims(), header=head)))


@pytest.mark.parametrize(
    "token",
    ["", "x", "a.b", "a.b.c", "a.b.c.d", ".." , "a" * 9000, f"{part([])}.{part({})}.x", f"{part('null')}..",
     f"{part('[' * 4000)}.a.b", "é.é.é", "\x00.\x00.\x00"],
)  # fmt: skip
def test_text_that_is_no_token_is_refused(resolver: TokenResolver, token: str) -> None:
    with pytest.raises(InvalidTokenError):
        resolver.verify(token)


def of_length(length: int) -> str:
    """A good token of exactly this many characters."""
    for kind in ("JWT", "JWT ", "JWT  "):
        for padding in range(length * 3 // 4, 0, -1):
            token = signed(claims(pad="x" * padding), header={"alg": "HS256", "typ": kind, "kid": "2026-11"})
            if len(token) == length:
                return token
            if len(token) < length:
                break
    raise AssertionError(length)


def test_signed_token_has_at_most_8192_characters(resolver: TokenResolver) -> None:
    assert resolver.verify(of_length(8192))["sub"] == "ada"
    with pytest.raises(InvalidTokenError):
        resolver.verify(of_length(8193))


def test_payload_that_is_no_object_is_refused(resolver: TokenResolver) -> None:
    with pytest.raises(InvalidTokenError):
        resolver.verify(signed("[1]"))


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Bearerabc", "Bearer a, Bearer b"])
def test_authorization_that_is_not_one_bearer_token_is_refused(resolver: TokenResolver, value: str) -> None:
    environ = EnvironBuilder().get_environ() | {"HTTP_AUTHORIZATION": value}

    with pytest.raises(InvalidTokenError):
        resolver(Request(environ))


def test_error_names_neither_token_nor_key(resolver: TokenResolver) -> None:
    token = signed(claims(), secret=bytes(32))

    with pytest.raises(InvalidTokenError) as refused:
        resolver(bearing(token))

    assert token not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("HS256", b""), ("HS256", b"secret"), ("HS256", bytes(31)), ("HS384", bytes(47)), ("HS512", bytes(63)),
        ("HS256", RSA_PEM), ("HS256", RSA_PEM.decode()), ("HS256", b"ssh-rsa " + bytes(64)),
        ("RS256", SECRET), ("RS256", pem(SMALL_RSA.public_key())), ("RS256", pem(CURVE.public_key())),
        ("RS256", RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        ("ES256", pem(OTHER_CURVE.public_key())), ("ES256", RSA_PEM), ("EdDSA", RSA_PEM),
        ("none", b""), ("", SECRET), ("HS1", SECRET), ("RS1", RSA_PEM), ("hs256", SECRET),
        (["HS256", "RS256"], RSA_PEM), (("HS256",), SECRET), ("HS256", None),
    ],
)  # fmt: skip
def test_weak_or_mismatched_key_is_a_configuration_error(algorithm: Any, key: Any) -> None:
    """T099, T103"""
    with pytest.raises(ConfigurationError, match="key 'k'"):
        from_jwt({"k": (algorithm, key)}, issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize(
    "build",
    [
        lambda: from_jwt({}, issuer=ISSUER, audience=AUDIENCE),
        lambda: from_jwt({"k": ("HS256", SECRET)}, issuer="", audience=AUDIENCE),
        lambda: from_jwt({"k": ("HS256", SECRET)}, issuer=ISSUER, audience=""),
    ],
)
def test_missing_keys_issuer_or_audience_is_a_configuration_error(build: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        build()


def test_token_of_one_tenant_at_the_host_of_another_is_a_conflict(resolver: TokenResolver) -> None:
    """T096"""
    chain = Chain([resolver, from_subdomain("example.com")], ListedDirectory(ACME, GLOBEX))

    with pytest.raises(ConflictingReferencesError):
        chain.resolve(bearing(signed(claims()), host="globex.example.com"))


def test_claims_reach_the_application_by_the_trace(resolver: TokenResolver) -> None:
    chain = Chain([from_subdomain("example.com"), resolver], ListedDirectory(ACME))

    found = chain.resolve(bearing(signed(claims()), host="acme.example.com"))

    assert found.trace.claims is not None
    assert found.trace.claims["sub"] == "ada"
