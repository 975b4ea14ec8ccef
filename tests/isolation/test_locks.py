"""T052: locks that belong to a tenant."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import sessionmaker

from tenancy.context import tenant_scope
from tenancy.errors import NoTenantError, WrongTenantError
from tenancy.locks import tenant_lock, try_tenant_lock
from tenancy.session import TenantSession
from tests.conftest import SomeTenant

Sessions = sessionmaker[TenantSession]


def is_free(sessions: Sessions, tenant: SomeTenant, name: str = "report") -> bool:
    """Tell whether somebody else could take the lock now."""
    with tenant_scope(tenant.id), sessions() as session:
        return try_tenant_lock(session, name)


def test_locks_of_one_name_in_two_tenants_do_not_meet(acme: SomeTenant, globex: SomeTenant, sessions: Sessions) -> None:
    """T052"""
    with tenant_scope(acme.id), sessions() as session:
        tenant_lock(session, "report")
        with tenant_scope(globex.id), sessions() as other:
            tenant_lock(other, "report")

            both_held = (is_free(sessions, acme), is_free(sessions, globex))

    assert both_held == (False, False)


def test_lock_of_one_name_in_one_tenant_is_held_once(acme: SomeTenant, sessions: Sessions) -> None:
    """T052"""
    with tenant_scope(acme.id), sessions() as session:
        tenant_lock(session, "report")

        assert not is_free(sessions, acme)
        assert is_free(sessions, acme, "another")


@pytest.mark.parametrize("end", [TenantSession.commit, TenantSession.rollback, TenantSession.close])
def test_lock_ends_with_its_transaction(
    acme: SomeTenant, sessions: Sessions, end: Callable[[TenantSession], None]
) -> None:
    """T052: on the pooled connection too, which lives on."""
    with tenant_scope(acme.id), sessions() as session:
        tenant_lock(session, "report")
        assert not is_free(sessions, acme)

        end(session)

        assert is_free(sessions, acme)


@pytest.mark.parametrize("statement", [None, "SELECT 1 / 0"])
def test_lock_ends_with_an_error(acme: SomeTenant, sessions: Sessions, statement: str | None) -> None:
    """T052: of the program, and of the database."""
    with contextlib.suppress(Exception), tenant_scope(acme.id), sessions.begin() as session:
        tenant_lock(session, "report")
        assert not is_free(sessions, acme)
        if statement is None:
            raise ZeroDivisionError
        session.execute(text(statement))

    assert is_free(sessions, acme)


def test_lock_ends_with_its_connection(acme: SomeTenant, sessions: Sessions, truth: Any) -> None:
    """T052"""
    with tenant_scope(acme.id), sessions() as session:
        tenant_lock(session, "report")
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        assert not is_free(sessions, acme)

        truth.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

        assert is_free(sessions, acme)
        session.invalidate()


def test_lock_without_a_tenant_is_refused(acme: SomeTenant, globex: SomeTenant, sessions: Sessions) -> None:
    """T052"""
    with tenant_scope(acme.id):
        session = sessions()
        with tenant_scope(globex.id), pytest.raises(WrongTenantError):
            tenant_lock(session, "report")

    with pytest.raises(NoTenantError):
        tenant_lock(session, "report")
    session.close()
