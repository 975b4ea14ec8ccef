"""What tests of tenants' lives share: the registrar of an application, somebody who acts, and a DNS of one's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from uuid import UUID

from flask import Flask
from sqlalchemy import event
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.audit.actors import Actor, ActorKind, acting_as
from app.tenants.dns import DnsSilentError
from app.tenants.provisioning import create_tenant, provision
from app.tenants.registrar import EXTENSION, Registrar
from tenancy.directory import TenantRecord

WHY = "a test wants it"


def registrar_of(app: Flask) -> Registrar:
    found: Registrar = app.extensions[EXTENSION]
    return found


def as_staff() -> AbstractContextManager[None]:
    return acting_as(Actor(ActorKind.STAFF, str(UUID(int=7)), "ana@platform.test"))


def new_slug(stem: str = "org") -> str:
    return f"{stem}-{uuid7().hex[-12:]}"


def ready_tenant(registrar: Registrar, **given: str) -> TenantRecord:
    """A tenant that has gone through every step, with nobody in it."""
    with as_staff():
        tenant = create_tenant(registrar, name="Initech", plan="basic", slug=new_slug(), reason=WHY, **given)
        provision(registrar, tenant.id, reason=WHY)
    return tenant


def within_a_second(claim: Callable[[], bool]) -> bool:
    """Tell whether the claim comes true in the second that every process has to hear of a change."""
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        if claim():
            return True
        time.sleep(0.02)
    return claim()


class KilledError(BaseException):
    """What a test ends the program with: nothing of it is caught, as of a kill."""


@contextmanager
def killed_after(commits: int) -> Iterator[None]:
    """End the program right after so many commits of this thread."""
    seen: list[object] = []
    own = threading.get_ident()

    def count(session: Session) -> None:
        if threading.get_ident() != own:
            return
        seen.append(session)
        if len(seen) == commits:
            raise KilledError

    event.listen(Session, "after_commit", count)
    try:
        yield
    finally:
        event.remove(Session, "after_commit", count)


class OwnTexts:
    """A DNS whose records the test sets. `is_silent` makes it answer nothing at all."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.is_silent = False
        self.asked: list[str] = []

    def of(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        if self.is_silent:
            raise DnsSilentError("Timeout")
        return self.records.get(name, [])
