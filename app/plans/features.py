"""Features: what a route, a job or a template may do only where the tenant's plan includes it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask import Flask
from sqlalchemy.orm import Session

from app import db
from app.errors import ProblemError
from app.plans.standing import standing_of, standings
from app.plans.terms import Feature

__all__ = ["Feature", "FeatureNotIncludedError", "has_feature", "needs_feature", "require_feature"]

View = TypeVar("View", bound=Callable[..., Any])


class FeatureNotIncludedError(ProblemError):
    """The tenant's plan does not include a feature; `plans` lists those that do."""

    code = 403
    kind = "feature_not_included"


def has_feature(feature: Feature | str, session: Session | None = None) -> bool:
    """Tell whether a tenant has a feature. session: of the tenant; None for that of the current request.

    Raises: ValueError - no feature has this name.
    """
    return standing_of(session if session is not None else db.session()).has_feature(Feature(feature))


def require_feature(feature: Feature | str, session: Session | None = None) -> None:
    """Go on only where the tenant has the feature.

    Raises: FeatureNotIncludedError - names the plans that have it. ValueError - no feature has this name.
    """
    wanted = Feature(feature)
    if has_feature(wanted, session):
        return
    plans = standings().catalogue.plans_with(wanted)
    next_step = f"it comes with {' or '.join(plans)}" if plans else "no plan has it at present"
    raise FeatureNotIncludedError(
        f"Your plan does not include {wanted}: {next_step}.", members={"feature": wanted, "plans": plans}
    )


def needs_feature(feature: Feature | str) -> Callable[[View], View]:
    """Mark a route as part of a feature; put it below the mark that says who may call.

    Raises: ValueError - no feature has this name, so that a slip of the pen shows when the module is imported.
    """
    wanted = Feature(feature)

    def apply(view: View) -> View:
        @functools.wraps(view)
        def checked(*arguments: Any, **options: Any) -> Any:
            require_feature(wanted)
            return view(*arguments, **options)

        return cast("View", checked)

    return apply


def init_app(app: Flask) -> None:
    """Let templates ask `has_feature("custom_branding")`."""
    app.jinja_env.globals["has_feature"] = has_feature
