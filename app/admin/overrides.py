"""What an override of a plan is told through the admin API: of a feature, a limit or a key of the configuration."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, Field

from app.schemas import Body, Query
from app.staff.schemas import Reason


class NewOverride(Body):
    """What a tenant has instead of what its plan says, and why."""

    reason: Reason
    expires_at: AwareDatetime | None = Field(None, description="When the plan counts again; null for no end.")


class FeatureOverride(NewOverride):
    """Whether the tenant has the feature."""

    is_included: bool = Field(strict=True)


class LimitOverride(NewOverride):
    """How much the tenant may have."""

    limit: int | None = Field(strict=True, ge=0, le=(1 << 63) - 1, description="Null is unlimited.")


class ValueOverride(NewOverride):
    """What the key is."""

    value: Any


class Withdrawal(Query):
    """Why an override is taken back; in the query, because a DELETE has no body."""

    reason: Reason
