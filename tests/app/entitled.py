"""For tests of plans and configuration: staff's changes made by their operations, and catalogues of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from flask import Flask

from app.admin.scopes import in_tenant
from app.audit.actors import Actor, ActorKind, acting_as
from app.auth.desk import EXTENSION as DESK
from app.plans.catalogue import PLANS_FILE, Catalogue, read_catalogue
from app.plans.overrides import override
from app.plans.standing import EXTENSION, Standings
from app.plans.terms import TermKind
from tenancy.session import TenantSession
from tests.app.conftest import Visitor

ANA = Actor(ActorKind.STAFF, "ana", "ana@staff.test")
REASON = "agreed on the phone"

SECOND_BASIC = """
[[plans.basic]]
version = 2
since = 2026-12-01
features = ["priority_support"]
limits = { users = 50, storage_bytes = 10_737_418_240, cards = 1_000, api_calls_hour = 1_000, api_calls_day = 1_000 }
configuration = { "session.timeout" = 1_800 }
"""


@contextmanager
def staff_in(app: Flask, visitor: Visitor) -> Iterator[TenantSession]:
    """Act as staff in the visitor's tenant; committed at the end."""
    with app.app_context(), acting_as(ANA), in_tenant(visitor.tenant_id, reason=REASON) as session:
        yield session


def give(app: Flask, visitor: Visitor, kind: TermKind, name: str, value: Any, until: datetime | None = None) -> None:
    """Override something for the visitor's tenant."""
    with staff_in(app, visitor) as session:
        override(session, kind, name, value, reason=REASON, expires_at=until)


def catalogue_with_second_basic(folder: Path) -> Catalogue:
    """The shipped catalogue, and a second version of its least plan; premium had to get a feature of it, too."""
    path = folder / "catalogue.toml"
    text = PLANS_FILE.read_text().replace('"custom_branding"]', '"custom_branding", "priority_support"]', 1)
    path.write_text(text + SECOND_BASIC)
    return read_catalogue(path)


def sell(app: Flask, catalogue: Catalogue) -> None:
    """Give an application another catalogue than the shipped one."""
    app.extensions[EXTENSION] = Standings(catalogue, app.extensions[DESK].directory)
