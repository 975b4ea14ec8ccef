"""Where a request may name its tenant: host, path, headers, query. Each place has a resolver."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from tenancy.directory import Reference
from tenancy.errors import ConfigurationError, MalformedReferenceError
from tenancy.resolvers.spelling import RESERVED_SLUGS, is_host_name, slug_reference, tenant_id_reference, valid_slug

ORIGINAL_PATH = "tenancy.original_path"  # the environ key under which a moved path prefix is kept whole

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
    if not is_host_name(name) and _ADDRESS.fullmatch(name) is None:
        raise MalformedReferenceError("the Host header is not a host name", hint="send the host name of the address")
    return name


def _repeated(source: str) -> MalformedReferenceError:
    return MalformedReferenceError(f"the {source} is given more than once", hint="send it once, with one value")


def _header(request: Request, name: str) -> str | None:
    """Return a header that is given once: WSGI servers join repeated ones with commas."""
    value: str | None = request.environ.get("HTTP_" + name.upper().replace("-", "_"))
    if value is not None and "," in value:
        raise _repeated(f"header {name}")
    return value


@dataclass(frozen=True)
class Subdomain:
    """See `from_subdomain`; the chain fills in `trusted_proxies`."""

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
        return Evidence("subdomain", slug_reference(label, "host name"))


@dataclass(frozen=True)
class CustomDomain:
    """See `from_custom_domain`; the chain fills in what it lacks."""

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
class PathPrefix:
    """See `from_path`; also tells how much of a path to move to SCRIPT_NAME."""

    before: str
    vary: tuple[str, ...] = ()

    def __call__(self, request: Request) -> Evidence | None:
        path = request.environ.get(ORIGINAL_PATH)
        found = self.slug_in(request.path if path is None else path)
        return Evidence("path", slug_reference(found, "path")) if found else None

    def slug_in(self, path: str) -> str:
        """Return what stands in the slug's place, well formed or not; "" when nothing does."""
        return path[len(self.before) :].partition("/")[0] if path.startswith(self.before) else ""

    def prefix_of(self, path: str) -> str:
        """Return the part of the path that belongs before the application, to be moved to SCRIPT_NAME."""
        slug = self.slug_in(path)
        return self.before + slug if valid_slug(slug) else ""


@dataclass(frozen=True)
class HeaderPair:
    """See `from_header`."""

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
            found.append(Evidence(source, tenant_id_reference(tenant_id, source)))
        if slug is not None:
            source = f"header {self.slug_header}"
            found.append(Evidence(source, slug_reference(slug, source)))
        return found


@dataclass(frozen=True)
class QueryParameter:
    """See `from_query`."""

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
        return Evidence("query", slug_reference(values[0], source))


@dataclass(frozen=True)
class Setting:
    """See `for_single_tenant`: the evidence is the same for every request."""

    evidence: Evidence

    def __call__(self, _request: Request) -> Evidence:
        return self.evidence


def from_subdomain(base_domain: str, *, reserved: Iterable[str] = RESERVED_SLUGS) -> Resolver:
    """Take the slug from `<slug>.<base_domain>`: exactly one label before exactly this suffix.

    reserved: labels that are no tenant's, such as `www`.
    """
    base = base_domain.lower().strip(".")
    if not is_host_name(base):
        raise ConfigurationError(f"{base_domain!r} is not a base domain", hint="give a name such as example.com")
    return Subdomain(base, frozenset(reserved))


def from_custom_domain() -> Resolver:
    """Take the host itself, where it is neither an address nor the base domain of another resolver or below it."""
    return CustomDomain()


def from_path(pattern: str) -> Resolver:
    """Take the slug from the start of the path, as in `/t/<slug>`; it must be the pattern's last part."""
    before, placeholder, rest = pattern.rstrip("/").partition("<slug>")
    if not placeholder or rest or not before.startswith("/") or not before.endswith("/") or before == "/":
        raise ConfigurationError(f"{pattern!r} is not a path to a slug", hint='write it as in from_path("/t/<slug>")')
    return PathPrefix(before)


def from_header(*, id_header: str = "X-Tenant-ID", slug_header: str = "X-Tenant-Slug") -> Resolver:
    """Take a tenant's UUID from one header, its slug from another; given both, they must agree.

    WSGI spells `X_Tenant_ID` and `X-Tenant-ID` alike, so the server must drop names with underscores;
    gunicorn and Werkzeug do.
    """
    return HeaderPair(id_header, slug_header)


def from_query(name: str = "tenant") -> Resolver:
    """Take the slug from the query of a request that changes nothing; on any other the parameter is an error."""
    return QueryParameter(name)


def for_single_tenant(slug: str, resolvers: Iterable[Resolver]) -> tuple[Resolver, ...]:
    """Return the resolvers of an application that serves one tenant at every host.

    Hosts no longer name a tenant; a token, path, header or query that does must name this one.
    """
    if not valid_slug(slug):
        raise ConfigurationError(f"single_tenant is {slug!r}, which is no slug", hint="name the one tenant by its slug")
    setting = Evidence("single-tenant setting", Reference("slug", slug))
    return (Setting(setting), *(r for r in resolvers if not isinstance(r, Subdomain | CustomDomain)))
