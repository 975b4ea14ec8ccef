"""Running what was carried: only for a tenant that is served now, and only in its scope."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from tenancy.context import outside_any_scope, tenant_scope
from tenancy.directory import Directory, Reference
from tenancy.errors import DiscardedJobError, EnvelopeRefusedError, ParkedJobError
from tenancy.jobs.carrying import Carrier

T = TypeVar("T")
SERVED = frozenset({"active"})
_MAY_RETURN = frozenset({"pending", "active", "suspended", "archived"})


class Standing(StrEnum):
    """What is to become of a job, by the state its tenant is in at this moment."""

    RUN = "run"
    PARK = "park"
    DISCARD = "discard"


def standing_of(directory: Directory, tenant: UUID, *, served: Collection[str] = SERVED) -> Standing:
    """Look the tenant up, and say whether its jobs run, wait for it, or are no more.

    served: the states in which this job may run; by default `active` alone.
    Raises: DirectoryError - it could not answer; try the job again later.
    """
    found = directory.find(Reference("id", str(tenant)))
    if found is None or found.status not in _MAY_RETURN | set(served):
        return Standing.DISCARD
    return Standing.RUN if found.status in served else Standing.PARK


def check_standing(directory: Directory, tenant: UUID, *, served: Collection[str] = SERVED) -> None:
    """Pass a tenant whose jobs may run.

    Raises: ParkedJobError, DiscardedJobError; DirectoryError - the directory could not answer.
    """
    match standing_of(directory, tenant, served=served):
        case Standing.PARK:
            raise ParkedJobError(f"tenant {tenant!r} is not served now", hint="keep the job until it is")
        case Standing.DISCARD:
            raise DiscardedJobError(f"tenant {tenant!r} is unknown or being deleted", hint="discard the job")


def run_carried(
    function: Callable[[], T],
    *,
    envelope: object,
    carrier: Carrier,
    directory: Directory,
    task: str,
    arguments: object = None,
    served: Collection[str] = SERVED,
) -> T:
    """Call the function in the scope that the envelope carries, and in no other.

    task, arguments: what the envelope must have been sealed for.
    Raises: EnvelopeRefusedError, ParkedJobError, DiscardedJobError, DirectoryError - the function was not called.
    """
    carried = carrier.open(envelope, task=task, arguments=arguments)
    if carried.tenant is None:
        raise EnvelopeRefusedError(
            f"the envelope of {task!r} names no tenant", hint="run jobs of the platform in a platform scope"
        )
    with outside_any_scope():
        check_standing(directory, carried.tenant, served=served)
        with tenant_scope(carried.tenant, carried.account):
            return function()
