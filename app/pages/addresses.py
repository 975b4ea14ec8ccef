"""Addresses: of each tenant's host, of the bare host, and of places on this one that a link may name."""

from __future__ import annotations

import re
from urllib.parse import urlencode, urlsplit

from flask import current_app, request, url_for

from app.config import Settings
from app.db import tenancy
from tenancy.directory import TenantRecord
from tenancy.errors import NoTenantError

# One slash, then no second one and no backslash, which browsers read as one; visible ASCII only.
_LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]*", re.ASCII)


class Addresses:
    """Builds absolute addresses on the scheme and port of the current request."""

    def __init__(self, settings: Settings) -> None:
        self._base_domain = settings.base_domain
        self.has_hosts = settings.single_tenant is None and "subdomain" in settings.resolvers

    def bare(self, path: str) -> str:
        """Return the address of a path on the host that serves no tenant."""
        return f"{request.scheme}://{self._base_domain}{self._port()}{path.removeprefix(request.script_root)}"

    def of_tenant(self, slug: str, path: str) -> str:
        """Return the address of a path on a tenant's own host."""
        host = f"{slug}.{self._base_domain}{self._port()}"
        return f"{request.scheme}://{host}{path.removeprefix(request.script_root)}"

    def handover(self, tenant: TenantRecord) -> str:
        """Return where to click to go on in another tenant without signing in again."""
        try:
            via: str | None = tenancy().tenant.slug
        except NoTenantError:
            via = None
        return self.of_tenant(tenant.slug, url_for("auth_pages.begin_handover", via=via))

    def _port(self) -> str:
        port = urlsplit(request.host_url).port
        return f":{port}" if port else ""


def addresses() -> Addresses:
    """Return the addresses of the current application."""
    found = current_app.extensions["addresses"]
    if not isinstance(found, Addresses):
        raise TypeError(f"extension 'addresses' is {type(found).__name__}")
    return found


def local_path(wanted: str | None, *, default: str) -> str:
    """Return the path if it stays on this host, else the default: what a link says may lead nowhere else."""
    if wanted is None or _LOCAL.fullmatch(wanted) is None:
        return default
    parts = urlsplit(wanted)
    return wanted if not parts.scheme and not parts.netloc else default


def current_path() -> str:
    """Return the path and query of this request, in a form `local_path` lets through."""
    query = urlencode(list(request.args.items(multi=True)))
    return request.script_root + request.path + (f"?{query}" if query else "")
