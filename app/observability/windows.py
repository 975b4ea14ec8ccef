"""Windows: what each tenant's requests came to in the last minutes, as this process served them; kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

MINUTES = 15
MOST_TENANTS = 2_000
# Upper bounds, in milliseconds; slower than the last is shown as that.
_BOUNDS_MS = (5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0)


@dataclass(frozen=True)
class Window:
    """The last minutes of one tenant. uptime: the part of the minutes with requests in which most succeeded.

    error_rate, uptime, mean_ms and p95_ms are None where there were no requests. p95_ms is rounded up to a bound.
    """

    minutes: int
    requests: int
    errors: int
    error_rate: float | None
    mean_ms: float | None
    p95_ms: float | None
    uptime: float | None


@dataclass
class _Minute:
    number: int
    requests: int = 0
    errors: int = 0
    total_ms: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS_MS))


class Windows:
    """Counts requests by tenant and minute. Bounded: of more tenants, the one not heard of for longest is forgotten."""

    def __init__(self, *, most_tenants: int = MOST_TENANTS) -> None:
        self._most_tenants = most_tenants
        self._lock = threading.Lock()
        self._minutes: OrderedDict[UUID, deque[_Minute]] = OrderedDict()

    def note(self, tenant_id: UUID, *, is_error: bool, took_ms: float) -> None:
        """Count one request."""
        number = int(monotonic() // 60)
        bucket = next((place for place, bound in enumerate(_BOUNDS_MS) if took_ms <= bound), len(_BOUNDS_MS) - 1)
        with self._lock:
            minutes = self._minutes.get(tenant_id)
            if minutes is None:
                minutes = self._minutes[tenant_id] = deque(maxlen=MINUTES)
                if len(self._minutes) > self._most_tenants:
                    self._minutes.popitem(last=False)
            self._minutes.move_to_end(tenant_id)
            if not minutes or minutes[-1].number != number:
                minutes.append(_Minute(number))
            now = minutes[-1]
            now.requests += 1
            now.errors += is_error
            now.total_ms += took_ms
            now.counts[bucket] += 1

    def of(self, tenant_id: UUID) -> Window:
        """Return what the tenant's requests came to."""
        oldest = int(monotonic() // 60) - MINUTES + 1
        with self._lock:
            minutes = [one for one in self._minutes.get(tenant_id, ()) if one.number >= oldest]
            requests, errors = sum(one.requests for one in minutes), sum(one.errors for one in minutes)
            if not requests:
                return Window(MINUTES, 0, 0, None, None, None, None)
            counts = [sum(column) for column in zip(*(one.counts for one in minutes), strict=True)]
            total_ms = sum(one.total_ms for one in minutes)
            up = sum(one.errors * 2 < one.requests for one in minutes)
        return Window(
            minutes=MINUTES,
            requests=requests,
            errors=errors,
            error_rate=errors / requests,
            mean_ms=round(total_ms / requests, 1),
            p95_ms=_p95(counts, requests),
            uptime=up / len(minutes),
        )


def _p95(counts: list[int], requests: int) -> float:
    seen = 0
    for bound, count in zip(_BOUNDS_MS, counts, strict=True):
        seen += count
        if seen * 20 >= requests * 19:
            return bound
    return _BOUNDS_MS[-1]
