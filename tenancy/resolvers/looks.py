"""What each resolver looked at and saw, in words for an operator: no token, no secret, nothing unprintable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from tenancy.errors import InvalidTokenError, MalformedReferenceError, TenancyError
from tenancy.resolvers.evidence import (
    ORIGINAL_PATH,
    CustomDomain,
    Evidence,
    HeaderPair,
    PathPrefix,
    QueryParameter,
    Request,
    Resolver,
    Setting,
    Subdomain,
)
from tenancy.resolvers.tokens import TokenResolver

Outcome = Literal["saw", "absent", "malformed"]


class Look(NamedTuple):
    """What one resolver made of a request.

    looked_at: the part of the request it reads, as far as it may be shown. refusal: why what it found is malformed.
    unverified: of a refused token, the claims that usually explain it; nobody has vouched for them.
    """

    resolver: str
    looked_at: str
    outcome: Outcome
    evidence: tuple[Evidence, ...] = ()
    refusal: TenancyError | None = None
    unverified: Mapping[str, Any] | None = None


def look(resolver: Resolver, request: Request) -> Look:
    """Ask one resolver, and return what it looked at and saw instead of raising."""
    name, looked_at = _described(resolver, request)
    try:
        found = resolver(request)
    except (MalformedReferenceError, InvalidTokenError) as refusal:
        unverified = resolver.unverified(request) if isinstance(resolver, TokenResolver) else None
        return Look(name, looked_at, "malformed", refusal=refusal, unverified=unverified)
    evidence = (found,) if isinstance(found, Evidence) else tuple(found or ())
    return Look(name, looked_at, "saw" if evidence else "absent", evidence)


def printable(text: str) -> str:
    """Return text from a client in printable ASCII, cut where it goes on for long."""
    shown = text[:100].encode("unicode_escape").decode("ascii")
    return shown if len(text) <= 100 else f"{shown}… ({len(text)} characters)"


def _described(resolver: Resolver, request: Request) -> tuple[str, str]:
    match resolver:
        case Subdomain():
            return "subdomain", f"{_host(request, resolver.trusted_proxies)} under {resolver.base_domain}"
        case CustomDomain():
            return "custom domain", _host(request, resolver.trusted_proxies)
        case PathPrefix():
            path = request.environ.get(ORIGINAL_PATH, request.path)
            return "path", f"{printable(path)} against {resolver.before}<slug>"
        case HeaderPair():
            return "header", ", ".join(_header(request, name) for name in resolver.vary)
        case QueryParameter():
            given = request.args.getlist(resolver.name)
            return "query", ", ".join(f"{resolver.name}={printable(value)}" for value in given) or f"no {resolver.name}"
        case TokenResolver():
            value = request.environ.get("HTTP_AUTHORIZATION", "")
            # Never the value itself: whoever reads a bearer token can use it.
            return "token", f"Authorization ({len(value)} characters)" if value else "no Authorization"
        case Setting():
            return resolver.evidence.source, "nothing in the request"
    return getattr(resolver, "__name__", type(resolver).__name__), "what it chooses to"


def _host(request: Request, trusted_proxies: int) -> str:
    return " ".join(_header(request, name) for name in ("Host", "X-Forwarded-Host")[: 2 if trusted_proxies else 1])


def _header(request: Request, name: str) -> str:
    value = request.environ.get("HTTP_" + name.upper().replace("-", "_"))
    return f"no {name}" if value is None else f"{name}: {printable(value)}"
