"""T090: gevent. In this process for the scopes; in one of its own, where all is patched, against the database."""

from __future__ import annotations

import contextvars
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import gevent
import pytest
from uuid_utils.compat import uuid7

from tenancy.context import current_tenant, require_tenant, tenant_scope
from tenancy.errors import NoTenantError
from tests.conftest import ROLES, Database, SomeTenant

ACME, GLOBEX = uuid7(), uuid7()
PROGRAM = """
from gevent import monkey; monkey.patch_all()
import contextvars, sys
from uuid import UUID
import gevent
from gevent.pool import Pool
from sqlalchemy import text
from tenancy import create_tenant_engine, tenant_scope, tenant_sessionmaker
from tenancy.errors import NoTenantError

engine = create_tenant_engine(sys.argv[1], pool_size=2, max_overflow=0)
sessions = tenant_sessionmaker(engine)
rows, refused, busy, peak = [], [], 0, 0

def read(tenant):
    global busy, peak
    with sessions() as session:
        busy, peak = busy + 1, max(peak, busy + 1)
        session.execute(text("SELECT pg_sleep(0.002)"))
        busy -= 1
        rows.extend((tenant, owner) for owner in session.scalars(text("SELECT tenant_id FROM people")))

def with_context(tenant):
    with tenant_scope(tenant):
        gevent.spawn(contextvars.copy_context().run, read, tenant).get()

def without(tenant):
    with tenant_scope(tenant):
        try:
            gevent.spawn(read, tenant).get()
        except NoTenantError:
            refused.append(tenant)

tenants = [UUID(given) for given in sys.argv[2:]]
workers = Pool(8)
for n in range(200):
    workers.spawn(with_context if n % 4 else without, tenants[n % 2 if n % 8 < 4 else 1 - n % 2])
workers.join(raise_error=True)
engine.dispose()
foreign = sum(tenant != owner for tenant, owner in rows)
print(len(rows), foreign, len({tenant for tenant, _ in rows}), len(refused), peak)
"""


def test_greenlet_started_in_a_scope_has_none() -> None:
    """T090"""
    with tenant_scope(ACME):
        found = gevent.spawn(current_tenant).get()
        with pytest.raises(NoTenantError):
            gevent.spawn(require_tenant).get()

    assert found is None


def test_greenlet_given_a_copied_context_has_its_tenant_until_the_block_ends() -> None:
    """T090"""
    with tenant_scope(ACME):
        copied = contextvars.copy_context()
        during = gevent.spawn(copied.run, current_tenant).get()
        later = gevent.spawn_later(0.01, copied.run, current_tenant)

    assert (during, later.get()) == (ACME, None)


def test_greenlets_that_take_turns_keep_their_own_tenants() -> None:
    """T090"""

    def work(tenant: UUID) -> set[UUID | None]:
        seen = set()
        with tenant_scope(tenant):
            for _ in range(10):
                gevent.sleep(0)
                seen.add(current_tenant())
        return seen | {current_tenant()}

    jobs = {tenant: gevent.spawn(work, tenant) for tenant in (ACME, GLOBEX)}

    assert {tenant: job.get() for tenant, job in jobs.items()} == {ACME: {ACME, None}, GLOBEX: {GLOBEX, None}}


def test_patched_process_shows_each_greenlet_its_tenants_rows_only(
    database: Database, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    """T090: 200 greenlets, two tenants, two connections; a quarter of them without their context."""
    for tenant in (acme, globex):
        for _ in range(2):
            person_of(tenant)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, database.url(ROLES.app), str(acme.id), str(globex.id)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )

    assert done.returncode == 0, done.stderr
    read, foreign, tenants, refused, at_once = map(int, done.stdout.split())
    assert (read, foreign, tenants, refused) == (300, 0, 2, 50)
    assert at_once >= 2  # greenlets waited for the database side by side
