"""What an erasure removes besides rows: keys first, so that whatever fails later is unreadable already."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

from flask import Flask

from app.admin.scopes import name_of
from app.audit.actors import require_actor
from app.caches import EXTENSION as CACHE
from app.db import Database
from app.files.storage import EXTENSION as FILES
from app.keys.masters import keyring
from app.keys.operations import KeysDestroyedError, shred_keys
from app.queue import remove_jobs
from app.tenants.registrar import Eraser
from tenancy.context import platform_scope, tenant_scope

_REASON = "erasure of the tenant"


def erasers_of(app: Flask, database: Database) -> tuple[Eraser, ...]:
    """Return the steps in their order; each may be repeated after a crash."""

    def destroy_keys(tenant_id: UUID) -> None:
        with (
            platform_scope(actor=name_of(require_actor()), reason=_REASON),
            tenant_scope(tenant_id),
            suppress(KeysDestroyedError),  # by an earlier run that stopped later
            database.staff_sessions() as session,
            session.begin(),
        ):
            shred_keys(session, keyring(app), reason=_REASON)

    def remove_files(tenant_id: UUID) -> None:
        with tenant_scope(tenant_id):
            app.extensions[FILES].storage.erase()

    def forget_cached(tenant_id: UUID) -> None:
        with tenant_scope(tenant_id):
            app.extensions[CACHE].clear()

    def remove_from_queue(tenant_id: UUID) -> None:
        with (
            platform_scope(actor=name_of(require_actor()), reason=_REASON),
            tenant_scope(tenant_id),
            database.staff_sessions() as session,
            session.begin(),
        ):
            remove_jobs(session, tenant_id)

    return destroy_keys, remove_files, forget_cached, remove_from_queue
