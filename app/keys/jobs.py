"""Sealing a tenant's values under its new data key, in the background."""

from __future__ import annotations

from app.keys.masters import keyring
from app.keys.operations import finish_rotation
from app.queue.tasks import Job, JobInterrupted, task
from tenancy.encryption.rotation import Progress

# A tenant that is not served at the moment has its values rotated all the same.
_ANY_STATE = frozenset({"pending", "active", "suspended", "archived"})


@task(name="data_key.seal_anew", served=_ANY_STATE)
def seal_anew(job: Job, *, reason: str) -> None:
    """Seal what is under an older key; the second job, asked for at the same time, catches late writers."""

    def stop_if_asked(_progress: Progress) -> None:
        if job.is_stopping():
            raise JobInterrupted

    if job.tenant_id is None:
        raise TypeError("a data key belongs to a tenant, and the job has none")
    finish_rotation(job.database, job.tenant_id, keyring(), reason=reason, watch=stop_if_asked)
