"""What is done for tenants from time to time: erase what is due, and look at domains again."""

from __future__ import annotations

import logging

from app.audit.actors import Actor, ActorKind, acting_as
from app.errors import ProblemError
from app.tenants.domains import check_domain, due_domains
from app.tenants.erasure import due_erasures, erase_tenant
from app.tenants.registrar import Registrar

log = logging.getLogger(__name__)


def erase_due_tenants(registrar: Registrar) -> int:
    """Erase every tenant whose deletion is due, and return how many; one that fails stops no other."""
    erased = 0
    with acting_as(Actor(ActorKind.JOB, "tenants.erase_due", "erasure")):
        for tenant_id in due_erasures(registrar):
            try:
                erase_tenant(registrar, tenant_id, reason="its deletion is due")
                erased += 1
            except Exception:
                log.exception("tenant.erasure_failed", extra={"tenant": str(tenant_id)})
    return erased


def check_due_domains(registrar: Registrar) -> int:
    """Check every verified domain whose turn it is, and return how many answered; one that fails stops no other."""
    checked = 0
    with acting_as(Actor(ActorKind.JOB, "tenants.check_domains", "domain check")):
        for tenant_id, domain_id in due_domains(registrar):
            try:
                check_domain(registrar, tenant_id, domain_id)
                checked += 1
            except ProblemError as error:
                log.warning("domain.check_failed", extra={"tenant": str(tenant_id), "reason": error.kind})
            except Exception:
                log.exception("domain.check_failed", extra={"tenant": str(tenant_id)})
    return checked
