"""The guard: before each route, who is asking, whether she may, and whether her browser was made to."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from flask import Flask, current_app, request
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, current_user
from flask_wtf.csrf import CSRFError, CSRFProtect

from app import db
from app.audit.actors import note_actor
from app.auth.access import (
    Access,
    Principal,
    access_of,
    current_principal,
    find_principal,
    remember_principal,
    require_permission,
    require_principal,
)
from app.auth.desk import desk
from app.auth.timeouts import carry_on
from app.auth.tokens import Subject
from app.errors import ForbiddenError, NotSignedInError
from app.http import is_api
from app.impersonation.reach import check_reach
from app.staff.keys import note_use
from app.staff.permissions import StaffPermission
from app.staff.principals import find_staff, remember_staff
from tenancy.context import current_tenant
from tenancy.errors import InvalidTokenError

log = logging.getLogger(__name__)

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_NOWHERE = Access(needs_tenant=False, needs_sign_in=False, reason="no route matched")


class CrossSiteError(ForbiddenError):
    """The request was sent by another site in the browser of someone signed in here."""

    kind = "cross_site"


def init_app(app: Flask, logins: LoginManager) -> None:
    """Install the guard; after the tenancy extension, which says for which tenant."""
    app.config["WTF_CSRF_CHECK_DEFAULT"] = False
    app.config["WTF_CSRF_TIME_LIMIT"] = None
    csrf = CSRFProtect(app)

    @app.before_request
    def guard() -> ResponseReturnValue | None:
        view = current_app.view_functions.get(request.endpoint or "")
        access = _NOWHERE if view is None else access_of(view) or Access()
        brings_token = "Authorization" in request.headers
        if access.needs_staff:
            _admit_staff(access.staff)
            return None
        if access.needs_tenant:
            principal = _by_token() if brings_token else _by_cookie()
            remember_principal(principal)
            note_actor(principal.actor() if principal is not None else None)
            if principal is not None and principal.impersonation is not None:
                check_reach(principal, access, view)
            elif principal is not None:
                carry_on(desk(), db.session(), principal)
        if request.method not in _SAFE and not brings_token and _rides_on_cookie(access):
            _refuse_other_sites(csrf)
        if not access.needs_sign_in:
            return None
        if current_principal() is None and not is_api(request):
            answer: ResponseReturnValue = logins.unauthorized()
            return answer
        if access.permission is not None:
            require_permission(access.permission)
        else:
            require_principal()
        return None


def _by_cookie() -> Principal | None:
    return current_user._get_current_object() if current_user.is_authenticated else None


def _by_token() -> Principal:
    """Return whom the bearer token speaks for; a cookie sent along does not count.

    Raises: NotSignedInError - the token is no good, or its sign-in has ended.
    ForbiddenError - it is good, for another tenant than the request names.
    """
    subject = _subject()
    if subject.tenant_id != current_tenant():
        raise ForbiddenError("This token is for another tenant: sign in here, or leave out what names this tenant.")
    principal = find_principal(db.session(), subject.sign_in_id)
    if principal is None or principal.account_id != subject.account_id:
        raise NotSignedInError("The sign-in of this token has ended: sign in again.")
    return principal


def _admit_staff(permission: StaffPermission | None) -> None:
    """See who of the staff asks, by nothing but a bearer token: no cookie and no tenant's token counts here.

    Raises: NotSignedInError, ForbiddenError
    """
    principal = find_staff(desk(), _bearer())
    remember_staff(principal)
    note_actor(principal.actor())
    if permission is not None and permission not in principal.permissions:
        holder = "This API key" if principal.role is None else f"Your role is {principal.role}, which"
        raise ForbiddenError(f"{holder} does not include {permission}.")
    note_use(principal)


def _bearer() -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise NotSignedInError("Only bearer tokens sign in here: send `Authorization: Bearer <token>`.")
    return token.strip()


def _subject() -> Subject:
    try:
        return desk().access_tokens.read(_bearer())
    except (InvalidTokenError, ValueError):
        raise NotSignedInError("The token is not valid or has expired: refresh it, or sign in again.") from None


def _rides_on_cookie(access: Access) -> bool:
    """Tell whether a browser could be made to send this. The API's open routes read no cookie and set none."""
    return current_principal() is not None or (not is_api(request) and access is not _NOWHERE)


def _refuse_other_sites(csrf: CSRFProtect) -> None:
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin)[:2] != urlsplit(request.host_url)[:2]:
        log.warning("auth.cross_site_refused", extra={"origin": origin[:200]})
        raise CrossSiteError("This request comes from another site; send it from this tenant's own pages.")
    try:
        csrf.protect()
    except CSRFError:
        raise CrossSiteError(
            "The page's security token is missing or outdated: reload the page and try again."
        ) from None
