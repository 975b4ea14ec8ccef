"""The database under test: built once from the models or the migrations, copied for each process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, create_engine, create_mock_engine, make_url, text
from sqlalchemy.pool import NullPool

from tenancy.lookups import lookups_of
from tenancy.rls import Roles, bootstrap_sql, create_lookup_sql, guard_sql, guarded, install_sql

# Durability is of no use to a database that lives as long as the tests.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def build_from_models(url: str, metadata: MetaData, roles: Roles) -> None:
    """Create roles, schema `tenancy`, and every table of the metadata with its policies, as the owner would.

    url: a superuser's, of an empty database.
    """
    create_roles(url, roles)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {roles.owner}")
        _run(connection, install_sql(roles))
        metadata.create_all(connection)
        for table in guarded(metadata):
            _run(connection, guard_sql(table, roles))
        for lookup in lookups_of(metadata):
            _run(connection, create_lookup_sql(lookup, roles))


def build_from_migrations(url: str, roles: Roles, upgrade: Callable[[str], None]) -> None:
    """Create the roles, then migrate. upgrade: gets the migrator's URL."""
    create_roles(url, roles)
    upgrade(make_url(url).set(username=roles.migrator).render_as_string(hide_password=False))


def create_roles(url: str, roles: Roles) -> None:
    """Create the six roles and hand them the database."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        _run(connection, bootstrap_sql(roles, str(make_url(url).database)))


def _run(connection: Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.execute(text(statement))


def digest_of_models(metadata: MetaData, roles: Roles) -> str:
    """Return a short hash that changes with anything `build_from_models` would create."""
    written: list[str] = []

    def note(statement: Any, *_args: Any, **_options: Any) -> None:
        written.append(str(statement.compile(dialect=engine.dialect)))

    engine = create_mock_engine("postgresql+psycopg://", note)
    metadata.create_all(engine, checkfirst=False)
    for table in guarded(metadata):
        written += guard_sql(table, roles)
    for lookup in lookups_of(metadata):
        written += create_lookup_sql(lookup, roles)
    return _digest("\n".join([*install_sql(roles), *bootstrap_sql(roles, "x"), *written]).encode())


def digest_of_files(files: Iterable[Path], roles: Roles) -> str:
    """Return a short hash of these files and of what the library itself would create."""
    contents = [path.read_bytes() for path in sorted(files)]
    return _digest("\n".join([*install_sql(roles), *bootstrap_sql(roles, "x")]).encode(), *contents)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
