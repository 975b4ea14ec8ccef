"""Locks that belong to a tenant: the same name in two tenants is two locks."""

from __future__ import annotations

from hashlib import blake2b

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tenancy.context import require_tenant


def tenant_lock(session: Session, name: str) -> None:
    """Wait for this tenant's lock of that name, and hold it until the transaction ends, in whatever way.

    The role's `lock_timeout` bounds the wait. Taken inside a savepoint, it ends with the savepoint's rollback.
    Raises: NoTenantError - no tenant is in scope; OperationalError - the wait took too long.
    """
    session.execute(select(func.pg_advisory_xact_lock(_key(name))))


def try_tenant_lock(session: Session, name: str) -> bool:
    """Take this tenant's lock of that name as `tenant_lock` does, or return False at once when it is held."""
    return bool(session.execute(select(func.pg_try_advisory_xact_lock(_key(name)))).scalar_one())


def _key(name: str) -> int:
    """Return 64 bits of a hash of tenant and name. Two names that meet there wait for each other, and no more."""
    digest = blake2b(require_tenant().bytes + name.encode(), digest_size=8, person=b"tenancy.lock")
    return int.from_bytes(digest.digest(), signed=True)
