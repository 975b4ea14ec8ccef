"""Error pages: the same words whether a row is foreign or was never there."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Response, make_response, render_template, request

from app.http import is_api

_TITLES: Mapping[int, str] = {
    400: "That request cannot be used",
    403: "You may not do that",
    404: "Nothing is here",
    409: "That is taken",
    413: "That is too large",
    500: "Something failed here",
    503: "Back in a moment",
}
_DETAILS: Mapping[int, str] = {
    404: "The address may be wrong, or what was here is gone.",
    500: "It was logged. Try again later.",
    503: "The database did not answer. Try again shortly.",
}


def wants_page() -> bool:
    """Tell whether the caller is a browser that shows pages, and not a caller of the API."""
    kinds = ["application/problem+json", "application/json", "text/html"]
    return not is_api(request) and request.accept_mimetypes.best_match(kinds) == "text/html"


def problem_page(status: int, title: str, detail: str | None) -> Response | None:
    """Answer with an error page; None when the caller wants no page.

    The words of 404, 500 and 503 are fixed, so that none of them tells two reasons apart.
    """
    if not wants_page():
        return None
    page = render_template(
        "pages/error.html",
        status=status,
        title=_TITLES.get(status, title),
        detail=_DETAILS.get(status) or detail or "",
        way_out=request.script_root + "/",
    )
    response = make_response(page, status)
    response.headers["Cache-Control"] = "no-store"
    response.vary.add("Accept")
    return response
