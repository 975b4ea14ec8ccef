"""The id of each request: taken from the proxy in front where it is well formed, else made, and always answered."""

from __future__ import annotations

import re
from uuid import uuid4

from flask import Flask, Response, request, request_started

from app.audit.actors import current_request_id, note_actor, note_request_id

HEADER = "X-Request-ID"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{8,128}")


def init_app(app: Flask) -> None:
    """Name every request; comes first, so that whatever is refused can be found by its id, too."""
    request_started.connect(_begin, app)  # a request that names no tenant gets to no `before_request`
    app.after_request(_answer)
    app.teardown_request(_end)


def _begin(_app: Flask) -> None:
    given = request.headers.getlist(HEADER)
    is_usable = len(given) == 1 and _WELL_FORMED.fullmatch(given[0]) is not None
    note_request_id(given[0] if is_usable else uuid4().hex)
    note_actor(None)


def _answer(response: Response) -> Response:
    found = current_request_id()
    if found is not None:
        response.headers[HEADER] = found
    return response


def _end(_error: BaseException | None) -> None:
    # The thread serves somebody else next.
    note_request_id(None)
    note_actor(None)
