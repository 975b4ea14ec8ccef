"""What is done for tenants from time to time: erase what is due, and look at domains again."""

from __future__ import annotations

import logging
from uuid import UUID

from app.audit.actors import Actor, ActorKind, acting_as
from app.errors import ProblemError
from app.queue.tasks import Job, JobInterrupted, platform_task
from app.tenants.bulk import carry_on
from app.tenants.domains import check_domain, due_domains
from app.tenants.erasure import due_erasures, erase_tenant
from app.tenants.registrar import Registrar, registrar

log = logging.getLogger(__name__)


def erase_due_tenants(office: Registrar) -> int:
    """Erase every tenant whose deletion is due, and return how many; one that fails stops no other."""
    erased = 0
    with acting_as(Actor(ActorKind.JOB, "tenants.erase_due", "erasure")):
        for tenant_id in due_erasures(office):
            try:
                erase_tenant(office, tenant_id, reason="its deletion is due")
                erased += 1
            except Exception:
                log.exception("tenant.erasure_failed", extra={"tenant": str(tenant_id)})
    return erased


def check_due_domains(office: Registrar) -> int:
    """Check every verified domain whose turn it is, and return how many answered; one that fails stops no other."""
    checked = 0
    with acting_as(Actor(ActorKind.JOB, "tenants.check_domains", "domain check")):
        for tenant_id, domain_id in due_domains(office):
            try:
                check_domain(office, tenant_id, domain_id)
                checked += 1
            except ProblemError as error:
                log.warning("domain.check_failed", extra={"tenant": str(tenant_id), "reason": error.kind})
            except Exception:
                log.exception("domain.check_failed", extra={"tenant": str(tenant_id)})
    return checked


@platform_task(name="tenants.erase_due", cron="*/10 * * * *")
def erase_due(_job: Job) -> None:
    """Erase the tenants whose deletion has fallen due."""
    erase_due_tenants(registrar())


@platform_task(name="domains.check_due", cron="23 * * * *")
def check_due(_job: Job) -> None:
    """Look again at the verified domains whose turn it is."""
    check_due_domains(registrar())


@platform_task(name="tenants.carry_on_run")
def carry_on_run(job: Job, *, run_id: str) -> None:
    """Change the tenants of a run that are still waiting; run again, it goes on where it stopped."""
    asked_by = job.asked_by.label if job.asked_by is not None else "nobody"
    with acting_as(Actor(ActorKind.JOB, f"tenants.carry_on_run:{run_id}", f"a run of {asked_by}")):
        for _outcome in carry_on(registrar(), UUID(run_id)):
            if job.is_stopping():
                raise JobInterrupted
