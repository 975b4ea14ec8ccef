"""What the routes of health answer."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from pydantic import Field

from app.observability.health import TenantHealth
from app.observability.probes import State
from app.schemas import Answer


class CheckAnswer(Answer):
    """One part, and how it is."""

    name: str
    state: State
    took_ms: float = Field(description="How long it took to answer; of `requests`, how long one took on average.")
    reason: str = Field(description="What is wrong; empty where nothing is.")
    fix: str = Field(description="What to do about it.")
    link: str | None = Field(description="Where to look on, for platform staff.")


class WindowAnswer(Answer):
    """The tenant's requests of the last minutes, as the process that answers served them; null where there were none.

    `p95_ms` is rounded up. `uptime` is the part of the minutes with requests in which most of them succeeded.
    """

    minutes: int
    requests: int
    errors: int
    error_rate: float | None
    mean_ms: float | None
    p95_ms: float | None
    uptime: float | None


class HealthAnswer(Answer):
    """How the parts are that a tenant needs; `state` is that of the worst."""

    state: State
    checks: list[CheckAnswer]
    window: WindowAnswer
    checked_at: datetime

    @classmethod
    def of(cls, found: TenantHealth) -> HealthAnswer:
        """Answer platform staff."""
        return cls.model_validate(asdict(found))

    @classmethod
    def for_tenant(cls, found: TenantHealth) -> HealthAnswer:
        """Answer the tenant itself: what to do is not for it to do, and the links lead where it may not go."""
        answer = cls.of(found)
        hidden = {"fix": "Ask the people who run this service.", "link": None}
        checks = [check.model_copy(update=hidden if check.reason else {}) for check in answer.checks]
        return answer.model_copy(update={"checks": checks})
