"""Rotating a tenant's data key and the master key, saying how far that is, and destroying a tenant's keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.admin.scopes import name_of
from app.audit.actors import require_actor
from app.audit.entries import record, record_platform
from app.db import Database
from app.errors import ProblemError
from app.keys.models import DataKey
from app.models import Base
from app.tenants.models import Tenant
from tenancy.context import platform_scope, tenant_scope
from tenancy.encryption import Keyring
from tenancy.encryption.rotation import (
    Progress,
    count_by_version,
    destroy_keys,
    encrypted_tables,
    reencrypt,
    rewrap,
)
from tenancy.errors import KeyDestroyedError
from tenancy.session import TenantSession

# A tenant that is served would lose what it works with.
SHREDDABLE = frozenset({"archived", "deleting", "deleted"})
Watch = Callable[[Progress], None]


class KeysDestroyedError(ProblemError):
    """The tenant's data keys were destroyed, and it gets no others."""

    code = 409
    kind = "keys_destroyed"

    def __init__(self) -> None:
        super().__init__("The keys of this tenant were destroyed: nothing of it can be encrypted or decrypted.")


class StillServedError(ProblemError):
    """The tenant may still be served, so its keys are needed."""

    code = 409
    kind = "still_served"


class WrongNameError(ProblemError):
    """The name written out is not that of the tenant."""

    code = 409
    kind = "wrong_name"


@dataclass(frozen=True)
class KeyVersion:
    """One version of a data key. values: how many stored values it sealed."""

    version: int
    master_key_id: str
    created_at: datetime
    destroyed_at: datetime | None
    values: int


@dataclass(frozen=True)
class KeyStatus:
    """A tenant's data keys. values_left: those sealed by another version than the current."""

    versions: list[KeyVersion]

    @property
    def is_destroyed(self) -> bool:
        return any(one.destroyed_at is not None for one in self.versions)

    @property
    def current(self) -> int | None:
        return None if self.is_destroyed else max((one.version for one in self.versions), default=None)

    @property
    def values(self) -> int:
        return sum(one.values for one in self.versions)

    @property
    def values_left(self) -> int:
        return sum(one.values for one in self.versions if self.current is not None and one.version != self.current)


def read_status(session: Session) -> KeyStatus:
    """Return the keys of the session's tenant, and count its values by them."""
    counts: dict[int, int] = {}
    for table in encrypted_tables(Base.metadata):
        for version, values in count_by_version(session, table).items():
            counts[version] = counts.get(version, 0) + values
    keys = session.scalars(select(DataKey).order_by(DataKey.version)).all()
    return KeyStatus(
        [
            KeyVersion(key.version, key.master_key_id, key.created_at, key.destroyed_at, counts.get(key.version, 0))
            for key in keys
        ]
    )


def begin_rotation(session: TenantSession, keyring: Keyring, *, reason: str) -> int:
    """Give the session's tenant a new data key, unless a rotation of the last day has values left; returns the version.

    An older one does not count: what it has left may never open, and must not stand in the way of every later one.
    `finish_rotation` seals the values anew after the commit; both versions open until then, and after.
    Raises: KeysDestroyedError; KeyStoreError - the master key does not answer.
    """
    before = read_status(session)
    if before.is_destroyed:
        raise KeysDestroyedError
    if before.current is not None and before.values_left and before.versions[-1].created_at > _a_day_ago():
        return before.current
    version = keyring.add_version(session)
    record(session, "data_key.rotated", before={"version": before.current}, after={"version": version}, reason=reason)
    return version


def _a_day_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=1)


def finish_rotation(
    database: Database, tenant_id: UUID, keyring: Keyring, *, reason: str, watch: Watch | None = None
) -> KeyStatus:
    """Seal the tenant's values under its current data key, a batch at a time; whoever stops it may start it again.

    watch: told after each batch.
    Raises: KeysDestroyedError; KeyStoreError.
    """
    with _as_staff(database, tenant_id, reason=reason) as session:
        try:
            for progress in reencrypt(session, keyring, Base.metadata):
                if watch is not None:
                    watch(progress)
        except KeyDestroyedError:
            raise KeysDestroyedError from None
        return read_status(session)


def tenants_under_other_masters(database: Database, keyring: Keyring, *, reason: str) -> list[UUID]:
    """Return the tenants with a data key that the current master key does not wrap."""
    other = select(DataKey.tenant_id).where(
        DataKey.master_key_id != keyring.store.current_id, DataKey.destroyed_at.is_(None)
    )
    with (
        platform_scope(actor=name_of(require_actor()), reason=reason),
        database.platform_sessions() as session,
    ):
        return list(session.scalars(other.distinct().order_by(DataKey.tenant_id)))


def rotate_master(
    database: Database, keyring: Keyring, *, reason: str, watch: Callable[[int, int], None] | None = None
) -> int:
    """Wrap every data key with the current master key, a tenant at a time; returns how many tenants it did.

    It resumes: what another master key still wraps is what is left. No value is touched.
    watch: told how many tenants are done, of how many.
    Raises: KeyStoreError - a master key does not answer; the tenants before are done.
    """
    tenants = tenants_under_other_masters(database, keyring, reason=reason)
    for done, tenant_id in enumerate(tenants, start=1):
        with _as_staff(database, tenant_id, reason=reason) as session:
            after = {"keys": rewrap(session, keyring), "master_key_id": keyring.store.current_id}
            record(session, "data_key.rewrapped", after=after, reason=reason)
            session.commit()
        if watch is not None:
            watch(done, len(tenants))
    with (
        platform_scope(actor=name_of(require_actor()), reason=reason, reads_only=False),
        database.platform_sessions.begin() as platform,
    ):
        after = {"master_key_id": keyring.store.current_id, "tenants": len(tenants)}
        record_platform(platform, "master_key.rotated", after=after, reason=reason)
    return len(tenants)


def shred_keys(session: TenantSession, keyring: Keyring, *, reason: str) -> int:
    """Destroy the data keys of the session's tenant: what they sealed is gone for good. Returns how many there were.

    session: of platform staff. Processes that have a key unwrapped let go of it after `data_key_ttl_s`; backups hold
    the wrapped keys for as long as they are kept.
    Raises: StillServedError - the tenant is not archived or being deleted. KeysDestroyedError - they were before.
    """
    tenant = session.get_one(Tenant, session.tenant_id)
    if tenant.status not in SHREDDABLE:
        raise StillServedError(f"The tenant is {tenant.status}: archive or delete it first.")
    try:
        destroyed = destroy_keys(session, keyring)
    except KeyDestroyedError:
        raise KeysDestroyedError from None
    record(session, "data_keys.destroyed", after={"keys": destroyed}, reason=reason)
    return destroyed


@contextmanager
def _as_staff(database: Database, tenant_id: UUID, *, reason: str) -> Iterator[TenantSession]:
    """Act in one tenant as the current actor, in transactions that the block ends itself."""
    with (
        platform_scope(actor=name_of(require_actor()), reason=reason),
        tenant_scope(tenant_id),
        database.staff_sessions() as session,
    ):
        yield session
