"""Idempotency keys: a POST that is sent again, because no answer came, is answered and not done again.

A key belongs to one actor. Only an answer of success is kept: a refusal did nothing, so that its repetition is
judged anew. An answer that holds a secret is not kept; its repetition is told that the thing was done.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID

from flask import Response, current_app, g, jsonify, request
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from app.admin.blueprint import blueprint
from app.admin.scopes import across_tenants, on_staff_tables
from app.errors import InvalidInputError, ProblemError, TakenError
from app.staff.models import KeptAnswer
from app.staff.principals import current_staff
from tenancy.tables import new_id

View = TypeVar("View", bound=Callable[..., Any])

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
_KEPT_FOR = timedelta(hours=24)
# A request that is still under way after this was killed. What it did then is unknown to us.
_GIVEN_UP_AFTER = timedelta(minutes=5)
_LONGEST_KEY = 200
_CLAIM = "kept_answer"
_SECRET = "_answers_with_secret"  # noqa: S105 - the name of a mark


class OtherRequestError(ProblemError):
    """The key stands for another request."""

    code = 422
    kind = "idempotency_key_reused"


class UnderWayError(TakenError):
    """The same request is being done at this moment."""

    kind = "idempotency_under_way"


class AlreadyDoneError(TakenError):
    """The request was done before, and its answer held a secret that was shown then only."""

    kind = "idempotency_done"


def answers_with_secret(view: View) -> View:
    """Mark a route whose answer holds a secret: it is never kept."""
    setattr(view, _SECRET, True)
    return view


@blueprint.before_request
def begin() -> Response | None:
    """Answer a repetition; or note that the request is under way."""
    key = request.headers.get(HEADER)
    principal = current_staff()
    if key is None or request.method != "POST" or principal is None:
        return None
    if not 1 <= len(key) <= _LONGEST_KEY or not key.isprintable() or not key.isascii():
        raise InvalidInputError.of(HEADER, f"must be 1 to {_LONGEST_KEY} printable ASCII characters")
    actor_id = principal.actor().id
    wanted = _hash_of_request()
    claimed = _claim(actor_id, key, wanted)
    if claimed is not None:
        setattr(g, _CLAIM, claimed)
        return None
    with across_tenants(reason="admin API: find a kept answer") as session:
        kept = session.scalar(select(KeptAnswer).where(KeptAnswer.actor_id == actor_id, KeptAnswer.key == key))
    if kept is not None and kept.request_hash != wanted:
        raise OtherRequestError("This Idempotency-Key was used for another request: use a new key for a new request.")
    if kept is None or kept.status is None:
        raise UnderWayError(
            "The same request is being done right now: send it again shortly.", headers={"Retry-After": "1"}
        )
    if kept.body is None:
        raise AlreadyDoneError("This was done before, and its secret was shown then only: make a new one.")
    answer = Response() if kept.status == 204 else jsonify(kept.body["json"])
    answer.status_code = kept.status
    if kept.body["location"]:
        answer.headers["Location"] = kept.body["location"]
    answer.headers[REPLAYED] = "true"
    return answer


@blueprint.after_request
def finish(response: Response) -> Response:
    """Keep the answer of what was done; give the key free where nothing was."""
    claimed: UUID | None = g.pop(_CLAIM, None)
    if claimed is None:
        return response
    with on_staff_tables(reason="admin API: keep an answer") as session:
        if not 200 <= response.status_code < 300:
            session.execute(delete(KeptAnswer).where(KeptAnswer.id == claimed))
            return response
        view = current_app.view_functions.get(request.endpoint or "")
        shown = {"json": response.get_json(silent=True), "location": response.headers.get("Location")}
        body = None if getattr(view, _SECRET, False) else shown
        session.execute(
            update(KeptAnswer).where(KeptAnswer.id == claimed).values(status=response.status_code, body=body)
        )
    return response


def _claim(actor_id: str, key: str, wanted: bytes) -> UUID | None:
    """Note that this request is under way, in a transaction of its own; None when the key stands for one already."""
    now = datetime.now(UTC)
    with on_staff_tables(reason="admin API: claim an idempotency key") as session:
        session.execute(
            delete(KeptAnswer).where(
                KeptAnswer.actor_id == actor_id,
                (KeptAnswer.expires_at <= now)
                | (KeptAnswer.status.is_(None) & (KeptAnswer.begun_at <= now - _GIVEN_UP_AFTER)),
            )
        )
        return session.scalar(
            insert(KeptAnswer)
            .values(
                id=new_id(),
                actor_id=actor_id,
                key=key,
                request_hash=wanted,
                begun_at=now,
                expires_at=now + _KEPT_FOR,
            )
            .on_conflict_do_nothing(index_elements=[KeptAnswer.actor_id, KeptAnswer.key])
            .returning(KeptAnswer.id)
        )


def _hash_of_request() -> bytes:
    parts = (request.path.encode(), request.query_string, request.get_data(cache=True))
    return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
