"""Signing in to pages: a cookie that holds one sign-in of one tenant, and is worth nothing anywhere else."""

from __future__ import annotations

from uuid import UUID

from flask import Flask, Request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask_login import LoginManager, login_user, logout_user

from app import db
from app.auth.access import Principal, find_principal
from app.config import Settings
from tenancy.context import current_tenant


class _OneCookie(SecureCookieSessionInterface):
    """Reads the session only where the browser sent one cookie of its name.

    A second one comes from someone who could plant cookies, and nothing tells which is which.
    """

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        if len(request.cookies.getlist(self.get_cookie_name(app))) > 1:
            return self.session_class()
        return super().open_session(app, request)


def init_app(app: Flask, settings: Settings) -> LoginManager:
    """Set the cookie's attributes, and teach Flask-Login to read it."""
    is_live = not settings.is_development
    app.config.update(
        SECRET_KEY=settings.secret_key.get_secret_value(),
        SESSION_COOKIE_NAME="__Host-session" if is_live else "session",
        SESSION_COOKIE_SECURE=is_live,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH="/",
        SESSION_COOKIE_DOMAIN=None,
    )
    app.session_interface = _OneCookie()
    logins = LoginManager(app)
    logins.user_loader(_load)
    return logins


def _load(key: str) -> Principal | None:
    """Read the sign-in a cookie names. At another tenant, and where no tenant is served, nobody is signed in."""
    tenant_id, _, sign_in_id = key.partition(".")
    here = current_tenant()
    if here is None or tenant_id != str(here):
        return None
    return find_principal(db.session(), UUID(sign_in_id))


def start_session(principal: Principal) -> None:
    """Begin a page session: whatever the browser brought along, a CSRF token included, is thrown away."""
    session.clear()
    login_user(principal)


def end_session() -> None:
    """Forget the page session; `operations.sign_out` ends the sign-in itself."""
    logout_user()
    session.clear()


def names_tenant(tenant_id: UUID) -> bool:
    """Tell whether the browser's cookie was made by signing in to this tenant."""
    return str(session.get("_user_id", "")).partition(".")[0] == str(tenant_id)
