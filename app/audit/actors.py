"""Actors: who is behind what the program does now; the audit, jobs and platform scopes name them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum


class ActorKind(StrEnum):
    """What sort of somebody acts."""

    ACCOUNT = "account"
    STAFF = "staff"
    KEY = "key"
    JOB = "job"
    SYSTEM = "system"


@dataclass(frozen=True)
class Actor:
    """Somebody who acts.

    id: the id of the account, staff account or key; the name of the job or of the command.
    label: how people call them, such as an e-mail address or a key's prefix; never a secret.
    impersonator: the staff account that acts as this account; None nearly always.
    request_id: what ties together all that one request or job run did; None takes that of the request.
    """

    kind: ActorKind
    id: str
    label: str
    impersonator: str | None = None
    request_id: str | None = None


_current: ContextVar[Actor | None] = ContextVar("app_actor", default=None)
_request_id: ContextVar[str | None] = ContextVar("app_request_id", default=None)


def note_request_id(request_id: str | None) -> None:
    """Name the request or the job run that this context serves from now on."""
    _request_id.set(request_id)


def current_request_id() -> str | None:
    """Return the id of the request or of the job run that is served; None outside of both."""
    return _request_id.get()


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Name who acts inside the block."""
    token = _current.set(actor)
    try:
        yield
    finally:
        _current.reset(token)


def note_actor(actor: Actor | None) -> None:
    """Name who acts from now on in this context; for a request, whose guard finds it out midway."""
    _current.set(actor)


def current_actor() -> Actor | None:
    """Return who acts; None when nobody has said, as before anybody signed in."""
    return _current.get()


def require_actor() -> Actor:
    """Return who acts.

    Raises: RuntimeError - nobody has said; what changes something must know who does.
    """
    actor = _current.get()
    if actor is None:
        raise RuntimeError("nobody is named as acting: open acting_as(Actor(...)) around this code")
    return actor
