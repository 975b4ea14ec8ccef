"""What every HTML page shares: headers, addresses, forms, error pages, and the words templates know."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from flask import Flask, current_app, redirect, request, url_for
from flask_login import LoginManager
from werkzeug.wrappers import Response

from app.auth.access import current_principal
from app.auth.desk import desk
from app.auth.operations import Membership, memberships_of
from app.config import Settings
from app.db import tenancy
from app.http import PROBLEM_PAGE
from app.pages import formats, headers
from app.pages.addresses import Addresses, addresses, current_path
from app.pages.handover import Handover
from app.pages.problems import problem_page
from tenancy.directory import TenantRecord
from tenancy.errors import NoTenantError

TABLER = "vendor/tabler@1.6.1/tabler.min.css"
SITE = "CRM"


def init_app(app: Flask, settings: Settings, logins: LoginManager) -> None:
    """Register the pages and all they need. Comes last, when the routes of the API stand."""
    from app.auth import pages as auth_pages  # here, because these modules use the ones of this package
    from app.crm import pages as crm_pages
    from app.members import pages as member_pages
    from app.tenants import pages as tenants_pages

    for holder in (auth_pages, crm_pages, member_pages, tenants_pages):
        app.register_blueprint(holder.blueprint)
    app.extensions["addresses"] = Addresses(settings)
    app.extensions["handover"] = Handover(settings)
    app.extensions[PROBLEM_PAGE] = problem_page
    logins.unauthorized_handler(_ask_to_sign_in)
    headers.init_app(app, settings)
    formats.init_app(app)
    app.context_processor(_words)


def _words() -> dict[str, Any]:
    """Return what every template may name. Also read for error pages, so nothing here touches the database."""
    try:
        tenant: TenantRecord | None = tenancy().tenant
    except NoTenantError:
        tenant = None
    found = addresses()
    return {
        "TABLER": TABLER,
        "asset": _asset,
        "tenant": tenant,
        "site_name": tenant.name if tenant else SITE,
        "person": current_principal(),
        "switchable": _switchable,
        "handover_address": found.handover,
        "bare_address": found.bare(url_for("tenants_pages.choose")) if found.has_hosts else None,
    }


def _switchable() -> list[Membership]:
    """Return the tenants of whoever is signed in; this one alone where the site serves no other."""
    person = current_principal()
    if person is None:
        return []
    found = memberships_of(desk(), person.account_id)
    return [one for one in found if addresses().has_hosts or one.tenant.id == person.tenant_id]


def _asset(name: str) -> str:
    """Return the address of a static file; it changes with the content, so that browsers may keep it for long."""
    return url_for("static", filename=name, v=_digest(str(current_app.static_folder), name))


@cache
def _digest(folder: str, name: str) -> str:
    return sha256((Path(folder) / name).read_bytes()).hexdigest()[:12]


def _ask_to_sign_in() -> Response:
    wanted = current_path() if request.method == "GET" else None
    is_default = wanted in (url_for("tenants_pages.start"), url_for("crm_pages.people"))
    return redirect(url_for("auth_pages.sign_in", next=None if is_default else wanted), 303)
