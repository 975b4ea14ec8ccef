"""A tenant's data keys, for platform staff: their versions, rotation and destruction."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.scopes import in_tenant
from app.keys.jobs import seal_anew
from app.keys.masters import keyring
from app.keys.operations import WrongNameError, begin_rotation, read_status, shred_keys
from app.keys.schemas import KeyStatusAnswer, ShredRequest
from app.openapi import answers
from app.queue import enqueue
from app.staff.permissions import StaffPermission
from app.staff.schemas import BecauseOf
from app.tenants.models import Tenant


@blueprint.get("/tenants/<uuid:tenant_id>/keys")
@staff_may(StaffPermission.TENANTS_READ)
@answers(200, KeyStatusAnswer, tag="admin: keys")
def list_data_keys(tenant_id: UUID) -> KeyStatusAnswer:
    """List the versions of the tenant's data key, and how many values are under each."""
    with in_tenant(tenant_id, reason="admin API: keys") as session:
        return KeyStatusAnswer.model_validate(read_status(session))


@blueprint.post("/tenants/<uuid:tenant_id>/keys/rotate")
@staff_may(StaffPermission.KEYS_ROTATE)
@answers(202, KeyStatusAnswer, tag="admin: keys")
def rotate_key(tenant_id: UUID, json: BecauseOf) -> tuple[KeyStatusAnswer, int]:
    """Give the tenant a new data key; its values are sealed anew in the background, and can be read all the while.

    While a rotation of the last day has values left, that one goes on, and there is no newer key.
    """
    with in_tenant(tenant_id, reason=json.reason) as session:
        begin_rotation(session, keyring(), reason=json.reason)
        enqueue(session, seal_anew, once="now", reason=json.reason)
        # Other processes seal with the key before for as long as they keep it.
        later = datetime.now(UTC) + timedelta(seconds=keyring().ttl_s)
        enqueue(session, seal_anew, once="late", run_at=later, reason=json.reason)
        return KeyStatusAnswer.model_validate(read_status(session)), 202


@blueprint.post("/tenants/<uuid:tenant_id>/keys/shred")
@staff_may(StaffPermission.TENANTS_DELETE)
@answers(200, KeyStatusAnswer, tag="admin: keys")
def shred(tenant_id: UUID, json: ShredRequest) -> KeyStatusAnswer:
    """Destroy the tenant's data keys. Nothing they sealed can ever be read again; it must be archived or deleted."""
    with in_tenant(tenant_id, reason=json.reason) as session:
        if session.get_one(Tenant, tenant_id).slug != json.slug:
            raise WrongNameError("The slug is not that of this tenant; nothing was destroyed.")
        shred_keys(session, keyring(), reason=json.reason)
        return KeyStatusAnswer.model_validate(read_status(session))
