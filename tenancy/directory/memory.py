"""What a directory remembers, and for how long."""

from __future__ import annotations

import threading
from time import monotonic

from tenancy.directory.answers import Answer, Reference, TenantRecord


class Memory:
    """Answers with an end. Reading takes no lock; every change does.

    While the listener holds a lease, the database is known to be telling us of changes and an answer
    lives its full time; without one it lives `floor_ttl_s`. So does what a domain names in any case: nobody tells
    of a domain that moves from one tenant to another. `generation` counts invalidations: what was
    read before one must not be remembered after it.
    """

    def __init__(self, *, ttl_s: float, negative_ttl_s: float, floor_ttl_s: float, max_entries: int) -> None:
        self.floor_ttl_s = floor_ttl_s
        self._ttl_s = ttl_s
        self._negative_ttl_s = negative_ttl_s
        self._max_entries = max_entries
        self.reset()

    def reset(self) -> None:
        """Forget everything, locks included: the state a forked child starts from."""
        self._lock = threading.Lock()
        # Apart, so that a scan of made-up names cannot push out tenants that exist.
        self._known: dict[Reference, Answer] = {}
        self._unknown: dict[Reference, Answer] = {}
        self.generation = 0
        self.lease_until = 0.0

    def peek(self, reference: Reference) -> Answer | None:
        answer = self._known.get(reference) or self._unknown.get(reference)
        if answer is None:
            return None
        now = monotonic()
        if now >= answer.expires_at or (now >= answer.loaded_at + self.floor_ttl_s and now >= self.lease_until):
            return None
        return answer

    def keep(self, reference: Reference, tenant: TenantRecord | None, *, asked_at: float, generation: int) -> None:
        with self._lock:
            if generation != self.generation:
                return
            if tenant is None:
                self._put(self._unknown, reference, Answer(None, asked_at, asked_at + self._negative_ttl_s))
                return
            answer = Answer(tenant, asked_at, asked_at + self._ttl_s)
            if reference.kind == "domain":
                self._unknown.pop(reference, None)
                self._put(
                    self._known, reference, answer._replace(expires_at=asked_at + min(self._ttl_s, self.floor_ttl_s))
                )
            for name in (Reference("id", str(tenant.id)), Reference("slug", tenant.slug)):
                self._unknown.pop(name, None)
                self._put(self._known, name, answer)

    def _put(self, answers: dict[Reference, Answer], reference: Reference, answer: Answer) -> None:
        answers.pop(reference, None)
        while len(answers) >= self._max_entries:
            del answers[next(iter(answers))]
        answers[reference] = answer

    def forget(self, tenant_id: str) -> None:
        """Drop the tenant's answers, and every "unknown": one of them may name it now."""
        with self._lock:
            self.generation += 1
            self._unknown = {}
            self._known = {name: a for name, a in self._known.items() if a.tenant and str(a.tenant.id) != tenant_id}

    def forget_all(self) -> None:
        with self._lock:
            self.generation += 1
            self._known = {}
            self._unknown = {}
