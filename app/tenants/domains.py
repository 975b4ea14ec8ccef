"""Custom domains: claimed by a tenant, verified by a TXT record that only the domain's owner can set, checked again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.audit.entries import record
from app.errors import InvalidInputError, ProblemError, RowNotFoundError, TakenError
from app.tenants.dns import DnsSilentError
from app.tenants.models import Domain, DomainState, Tenant, tenant_by_domain
from app.tenants.registrar import Registrar
from app.tenants.states import Status
from tenancy.errors import MalformedReferenceError
from tenancy.resolvers import normalize_domain

log = logging.getLogger(__name__)

_CHALLENGE_LABEL = "_tenancy-challenge"
_VALUE_PREFIX = "tenancy-verification="
# Names below which nobody owns anything that the public DNS could tell of.
_SPECIAL = frozenset({"localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "private"})
_SPECIAL_ZONES = frozenset({"arpa", "onion", "alt", "invalid"})
_MOST_CLAIMS = 20
_MOST_FOUND, _LONGEST_FOUND = 5, 255


class DnsUnansweredError(ProblemError):
    """The DNS could not be asked; what is known of the domain stays as it was."""

    code = 503
    kind = "dns_unanswered"


@dataclass(frozen=True)
class Challenge:
    """The TXT record that proves a claim."""

    name: str
    value: str


def challenge_of(domain: Domain) -> Challenge:
    """Return the record the tenant has to set."""
    return Challenge(f"{_CHALLENGE_LABEL}.{domain.domain}", f"{_VALUE_PREFIX}{domain.challenge.hex}")


def normalize_claim(text: str, *, base_domain: str) -> str:
    """Return the domain in the one spelling it is stored and looked up by.

    Raises: InvalidInputError - it is no domain, an address, a public suffix such as `co.uk`, a name of private
    networks, or the service's own.
    """
    try:
        domain = normalize_domain(text)
    except MalformedReferenceError as error:
        raise InvalidInputError.of("domain", f"{error.message}: {error.hint}") from None
    top = domain.rpartition(".")[2]
    if top.isdigit() or top.startswith("0x"):
        raise InvalidInputError.of("domain", "is an address: send a domain name")
    if top in _SPECIAL or top in _SPECIAL_ZONES:
        raise InvalidInputError.of("domain", "is a name of private networks: send one of the public DNS")
    base = base_domain.partition(":")[0].lower().rstrip(".")
    if domain == base or domain.endswith(f".{base}") or base.endswith(f".{domain}"):
        raise InvalidInputError.of("domain", "belongs to this service: each tenant has its own name there already")
    if len(f"{_CHALLENGE_LABEL}.{domain}") > 253:
        raise InvalidInputError.of("domain", "is too long for a record to be set below it")
    if _is_public_suffix(domain):
        raise InvalidInputError.of("domain", "is a public suffix, which nobody owns: send a name below it")
    return domain


def add_claim(session: Session, domain: str) -> Domain:
    """Claim a normalised domain for the session's tenant, in the caller's transaction; it serves nobody yet.

    The same claim made twice is one. Several tenants may claim a domain that none has verified.
    Raises: TakenError - another tenant has verified it; which one is not said.
    InvalidInputError - the tenant has as many claims as it may.
    """
    claims = session.scalars(select(Domain)).all()
    for claim in claims:
        if claim.domain == domain:
            return claim
    if len(claims) >= _MOST_CLAIMS:
        raise InvalidInputError.of("domain", f"no more than {_MOST_CLAIMS} domains can be claimed: remove one first")
    if tenant_by_domain.fetch(session.connection(), domain):
        raise _taken()
    claim = Domain(domain=domain)
    session.add(claim)
    session.flush()
    record(session, "domain.claimed", target=("domain", claim.id), after={"domain": domain})
    return claim


def claim_domain(registrar: Registrar, tenant_id: UUID, text: str) -> Domain:
    """Claim a domain for a tenant.

    Raises: InvalidInputError, TakenError
    """
    domain = normalize_claim(text, base_domain=registrar.base_domain)
    with registrar.in_tenant(tenant_id, reason=f"claim of {domain}") as session:
        claim = add_claim(session, domain)
        session.refresh(claim)
    return claim


def release_domain(
    registrar: Registrar, tenant_id: UUID, domain_id: UUID, *, reason: str = "a domain is given up"
) -> None:
    """Give a domain up: from now on it leads nowhere, and whoever proves that it is theirs may have it.

    Raises: RowNotFoundError
    """
    with registrar.in_tenant(tenant_id, reason=reason) as session:
        claim = _locked(session, domain_id)
        session.delete(claim)
        record(session, "domain.released", target=("domain", domain_id), before={"domain": claim.domain}, reason=reason)


def check_domain(
    registrar: Registrar, tenant_id: UUID, domain_id: UUID, *, reason: str = "a domain is checked"
) -> Domain:
    """Ask the DNS for the claim's TXT record, and note what it says.

    The DNS is asked outside of any transaction. A claim that was verified, and then failed too often, is lost: it
    is served no longer, and starts again from the beginning.
    Raises: RowNotFoundError; DnsUnansweredError - nothing is known, so nothing changes; TakenError - another tenant
    has verified the domain.
    """
    with registrar.in_tenant(tenant_id, reason=reason) as session:
        asked = challenge_of(_locked(session, domain_id))
    try:
        texts = registrar.texts.of(asked.name)
    except DnsSilentError:
        raise DnsUnansweredError(
            f"The DNS gave no answer about {asked.name}. Nothing has changed; try again later."
        ) from None
    try:
        with registrar.in_tenant(tenant_id, reason=reason) as session:
            claim = _locked(session, domain_id)
            _note(session, claim, texts, failures=registrar.domain_failures)
            session.flush()
            session.refresh(claim)
    except IntegrityError as error:
        if getattr(getattr(error.orig, "diag", None), "constraint_name", None) != "domains_verified_domain_key":
            raise
        raise _taken() from None
    return claim


def due_domains(registrar: Registrar) -> Sequence[tuple[UUID, UUID]]:
    """Return tenant and id of each verified domain that is to be checked again, the longest waiting first."""
    with registrar.across_tenants(reason="domains due for a check") as session:
        before: datetime = session.execute(select(func.now() - registrar.domain_recheck)).scalar_one()
        rows = session.execute(
            select(Domain.tenant_id, Domain.id)
            .join(Tenant, Tenant.id == Domain.tenant_id)
            .where(Domain.verified_at.is_not(None), Tenant.status != Status.DELETED)
            .where(func.coalesce(Domain.checked_at, Domain.verified_at) <= before)
            .order_by(func.coalesce(Domain.checked_at, Domain.verified_at))
        )
        return [(row.tenant_id, row.id) for row in rows]


def _note(session: Session, claim: Domain, texts: Sequence[str], *, failures: int) -> None:
    was = claim.state
    proves = challenge_of(claim).value in texts
    claim.found = [text.replace("\0", "")[:_LONGEST_FOUND] for text in texts[:_MOST_FOUND]]
    now = session.execute(select(func.now())).scalar_one()
    claim.checked_at = now
    if proves:
        claim.failures, claim.lost_at = 0, None
        claim.verified_at = claim.verified_at or now
    elif claim.verified_at is not None:
        claim.failures += 1
        if claim.failures >= failures:
            claim.verified_at, claim.lost_at = None, now
    if claim.state is not was:
        record(
            session,
            f"domain.{_VERBS[claim.state]}",
            target=("domain", claim.id),
            before={"domain": claim.domain, "state": was.value},
            after={"domain": claim.domain, "state": claim.state.value},
        )


_VERBS = {
    DomainState.WAITING: "not_found",
    DomainState.WRONG_VALUE: "refused",
    DomainState.VERIFIED: "verified",
    DomainState.FAILING: "failed",
    DomainState.LOST: "lost",
}


def _locked(session: Session, domain_id: UUID) -> Domain:
    claim = session.get(Domain, domain_id, with_for_update=True)
    if claim is None:
        raise RowNotFoundError
    return claim


def _taken() -> TakenError:
    return TakenError("This domain cannot be claimed: it is verified elsewhere. Its owner has to release it there.")


def _is_public_suffix(domain: str) -> bool:
    found: object = _suffixes().publicsuffix(domain)
    return found == domain


@cache
def _suffixes() -> Any:
    """The list that comes with its package; read at the first claim, for it takes a moment."""
    from publicsuffixlist import PublicSuffixList

    # A top level that nobody lists, such as `.test`, is no suffix to know of.
    return PublicSuffixList(accept_unknown=False)
