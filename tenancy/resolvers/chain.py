"""The chain: all evidence in a request is collected, looked up, and must name one open tenant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple
from uuid import UUID

from tenancy.directory import Directory, TenantRecord
from tenancy.errors import (
    ClosedTenantError,
    ConflictingReferencesError,
    InvalidTokenError,
    MalformedReferenceError,
    NoTenantError,
    SuspendedTenantError,
    TenancyError,
    UnknownTenantError,
)
from tenancy.resolvers.evidence import CustomDomain, Evidence, Request, Resolver, Subdomain

Memory = Literal["remembered", "looked up"]


class Step(NamedTuple):
    """What became of one piece of evidence; `tenant_id` is None when nobody is known by the reference."""

    evidence: Evidence
    memory: Memory
    tenant_id: UUID | None


class Trace(NamedTuple):
    """How a request was resolved. With an `error`, `tenant` is set only where the error is about that tenant."""

    evidence: tuple[Evidence, ...]
    steps: tuple[Step, ...]
    tenant: TenantRecord | None
    error: TenancyError | None

    @property
    def claims(self) -> Mapping[str, Any] | None:
        """The verified claims of the request's token, if it carried one."""
        return next((found.claims for found in self.evidence if found.claims is not None), None)


class Resolution(NamedTuple):
    """The one tenant a request is for, and how that was found."""

    tenant: TenantRecord
    trace: Trace


class Chain:
    """Asks every resolver, looks every reference up, and accepts one open tenant that all of them name.

    trusted_proxies: proxies in front that append to X-Forwarded-Host; 0 never reads that header.
    """

    def __init__(self, resolvers: Iterable[Resolver], directory: Directory, *, trusted_proxies: int = 0) -> None:
        given = tuple(resolvers)
        bases = tuple(resolver.base_domain for resolver in given if isinstance(resolver, Subdomain))
        self.resolvers = tuple(_settle(resolver, bases, trusted_proxies) for resolver in given)
        self.directory = directory
        self.vary = tuple(dict.fromkeys(name for resolver in self.resolvers for name in getattr(resolver, "vary", ())))

    def resolve(self, request: Request) -> Resolution:
        """Return the tenant, or raise the error its trace holds."""
        trace = self.explain(request)
        if trace.error is not None:
            raise trace.error
        if trace.tenant is None:
            raise AssertionError("a trace has a tenant or an error")
        return Resolution(trace.tenant, trace)

    def explain(self, request: Request) -> Trace:
        """Resolve, and return how it went instead of raising."""
        evidence: list[Evidence] = []
        error: TenancyError | None = None
        for resolver in self.resolvers:
            try:
                found = resolver(request)
            except (MalformedReferenceError, InvalidTokenError) as refusal:
                error = error or refusal
                continue
            if isinstance(found, Evidence):
                evidence.append(found)
            elif found:
                evidence.extend(found)
        # Malformed evidence ends here: it must not cost a lookup.
        if error is None and not evidence:
            error = NoTenantError("the request names no tenant", hint="use the tenant's own address, or send its token")
        if error is not None:
            return Trace(tuple(evidence), (), None, error)
        return self._compare(tuple(evidence))

    def _compare(self, evidence: tuple[Evidence, ...]) -> Trace:
        steps: list[Step] = []
        first: TenantRecord | None = None
        for index, found in enumerate(evidence):
            answer = self.directory.peek(found.reference)
            try:
                tenant = answer.tenant if answer is not None else self.directory.find(found.reference)
            except TenancyError as error:
                return Trace(evidence, tuple(steps), None, error)
            if index == 0:
                first = tenant
            steps.append(Step(found, "looked up" if answer is None else "remembered", tenant.id if tenant else None))
        if any(step.tenant_id != steps[0].tenant_id for step in steps):
            # An unknown name beside a known one is a conflict as well: else the answer tells which names exist.
            sources = dict.fromkeys(found.source for found in evidence)
            conflict = ConflictingReferencesError(
                f"the request names different tenants by {', '.join(sources)}",
                hint="leave out what names the other tenant, or sign in there",
            )
            return Trace(evidence, tuple(steps), None, conflict)
        return Trace(evidence, tuple(steps), first, _refusal(first))


def resolve(
    request: Request, resolvers: Iterable[Resolver], directory: Directory, *, trusted_proxies: int = 0
) -> Resolution:
    """Resolve one request; who serves many keeps a `Chain`."""
    return Chain(resolvers, directory, trusted_proxies=trusted_proxies).resolve(request)


def _settle(resolver: Resolver, base_domains: tuple[str, ...], trusted_proxies: int) -> Resolver:
    """Tell a resolver of hosts what only the chain knows."""
    if isinstance(resolver, CustomDomain):
        resolver = replace(resolver, base_domains=base_domains)
    if isinstance(resolver, Subdomain | CustomDomain):
        vary = (*resolver.vary, "X-Forwarded-Host") if trusted_proxies else resolver.vary
        return replace(resolver, trusted_proxies=trusted_proxies, vary=vary)
    return resolver


def _refusal(tenant: TenantRecord | None) -> TenancyError | None:
    if tenant is None:
        return UnknownTenantError("no tenant answers to the reference", hint="check the address")
    if tenant.status == "active":
        return None
    if tenant.status == "suspended":
        return SuspendedTenantError(f"tenant {tenant.id!r} is suspended", hint="the platform's staff can lift it")
    return ClosedTenantError(f"tenant {tenant.id!r} is {tenant.status}", hint="only an active tenant is served")
