"""Security events: what was refused, counted where it happens and written in batches.

A refusal costs its request a lock and an addition. What is counted but not written is lost when the process is
killed, at most `FLUSH_S` seconds of it; a clean stop writes it.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from flask import Flask, Response, current_app, request

from app.audit.actors import Actor, ActorKind, acting_as
from app.audit.entries import record, record_platform
from app.db import Database
from tenancy.context import current_tenant, outside_any_scope, platform_scope, tenant_scope

log = logging.getLogger(__name__)

FLUSH_S = 5.0
MOST_KINDS = 100  # what is counted apart between two writes; the rest is counted as one
_EXTENSION = "security_events"
_CONFLICT = "conflicting_references"
_CODES = {_CONFLICT: "tenant_references.conflicted", "cross_site": "cross_site_request.refused"}
_SIGN_INS = {
    "auth.login": "sign_in.failed",
    "auth_pages.sign_in": "sign_in.failed",
    "admin.login_staff": "staff_sign_in.failed",
}
_GUARD = Actor(ActorKind.SYSTEM, "security", "security events")


@dataclass(frozen=True)
class Kind:
    """What is counted together. tenant_id: None where the refusal was of no tenant's, or of two tenants'."""

    action: str
    tenant_id: UUID | None
    detail: str


@dataclass
class Count:
    """How often, and when first and last."""

    times: int
    first_at: datetime
    last_at: datetime


class SecurityEvents:
    """Counts events, and writes the counts some seconds after the first of them."""

    def __init__(self, database: Database, *, flush_s: float = FLUSH_S) -> None:
        self._database = database
        self._flush_s = flush_s
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._is_closed = False
        self._counts: dict[Kind, Count] = {}
        self._timer: threading.Timer | None = None

    def note(self, action: str, *, tenant_id: UUID | None, detail: str = "") -> None:
        """Count one event. detail: what tells it from others of its kind, such as an origin; no secret."""
        now = datetime.now(UTC)
        with self._lock:
            if self._is_closed:
                return
            kind = Kind(action, tenant_id, detail[:200])
            if kind not in self._counts and len(self._counts) >= MOST_KINDS:
                kind = Kind(action, None, "of many kinds")
            count = self._counts.setdefault(kind, Count(0, now, now))
            count.times, count.last_at = count.times + 1, now
            if self._timer is None:
                self._timer = threading.Timer(self._flush_s, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write what was counted; what cannot be written is logged, and not tried again."""
        with self._lock:
            counts, self._counts = self._counts, {}
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
        with self._writing, outside_any_scope(), acting_as(_GUARD):
            for tenant_id in {kind.tenant_id for kind in counts}:
                these = {kind: count for kind, count in counts.items() if kind.tenant_id == tenant_id}
                try:
                    self._write(tenant_id, these)
                except Exception:
                    log.exception("security.events_lost", extra={"events": sum(c.times for c in these.values())})

    def close(self) -> None:
        """Write what was counted last, after whatever is being written now; nothing is counted any more."""
        with self._lock:
            self._is_closed = True
        self.flush()

    def _write(self, tenant_id: UUID | None, counts: dict[Kind, Count]) -> None:
        if tenant_id is None:
            with (
                platform_scope(actor=_GUARD.label, reason="write security events", reads_only=False),
                self._database.platform_sessions.begin() as staff_session,
            ):
                for kind, count in counts.items():
                    record_platform(staff_session, kind.action, after=_said(kind, count))
            return
        with tenant_scope(tenant_id), self._database.sessions.begin() as session:
            for kind, count in counts.items():
                record(session, kind.action, after=_said(kind, count))


def _said(kind: Kind, count: Count) -> dict[str, object]:
    return {"detail": kind.detail, "times": count.times, "first_at": count.first_at, "last_at": count.last_at}


def init_app(app: Flask, database: Database) -> None:
    """Count what is refused from now on; looks at refusals only."""
    app.extensions[_EXTENSION] = SecurityEvents(database)
    app.after_request(_note_refusal)


def close_app(app: Flask) -> None:
    """Write what was counted last, for the end of the program."""
    events: SecurityEvents = app.extensions[_EXTENSION]
    events.close()


def _note_refusal(response: Response) -> Response:
    if response.status_code in (401, 403):
        action = _SIGN_INS.get(request.endpoint or "") if response.status_code == 401 else None
        code = (response.get_json(silent=True) or {}).get("code") if response.is_json else None
        if action is not None:
            security_events().note(action, tenant_id=current_tenant(), detail=_address())
        elif code in _CODES:
            security_events().note(_CODES[code], tenant_id=_of_one(code), detail=request.headers.get("Origin", ""))
    return response


def _of_one(code: str) -> UUID | None:
    """Two tenants were named, or one: a conflict is in neither's audit, where the other could be read from it."""
    return current_tenant() if code != _CONFLICT else None


def _address() -> str:
    """Return the address that somebody tried to sign in as, as she sent it."""
    sent = request.get_json(silent=True) if request.is_json else request.form
    given = sent.get("email") if isinstance(sent, dict) else None
    return given if isinstance(given, str) else ""


def security_events() -> SecurityEvents:
    """Return the events of the current application."""
    found = current_app.extensions[_EXTENSION]
    if not isinstance(found, SecurityEvents):
        raise TypeError(f"extension {_EXTENSION!r} is {type(found).__name__}")
    return found
