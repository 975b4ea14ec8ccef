"""Migrations that read guarded rows: past FORCE for all tenants at once, or bound to one tenant after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from uuid import UUID

from alembic.operations import Operations
from alembic.operations.ops import MigrateOperation, OpContainer
from sqlalchemy import Connection, event, text

from tenancy import rls
from tenancy.alembic.execution import online, refuse_autocommit, run
from tenancy.errors import MigrationError
from tenancy.tables import TENANT_KEY

_FORCED = text("SELECT relforcerowsecurity FROM pg_class WHERE oid = CAST(:name AS regclass)")
_BYPASSES = text("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")


class LiftForce:
    """Registers `op.lift_force`."""

    verb = "lift_force"

    @classmethod
    def lift_force(
        cls, operations: Operations, *tables: str, schema: str | None = None
    ) -> AbstractContextManager[None]:
        """Let the block see every tenant's rows of these tables: name both sides of a new foreign key.

        The tables are locked until the migration's transaction ends, so no other session meets the window.
        FORCE is back after the block, also when it fails and the error is caught.
        Raises: MigrationError - the connection commits by itself, or the block tries to commit.
        """
        names = [rls.qualified(table, schema) for table in tables]
        return _lifted_script(operations, names) if operations.migration_context.as_sql else lifted(operations, names)


@contextmanager
def _lifted_script(operations: Operations, names: Sequence[str]) -> Iterator[None]:
    run(operations, [rls.force_sql(name, forced=False) for name in names])
    yield
    run(operations, [rls.force_sql(name, forced=True) for name in names])


@contextmanager
def lifted(operations: Operations, names: Sequence[str]) -> Iterator[None]:
    """Do what `op.lift_force` says, for tables given by their SQL names."""
    connection = operations.get_bind()
    refuse_autocommit(connection)
    # In a savepoint: rolling back to it restores FORCE where no statement could, in a failed transaction.
    savepoint = connection.begin_nested()
    event.listen(connection, "commit", _refuse_commit)
    try:
        forced = [name for name in names if connection.execute(_FORCED, {"name": name}).scalar_one()]
        run(operations, [rls.force_sql(name, forced=False) for name in forced])
        yield
        run(operations, [rls.force_sql(name, forced=True) for name in forced])
        savepoint.commit()
    except BaseException:
        if savepoint.is_active:
            savepoint.rollback()
        raise
    finally:
        event.remove(connection, "commit", _refuse_commit)


def _refuse_commit(_connection: Connection) -> None:
    raise MigrationError(
        "a commit inside lift_force would leave the tables open", hint="move autocommit_block() out of lift_force"
    )


class ForEachTenant:
    """Registers `op.for_each_tenant`."""

    verb = "for_each_tenant"

    @classmethod
    def for_each_tenant(
        cls, operations: Operations, registry: str = "tenants", *, schema: str | None = None
    ) -> Iterator[UUID]:
        """Yield the id of every tenant, with the transaction bound to it; afterwards it is bound to none.

        Statements in the loop see and change that tenant's rows only, in guarded tables; outside it they are
        an error. A tenant registered after the loop began is not visited.
        Raises: MigrationError - offline mode, where nobody knows the tenants; a role that no policy holds.
        """
        connection = online(operations, "the tenants are not known")
        _refuse_bypass(connection)
        return _bound_to_each(operations, connection, _tenant_ids(operations, connection, registry, schema))


def _refuse_bypass(connection: Connection) -> None:
    if connection.execute(_BYPASSES).scalar_one():
        raise MigrationError(
            "this role passes every policy: each turn of the loop would change all tenants' rows",
            hint="migrate as the migrator role, or write WHERE tenant_id = ... yourself",
        )


def _tenant_ids(operations: Operations, connection: Connection, registry: str, schema: str | None) -> list[UUID]:
    # Rolling the savepoint back restores FORCE and gives up the lock: a long loop must not hold up every request.
    table = rls.qualified(registry, schema)
    refuse_autocommit(connection)
    savepoint = connection.begin_nested()
    try:
        run(operations, [rls.force_sql(table, forced=False)])
        ids = connection.execute(text(f"SELECT {TENANT_KEY} FROM {table} ORDER BY 1")).scalars()
        return [UUID(str(tenant)) for tenant in ids]
    finally:
        savepoint.rollback()


def _bound_to_each(operations: Operations, connection: Connection, tenants: Sequence[UUID]) -> Iterator[UUID]:
    row_security = connection.exec_driver_sql("SHOW row_security").scalar_one()
    for tenant in tenants:
        run(operations, [f"SET LOCAL app.tenant_id = '{tenant}'", "SET LOCAL row_security = on"])
        try:
            yield tenant
        except GeneratorExit:  # a break, or an error that leaves the loop
            if connection.in_transaction() and not _has_failed(connection):
                _unbind(operations, row_security)
            raise
        _unbind(operations, row_security)


def _unbind(operations: Operations, row_security: str) -> None:
    run(operations, ["SET LOCAL app.tenant_id = ''", f"SET LOCAL row_security = {row_security}"])


def _has_failed(connection: Connection) -> bool:
    # A failed transaction takes no statement; the rollback that must follow undoes the binding as well.
    driver = connection.connection.driver_connection
    return bool(driver is not None and driver.info.transaction_status.name == "INERROR")


# What autogenerate wraps -----------------------------------------------------------------------------


class LiftedOps(OpContainer):
    """Operations on existing rows that a revision file writes inside `with op.lift_force(...)`."""

    def __init__(self, ops: Sequence[MigrateOperation], *, tables: Sequence[str], schema: str | None = None) -> None:
        super().__init__(ops)
        self.tables = tuple(tables)
        self.schema = schema

    def reverse(self) -> MigrateOperation:
        return LoweredOps([op.reverse() for op in reversed(self.ops)], tables=self.tables, schema=self.schema)


class LoweredOps(OpContainer):
    """Operations that need no lifting, but whose reverse does."""

    def __init__(self, ops: Sequence[MigrateOperation], *, tables: Sequence[str], schema: str | None = None) -> None:
        super().__init__(ops)
        self.tables = tuple(tables)
        self.schema = schema

    def reverse(self) -> MigrateOperation:
        return LiftedOps([op.reverse() for op in reversed(self.ops)], tables=self.tables, schema=self.schema)
