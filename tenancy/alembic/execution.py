"""Where operations run: the roles they write for, and the connection or script they write to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from alembic.operations import Operations
from sqlalchemy import Connection

from tenancy.errors import MigrationError
from tenancy.rls import Flavour, Roles
from tenancy.rls.migrations import send


@dataclass(frozen=True)
class Installation:
    """What `tenancy.alembic.install` was told: it holds for every migration of the process."""

    roles: Roles
    flavour: Flavour
    signed: bool = False


_installations: list[Installation] = []


def is_first_installation() -> bool:
    return not _installations


def remember_installation(installation: Installation) -> None:
    _installations[:] = [installation]


def current_installation() -> Installation:
    """Return what `install` was told last.

    Raises: MigrationError - `install` was not called.
    """
    if not _installations:
        raise MigrationError(
            "tenancy's operations are not installed", hint="call tenancy.alembic.install() in alembic/env.py"
        )
    return _installations[0]


def run(operations: Operations, statements: Iterable[str]) -> None:
    """Send the statements to the database, or write them to the script in offline mode, as they are.

    alembic's own way takes `:name` for a parameter, and doubles percent signs.
    """
    context = operations.migration_context
    if context.as_sql:
        for statement in statements:
            context.impl.static_output(statement + context.impl.command_terminator)
    else:
        wanted = list(statements)
        if any(statement.startswith("SET LOCAL") for statement in wanted):
            refuse_autocommit(operations.get_bind())
        send(operations.get_bind(), wanted)


def refuse_autocommit(connection: Connection) -> None:
    """Refuse a connection on which nothing lasts longer than one statement.

    Raises: MigrationError - SET LOCAL would do nothing there, and FORCE would stay off after an error.
    """
    # Asked of the driver: the server, whom get_isolation_level() asks, does not know.
    if getattr(connection.connection.driver_connection, "autocommit", False):
        raise MigrationError(
            "this operation needs one transaction, and the connection commits each statement",
            hint="move it out of autocommit_block(), and take isolation_level off the engine",
        )


def online(operations: Operations, what: str) -> Connection:
    """Return the connection of the migration.

    Raises: MigrationError - the migration is written to a script, where `what` cannot be known.
    """
    if operations.migration_context.as_sql:
        raise MigrationError(f"{what} in offline mode", hint="run this migration online, without --sql")
    return operations.get_bind()
