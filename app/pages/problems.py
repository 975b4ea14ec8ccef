"""Error pages: the same words whether a row is foreign or was never there."""

from __future__ import annotations

from collections.abc import Mapping

from flask import render_template, request

from app.errors import Problem

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


_TITLES_BY_CODE: Mapping[str, str] = {"tenant_suspended": "Not open at the moment"}


def problem_page(found: Problem) -> str:
    """Return the page for an error.

    The words of 404, 500 and 503 are fixed, so that none of them tells two reasons apart.
    """
    return render_template(
        "pages/error.html",
        status=found.status,
        title=_TITLES_BY_CODE.get(found.code) or _TITLES.get(found.status, found.title),
        detail=_DETAILS.get(found.status, found.detail),
        errors=found.errors,
        way_out=request.script_root + "/",
    )
