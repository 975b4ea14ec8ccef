"""Sign-ins: how often somebody may be wrong about a password before she has to wait.

An attempt is counted before the password is looked at, so that many at once are no more than one after the other;
what turns out not to be wrong is given back. An address without an account is counted like any other.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from flask import Flask, Response, current_app, g, request

from app.config import Settings
from app.limits.rates import RateLimitedError, rates
from app.schemas import normalize_email

WINDOW_S = 900
# An address may serve a whole office, and an account may be tried from many: both get this many times as much.
_WIDER = 10
_EXTENSION = "sign_in_attempts"
_ATTEMPT = "sign_in_attempt"


class Door(NamedTuple):
    """Where a password is tried: the field of the address, and the status that says it was wrong."""

    field: str
    wrong: int


_DOORS = {
    "auth.login": Door("email", 401),
    "auth.register_organization": Door("admin_email", 409),
    "auth_pages.sign_in": Door("email", 401),
    "tenants_pages.sign_in": Door("email", 401),
    "admin.login_staff": Door("email", 401),
}


def init_app(app: Flask, settings: Settings) -> None:
    """Look at what is sent to every door that takes a password."""
    app.extensions[_EXTENSION] = settings.sign_in_attempts
    app.before_request(_take)
    app.after_request(_give_back)


def _take() -> None:
    door = _DOORS.get(request.endpoint or "")
    if door is None or request.method != "POST":
        return
    most: int = current_app.extensions[_EXTENSION]
    account, address = _account(door), request.remote_addr or ""
    allowed = {
        f"sign-in/{account}/{address}": most,
        f"sign-in/account/{account}": most * _WIDER,
        f"sign-in/address/{address}": most * _WIDER,
    }
    found = rates().take(list(allowed), WINDOW_S, 1)
    over = [taken.resets_in_s for taken, limit in zip(found, allowed.values(), strict=True) if taken.taken > limit]
    if over:
        wait_s = ceil(max(over))
        raise RateLimitedError(
            f"Too many attempts to sign in: try again in {wait_s} seconds.", headers={"Retry-After": str(wait_s)}
        )
    setattr(g, _ATTEMPT, (door, list(allowed)))


def _give_back(response: Response) -> Response:
    attempt: tuple[Door, list[str]] | None = g.pop(_ATTEMPT, None)
    if attempt is not None and response.status_code != attempt[0].wrong:
        rates().take(attempt[1], WINDOW_S, -1)
    return response


def _account(door: Door) -> str:
    """Return the address somebody tries, as it would be looked up; what is none is as good as any other."""
    sent = request.get_json(silent=True) if request.is_json else request.form
    given = sent.get(door.field) if isinstance(sent, dict) else None
    try:
        return normalize_email(given) if isinstance(given, str) and len(given) <= 320 else ""
    except ValueError:
        return ""
