"""Resolvers: what a request says about its tenant. All of it is collected, and all of it must agree."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, NoReturn, Protocol, TypeAlias
from uuid import UUID

from tenancy.directory import Directory, Reference, TenantRecord
from tenancy.errors import (
    ClosedTenantError,
    ConfigurationError,
    ConflictingReferencesError,
    InvalidTokenError,
    MalformedReferenceError,
    NoTenantError,
    SuspendedTenantError,
    TenancyError,
    UnknownTenantError,
)

RESERVED_SLUGS = frozenset({"admin", "api", "app", "mail", "static", "status", "www"})
ORIGINAL_PATH = "tenancy.original_path"  # the environ key under which a moved path prefix is kept whole

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_SLUG = re.compile(r"(?=.{1,63}\Z)(?=.*[a-z])[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_TENANT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_ADDRESS = re.compile(r"\[[0-9a-f:.]{2,45}\]", re.ASCII)
_PORT = re.compile(r":[0-9]{1,5}\Z", re.ASCII)


class _Values(Protocol):
    def getlist(self, key: str, /) -> list[str]: ...


class Request(Protocol):
    """What a resolver reads; Flask's and Werkzeug's requests have it. Headers come from the WSGI environ."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def environ(self) -> Mapping[str, Any]: ...
    @property
    def args(self) -> _Values: ...


class Evidence(NamedTuple):
    """One thing in a request that names a tenant.

    source: what it was found in, as an operator would say it.
    claims: the verified claims of a token, so that nobody needs to verify it again.
    """

    source: str
    reference: Reference
    claims: Mapping[str, Any] | None = None


Resolver: TypeAlias = Callable[[Request], Evidence | Sequence[Evidence] | None]


# Spelling ---------------------------------------------------------------------------------------------


def valid_slug(text: str) -> bool:
    """Tell whether the text is a slug in canonical form: a lower-case DNS label that is no number."""
    return _SLUG.fullmatch(text) is not None


def normalize_slug(text: str, *, reserved: Iterable[str] = RESERVED_SLUGS) -> str:
    """Return the slug a new tenant may have: trimmed and lower-cased.

    Raises: MalformedReferenceError - it is no DNS label of ASCII letters, digits and single inner
    hyphens, is longer than 63, a number, or reserved.
    """
    slug = text.strip(" ")
    if not slug.isascii() or not valid_slug(slug := slug.lower()):
        raise MalformedReferenceError(
            "this is not a slug", hint="use 1 to 63 of a-z, 0-9 and single hyphens inside, with at least one letter"
        )
    if slug in set(reserved):
        raise MalformedReferenceError("this slug is reserved", hint="choose another")
    return slug


def parse_tenant_id(text: str) -> UUID:
    """Return the UUID written as 8-4-4-4-12 hexadecimal digits, in either case, and in no other way."""
    if _TENANT_ID.fullmatch(text) is None:
        raise MalformedReferenceError(
            "this is not a tenant id", hint="write it as a UUID: 8-4-4-4-12 hexadecimal digits, without braces"
        )
    return UUID(text)


def normalize_domain(text: str) -> str:
    """Return a domain as a Host header spells it: lower case, ASCII (`xn--`), without a final dot.

    Raises: MalformedReferenceError - it is no DNS name of two labels or more; or it has a letter, such
    as ß, that the two IDNA standards spell differently, so that two owners might be confused.
    """
    domain = text.strip(" ").lower().removesuffix(".")
    try:
        ascii_form = domain if domain.isascii() else domain.encode("idna").decode("ascii")
        is_one_to_one = domain.isascii() or ascii_form.encode("ascii").decode("idna") == domain
    except UnicodeError:
        ascii_form, is_one_to_one = "", False
    if not is_one_to_one or len(ascii_form) > 253 or "." not in ascii_form or not _HOST.fullmatch(ascii_form):
        raise MalformedReferenceError(
            "this is not a domain name", hint="give a name such as planning.example.com, in its xn-- form if need be"
        )
    return ascii_form


def host_of(request: Request, trusted_proxies: int) -> str:
    """Return the host the client asked for: lower case, without port and final dot.

    trusted_proxies: proxies in front that each append to X-Forwarded-Host. The value written by the
    outermost of them counts; those a client put before it do not. With 0 the header is not read.
    """
    environ = request.environ
    host = environ.get("HTTP_HOST", "")
    if trusted_proxies:
        forwarded = [value.strip(" ") for value in environ.get("HTTP_X_FORWARDED_HOST", "").split(",")]
        if len(forwarded) >= trusted_proxies and forwarded[-trusted_proxies]:
            host = forwarded[-trusted_proxies]
    name = _PORT.sub("", host).lower().removesuffix(".")
    if len(name) > 253 or (_HOST.fullmatch(name) is None and _ADDRESS.fullmatch(name) is None):
        raise MalformedReferenceError("the Host header is not a host name", hint="send the host name of the address")
    return name


def _slug(text: str, source: str) -> Reference:
    if not valid_slug(text):
        raise MalformedReferenceError(
            f"the {source} holds no slug", hint="a slug is 1 to 63 of a-z, 0-9 and single hyphens inside"
        )
    return Reference("slug", text)


def _tenant_id(text: str, source: str) -> Reference:
    try:
        return Reference("id", str(parse_tenant_id(text)))
    except MalformedReferenceError as error:
        raise MalformedReferenceError(f"the {source} holds no tenant id", hint=error.hint) from None


def _repeated(source: str) -> MalformedReferenceError:
    return MalformedReferenceError(f"the {source} is given more than once", hint="send it once, with one value")


def _header(request: Request, name: str) -> str | None:
    """Return a header that is given once: WSGI servers join repeated ones with commas."""
    value: str | None = request.environ.get("HTTP_" + name.upper().replace("-", "_"))
    if value is not None and "," in value:
        raise _repeated(f"header {name}")
    return value


# The resolvers ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subdomain:
    base_domain: str
    reserved: frozenset[str]
    trusted_proxies: int = 0
    vary: tuple[str, ...] = ("Host",)

    def __call__(self, request: Request) -> Evidence | None:
        host = host_of(request, self.trusted_proxies)
        if not host.endswith("." + self.base_domain):
            return None
        label = host[: -len(self.base_domain) - 1]
        if label in self.reserved:
            return None
        return Evidence("subdomain", _slug(label, "host name"))


@dataclass(frozen=True)
class _CustomDomain:
    base_domains: tuple[str, ...] = ()
    trusted_proxies: int = 0
    vary: tuple[str, ...] = ("Host",)

    def __call__(self, request: Request) -> Evidence | None:
        host = host_of(request, self.trusted_proxies)
        # No top-level domain begins with a digit, every spelling of an address has a last part that does.
        last = host.rpartition(".")[2]
        if last == host or last[0].isdigit() or host[0] == "[":
            return None
        if any(host == base or host.endswith("." + base) for base in self.base_domains):
            return None
        return Evidence("custom domain", Reference("domain", host))


@dataclass(frozen=True)
class _Path:
    before: str
    vary: tuple[str, ...] = ()

    def __call__(self, request: Request) -> Evidence | None:
        path = request.environ.get(ORIGINAL_PATH)
        found = self.slug_in(request.path if path is None else path)
        return Evidence("path", _slug(found, "path")) if found else None

    def slug_in(self, path: str) -> str:
        """Return what stands in the slug's place, well formed or not; "" when nothing does."""
        return path[len(self.before) :].partition("/")[0] if path.startswith(self.before) else ""

    def prefix_of(self, path: str) -> str:
        """Return the part of the path that belongs before the application, to be moved to SCRIPT_NAME."""
        slug = self.slug_in(path)
        return self.before + slug if valid_slug(slug) else ""


@dataclass(frozen=True)
class _Header:
    id_header: str
    slug_header: str

    @property
    def vary(self) -> tuple[str, ...]:
        return (self.id_header, self.slug_header)

    def __call__(self, request: Request) -> Sequence[Evidence]:
        found = []
        tenant_id = _header(request, self.id_header)
        slug = _header(request, self.slug_header)
        if tenant_id is not None:
            source = f"header {self.id_header}"
            found.append(Evidence(source, _tenant_id(tenant_id, source)))
        if slug is not None:
            source = f"header {self.slug_header}"
            found.append(Evidence(source, _slug(slug, source)))
        return found


@dataclass(frozen=True)
class _Query:
    name: str
    vary: tuple[str, ...] = ()

    def __call__(self, request: Request) -> Evidence | None:
        if not request.environ.get("QUERY_STRING") or not (values := request.args.getlist(self.name)):
            return None
        source = f"query parameter {self.name!r}"
        if len(values) > 1:
            raise _repeated(source)
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            raise MalformedReferenceError(
                f"the {source} cannot choose the tenant of a {request.method}",
                hint="name the tenant of a write by its host, path, header or token",
            )
        return Evidence("query", _slug(values[0], source))


def from_subdomain(base_domain: str, *, reserved: Iterable[str] = RESERVED_SLUGS) -> Resolver:
    """Take the slug from `<slug>.<base_domain>`: exactly one label before exactly this suffix.

    reserved: labels that are no tenant's, such as `www`.
    """
    base = base_domain.lower().strip(".")
    if _HOST.fullmatch(base) is None:
        raise ConfigurationError(f"{base_domain!r} is not a base domain", hint="give a name such as example.com")
    return _Subdomain(base, frozenset(reserved))


def from_custom_domain() -> Resolver:
    """Take the host itself, where it is neither an address nor the base domain of another resolver or below it."""
    return _CustomDomain()


def from_path(pattern: str) -> Resolver:
    """Take the slug from the start of the path, as in `/t/<slug>`; it must be the pattern's last part."""
    before, placeholder, rest = pattern.rstrip("/").partition("<slug>")
    if not placeholder or rest or not before.startswith("/") or not before.endswith("/") or before == "/":
        raise ConfigurationError(f"{pattern!r} is not a path to a slug", hint='write it as in from_path("/t/<slug>")')
    return _Path(before)


def from_header(*, id_header: str = "X-Tenant-ID", slug_header: str = "X-Tenant-Slug") -> Resolver:
    """Take a tenant's UUID from one header, its slug from another; given both, they must agree.

    WSGI spells `X_Tenant_ID` and `X-Tenant-ID` alike, so the server must drop names with underscores;
    gunicorn and Werkzeug do.
    """
    return _Header(id_header, slug_header)


def from_query(name: str = "tenant") -> Resolver:
    """Take the slug from the query of a request that changes nothing; on any other the parameter is an error."""
    return _Query(name)


def for_single_tenant(slug: str, resolvers: Iterable[Resolver]) -> tuple[Resolver, ...]:
    """Return the resolvers of an application that serves one tenant at every host.

    Hosts no longer name a tenant; a token, path, header or query that does must name this one.
    """
    setting = Evidence("single-tenant setting", _slug(slug, "single-tenant setting"))
    return (lambda _request: setting, *(r for r in resolvers if not isinstance(r, _Subdomain | _CustomDomain)))


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
        for name, parse in ((self._id_claim, _tenant_id), (self._slug_claim, _slug)):
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


# The chain --------------------------------------------------------------------------------------------

Memory = Literal["remembered", "looked up"]


class Step(NamedTuple):
    """What became of one piece of evidence; `tenant_id` is None when nobody is known by the reference."""

    evidence: Evidence
    memory: Memory
    tenant_id: UUID | None


class Trace(NamedTuple):
    """How a request was resolved. With an `error`, `tenant` is set only where the error is about that tenant."""

    evidence: tuple[Evidence, ...]
    steps: tuple[Step, ...]
    tenant: TenantRecord | None
    error: TenancyError | None

    @property
    def claims(self) -> Mapping[str, Any] | None:
        """The verified claims of the request's token, if it carried one."""
        return next((found.claims for found in self.evidence if found.claims is not None), None)


class Resolution(NamedTuple):
    """The one tenant a request is for, and how that was found."""

    tenant: TenantRecord
    trace: Trace


class Chain:
    """Asks every resolver, looks every reference up, and accepts one open tenant that all of them name.

    trusted_proxies: proxies in front that append to X-Forwarded-Host; 0 never reads that header.
    """

    def __init__(self, resolvers: Iterable[Resolver], directory: Directory, *, trusted_proxies: int = 0) -> None:
        given = tuple(resolvers)
        bases = tuple(resolver.base_domain for resolver in given if isinstance(resolver, _Subdomain))
        self.resolvers = tuple(_settle(resolver, bases, trusted_proxies) for resolver in given)
        self.directory = directory
        self.vary = tuple(dict.fromkeys(name for resolver in self.resolvers for name in getattr(resolver, "vary", ())))

    def resolve(self, request: Request) -> Resolution:
        """Return the tenant, or raise the error its trace holds."""
        trace = self.explain(request)
        if trace.error is not None:
            raise trace.error
        if trace.tenant is None:
            raise AssertionError("a trace has a tenant or an error")
        return Resolution(trace.tenant, trace)

    def explain(self, request: Request) -> Trace:
        """Resolve, and return how it went instead of raising."""
        evidence: list[Evidence] = []
        error: TenancyError | None = None
        for resolver in self.resolvers:
            try:
                found = resolver(request)
            except (MalformedReferenceError, InvalidTokenError) as refusal:
                error = error or refusal
                continue
            if isinstance(found, Evidence):
                evidence.append(found)
            elif found:
                evidence.extend(found)
        # Malformed evidence ends here: it must not cost a lookup.
        if error is None and not evidence:
            error = NoTenantError("the request names no tenant", hint="use the tenant's own address, or send its token")
        if error is not None:
            return Trace(tuple(evidence), (), None, error)
        return self._compare(tuple(evidence))

    def _compare(self, evidence: tuple[Evidence, ...]) -> Trace:
        steps: list[Step] = []
        first: TenantRecord | None = None
        for index, found in enumerate(evidence):
            answer = self.directory.peek(found.reference)
            try:
                tenant = answer.tenant if answer is not None else self.directory.find(found.reference)
            except TenancyError as error:
                return Trace(evidence, tuple(steps), None, error)
            if index == 0:
                first = tenant
            steps.append(Step(found, "looked up" if answer is None else "remembered", tenant.id if tenant else None))
        if any(step.tenant_id != steps[0].tenant_id for step in steps):
            # An unknown name beside a known one is a conflict as well: else the answer tells which names exist.
            conflict = ConflictingReferencesError(
                f"the request names different tenants by {', '.join(found.source for found in evidence)}",
                hint="leave out what names the other tenant, or sign in there",
            )
            return Trace(evidence, tuple(steps), None, conflict)
        return Trace(evidence, tuple(steps), first, _refusal(first))


def resolve(
    request: Request, resolvers: Iterable[Resolver], directory: Directory, *, trusted_proxies: int = 0
) -> Resolution:
    """Resolve one request; who serves many keeps a `Chain`."""
    return Chain(resolvers, directory, trusted_proxies=trusted_proxies).resolve(request)


def _settle(resolver: Resolver, base_domains: tuple[str, ...], trusted_proxies: int) -> Resolver:
    """Tell a resolver of hosts what only the chain knows."""
    if isinstance(resolver, _CustomDomain):
        resolver = replace(resolver, base_domains=base_domains)
    if isinstance(resolver, _Subdomain | _CustomDomain):
        vary = (*resolver.vary, "X-Forwarded-Host") if trusted_proxies else resolver.vary
        return replace(resolver, trusted_proxies=trusted_proxies, vary=vary)
    return resolver


def _refusal(tenant: TenantRecord | None) -> TenancyError | None:
    if tenant is None:
        return UnknownTenantError("no tenant answers to the reference", hint="check the address")
    if tenant.status == "active":
        return None
    if tenant.status == "suspended":
        return SuspendedTenantError(f"tenant {tenant.id!r} is suspended", hint="the platform's staff can lift it")
    return ClosedTenantError(f"tenant {tenant.id!r} is {tenant.status}", hint="only an active tenant is served")
