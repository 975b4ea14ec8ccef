"""A forked worker, as gunicorn makes after preloading the application."""

from __future__ import annotations

import os

import pytest
from sqlalchemy import Engine, text

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tests.conftest import ROLES, Database, SomeTenant


def backend_pid(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_child_never_uses_its_parents_connection(database: Database, acme: SomeTenant) -> None:
    engine = create_tenant_engine(database.url(ROLES.app), pool_size=1, max_overflow=0)
    with tenant_scope(acme.id):
        of_parent = backend_pid(engine)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, str(backend_pid(engine)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        of_child = int(os.read(reader, 20))

        assert of_child != of_parent
        assert backend_pid(engine) == of_parent
    engine.dispose()
    os.close(reader)
    os.close(writer)
