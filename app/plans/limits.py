"""Limits: how much of each quota a tenant may have. Counting is not done here."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.plans.standing import standing_of
from app.plans.terms import Quota

__all__ = ["Quota", "effective_limit"]


def effective_limit(session: Session, quota: Quota) -> int | None:
    """Return how much of a quota the session's tenant may have: its plan's limit, or what staff put in its place.

    Returns: None when there is no limit. Costs no statement while the tenant's standing is remembered.
    Raises: UnknownPlanError - the catalogue lacks the version of the plan that the tenant bought.
    """
    return standing_of(session).limit(quota)
