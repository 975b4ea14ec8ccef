"""Response headers that tell browsers what a page may do: load from here, run no inline script, be framed by nobody."""

from __future__ import annotations

from flask import Flask, Response, request
from secure import (
    ContentSecurityPolicy,
    CrossOriginOpenerPolicy,
    CrossOriginResourcePolicy,
    PermissionsPolicy,
    ReferrerPolicy,
    Secure,
    StrictTransportSecurity,
    XContentTypeOptions,
    XFrameOptions,
)

from app.config import Settings

_YEAR_S = 31_536_000


def init_app(app: Flask, settings: Settings) -> None:
    """Set the headers on every response, those of the API included."""
    pages = _headers(_policy(), settings)
    # The viewer sets styles from its script, and has no form and no data of ours in it.
    viewer = _headers(_policy().style_src("'self'", "'unsafe-inline'"), settings)

    @app.after_request
    def protect(response: Response) -> Response:
        (viewer if request.endpoint == "openapi.view" else pages).set_headers(response)
        if request.endpoint == "static" and "v" in request.args:
            response.cache_control.clear()
            response.cache_control.public = True
            response.cache_control.max_age = _YEAR_S
            response.cache_control.immutable = True
        elif "Cache-Control" not in response.headers or response.mimetype == "text/html":
            response.headers["Cache-Control"] = "private, no-store"
        return response


def _policy() -> ContentSecurityPolicy:
    # No nonce: there is no inline script or style to let in.
    return (
        ContentSecurityPolicy()
        .default_src("'none'")
        .script_src("'self'")
        .style_src("'self'")
        .img_src("'self'", "data:")
        .font_src("'self'")
        .connect_src("'self'")
        .form_action("'self'")
        .base_uri("'none'")
        .frame_ancestors("'none'")
    )


def _headers(policy: ContentSecurityPolicy, settings: Settings) -> Secure:
    return Secure(
        csp=policy,
        coop=CrossOriginOpenerPolicy().same_origin(),
        corp=CrossOriginResourcePolicy().same_origin(),
        hsts=None if settings.is_development else StrictTransportSecurity().max_age(_YEAR_S).include_subdomains(),
        permissions=PermissionsPolicy().camera().microphone().geolocation(),
        referrer=ReferrerPolicy().same_origin(),
        xcto=XContentTypeOptions().nosniff(),
        xfo=XFrameOptions().deny(),
    )
