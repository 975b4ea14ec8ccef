"""T051: what is announced to every process that listens, and what a listener can make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import sessionmaker

from tenancy.context import tenant_scope
from tenancy.directory import CHANNEL
from tenancy.errors import StatementRefusedError
from tenancy.session import TenantSession
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Person, Tenant

Sessions = sessionmaker[TenantSession]
Connection = psycopg.Connection[Any]


@pytest.fixture
def listener(database: Database) -> Iterator[Connection]:
    """A process of the application that listens on a connection of its own, bound to nobody."""
    with database.connect(ROLES.app) as connection:
        connection.autocommit = True
        for channel in (CHANNEL, "people_changed"):
            connection.execute(f"LISTEN {channel}".encode())
        yield connection


def heard(listener: Connection, channel: str) -> list[str]:
    return [notice.payload for notice in listener.notifies(timeout=0.3) if notice.channel == channel]


def test_announcement_of_a_change_is_the_tenants_id_and_nothing_else(
    listener: Connection, truth: Connection, acme: SomeTenant
) -> None:
    """T051: neither what changed, nor a name: whoever connects may listen."""
    heard(listener, CHANNEL)

    truth.execute("UPDATE tenants SET name = 'Secret plans', status = 'suspended' WHERE tenant_id = %s", [acme.id])

    assert set(heard(listener, CHANNEL)) == {str(acme.id)}


def test_consumer_in_another_tenants_scope_cannot_load_what_was_announced(
    listener: Connection,
    acme: SomeTenant,
    globex: SomeTenant,
    sessions: Sessions,
    person_of: Callable[..., UUID],
) -> None:
    """T051: the payload says which row; the policies say whose."""
    ada = person_of(acme, "Ada")
    with tenant_scope(acme.id), sessions.begin() as session:
        session.execute(text("SELECT pg_notify('people_changed', :id)"), {"id": str(ada)})

    (payload,) = heard(listener, "people_changed")

    for tenant, name in ((acme, "Ada"), (globex, None)):
        with tenant_scope(tenant.id), sessions() as session:
            loaded = session.get(Person, UUID(payload))
            by_text = session.execute(text("SELECT name FROM people WHERE id = :id"), {"id": payload}).scalar()
            assert (loaded.name if loaded else None, by_text) == (name, name)


def test_consumer_in_another_tenants_scope_cannot_load_the_announced_tenant(
    listener: Connection, truth: Connection, acme: SomeTenant, globex: SomeTenant, sessions: Sessions
) -> None:
    """T051"""
    heard(listener, CHANNEL)
    truth.execute("UPDATE tenants SET name = 'Renamed' WHERE tenant_id = %s", [acme.id])
    payload = heard(listener, CHANNEL)[0]

    for tenant, name in ((acme, "Renamed"), (globex, None)):
        with tenant_scope(tenant.id), sessions() as session:
            assert session.scalar(select(Tenant.name).where(Tenant.id == UUID(payload))) == name


def test_tenant_cannot_listen_to_the_others(acme: SomeTenant, sessions: Sessions) -> None:
    """T051"""
    with tenant_scope(acme.id), sessions() as session, pytest.raises(StatementRefusedError):
        session.execute(text(f"LISTEN {CHANNEL}"))


def test_announcement_that_is_rolled_back_is_not_heard(
    listener: Connection, acme: SomeTenant, sessions: Sessions, person_of: Callable[..., UUID]
) -> None:
    ada = person_of(acme, "Ada")
    notify = text("SELECT pg_notify('people_changed', :id)")

    with tenant_scope(acme.id), sessions() as session:
        session.execute(notify, {"id": str(ada)})
        session.rollback()
    unheard = heard(listener, "people_changed")
    with tenant_scope(acme.id), sessions.begin() as session:
        session.execute(notify, {"id": str(ada)})

    assert (unheard, heard(listener, "people_changed")) == ([], [str(ada)])
