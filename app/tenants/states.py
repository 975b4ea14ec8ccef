"""The states of a tenant, and which may follow which: one table that every transition is checked against."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from app.errors import ProblemError


class Status(StrEnum):
    """Where a tenant stands in its life. Only an active one is served."""

    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    ARCHIVED = "archived"
    DELETING = "deleting"
    DELETED = "deleted"


# What may follow by somebody's decision. `deleting` goes back to where it came from only, see `allowed_from`; and
# only the erasure itself leads to `deleted`.
TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    Status.PENDING: (Status.ACTIVE, Status.DELETING),
    Status.ACTIVE: (Status.SUSPENDED, Status.ARCHIVED, Status.DELETING),
    Status.SUSPENDED: (Status.ACTIVE, Status.ARCHIVED, Status.DELETING),
    Status.ARCHIVED: (Status.ACTIVE, Status.DELETING),
    Status.DELETING: (),
    Status.DELETED: (),
}


class InvalidTransitionError(ProblemError):
    """A tenant cannot go from the state it is in to the one asked for."""

    code = 409
    kind = "invalid_transition"

    def __init__(self, detail: str, *, status: Status, allowed: tuple[Status, ...]) -> None:
        super().__init__(detail, members={"status": status.value, "allowed": [one.value for one in allowed]})


def allowed_from(status: Status, *, former: Status | None = None) -> tuple[Status, ...]:
    """Return the states that may follow.

    former: the state before a deletion was scheduled, for as long as that can be undone.
    """
    if status is Status.DELETING and former is not None:
        return (former,)
    return TRANSITIONS[status]


def check_transition(status: Status, to: Status, *, former: Status | None = None) -> None:
    """Refuse a transition that is not in the table.

    Raises: InvalidTransitionError - it names the state found and what may follow it.
    """
    allowed = allowed_from(status, former=former)
    if to in allowed:
        return
    after = f"from there it can become {', '.join(allowed)}" if allowed else "nothing can follow that"
    raise InvalidTransitionError(f"The tenant is {status}: {after}.", status=status, allowed=allowed)
