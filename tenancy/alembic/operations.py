"""The operations of revision files that install schema `tenancy`, make lookups and add columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from alembic.operations import BatchOperations, Operations, toimpl
from alembic.operations.ops import AddColumnOp, MigrateOperation

from tenancy import rls
from tenancy.alembic.execution import current_installation, run
from tenancy.errors import MigrationError
from tenancy.lookups import Lookup
from tenancy.rls.migrations import is_signed


class TenancyOp(MigrateOperation):
    """An operation of ours: plain data. Revision files call it by `verb`; `alembic check` prints its diff tuple."""

    verb: ClassVar[str]

    @property
    def arguments(self) -> tuple[tuple[str, ...], dict[str, object]]:
        """What the revision file passes: positional and keyword arguments."""
        return (), {}

    def run(self, operations: Operations) -> None:
        raise NotImplementedError

    def to_diff_tuple(self) -> tuple[Any, ...]:
        positional, keywords = self.arguments
        return (self.verb, *positional, keywords)


def run_operation(operations: Operations, operation: TenancyOp) -> None:
    operation.run(operations)


# Schema `tenancy` ------------------------------------------------------------------------------------


class InstallTenancyOp(TenancyOp):
    """signed: whether the policies demand signed scopes; None for what `tenancy.alembic.install` was told."""

    verb = "install_tenancy"

    def __init__(self, *, signed: bool | None = None) -> None:
        self.signed = signed

    @property
    def arguments(self) -> tuple[tuple[str, ...], dict[str, object]]:
        return (), {} if self.signed is None else {"signed": self.signed}

    @classmethod
    def install_tenancy(cls, operations: Operations, *, signed: bool | None = None) -> None:
        """Create schema `tenancy`: the functions that policies call, and the platform's audit table.

        signed: the policies also demand a signature of each scope; None for what `install` in env.py says.
        """
        operations.invoke(cls(signed=signed))

    def run(self, operations: Operations) -> None:
        installed = current_installation()
        signed = installed.signed if self.signed is None else self.signed
        run(operations, rls.install_sql(installed.roles, installed.flavour, signed=signed))

    def reverse(self) -> MigrateOperation:
        return UninstallTenancyOp(signed=self.signed)


class ReinstallTenancyOp(InstallTenancyOp):
    verb = "reinstall_tenancy"

    @classmethod
    def reinstall_tenancy(cls, operations: Operations, *, signed: bool | None = None) -> None:
        """Write the functions of schema `tenancy` anew, after an upgrade of the library or a change by hand.

        Its reverse does the same: the functions are those of the installed library, not of a revision.
        signed: True or False is the step to signed scopes, or back; back, every signing key is lost.
        Raises: MigrationError - a signed database, and neither this call nor env.py says so.
        """
        operations.invoke(cls(signed=signed))

    def run(self, operations: Operations) -> None:
        installed = current_installation()
        if self.signed is False:
            run(operations, rls.unsign_sql(installed.roles))
            return
        if self.signed is None and not installed.signed and _is_signed(operations):
            raise MigrationError(
                "the database demands signed scopes, and env.py does not say so",
                hint="call tenancy.alembic.install(signed=True), or op.reinstall_tenancy(signed=False) to end that",
            )
        super().run(operations)

    def reverse(self) -> MigrateOperation:
        return ReinstallTenancyOp(signed=None if self.signed is None else not self.signed)


class UninstallTenancyOp(InstallTenancyOp):
    verb = "uninstall_tenancy"

    @classmethod
    def uninstall_tenancy(cls, operations: Operations, *, signed: bool | None = None) -> None:
        """Drop schema `tenancy`. Lost: the audit of platform sessions, and every signing key.

        Fails while a table is guarded. signed: for its reverse, as in `install_tenancy`.
        """
        operations.invoke(cls(signed=signed))

    def run(self, operations: Operations) -> None:
        run(operations, rls.uninstall_sql(current_installation().roles, signed=_is_signed(operations)))

    def reverse(self) -> MigrateOperation:
        return InstallTenancyOp(signed=self.signed)


def _is_signed(operations: Operations) -> bool:
    if operations.migration_context.as_sql:
        return current_installation().signed
    return is_signed(operations.get_bind())


# Lookups ---------------------------------------------------------------------------------------------


class LookupOp(TenancyOp):
    """An operation on one lookup function."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup

    @property
    def arguments(self) -> tuple[tuple[str, ...], dict[str, object]]:
        lookup = self.lookup
        keywords: dict[str, object] = {"key": lookup.key, "returns": list(lookup.returns)}
        keywords |= {"key_type": lookup.key_type} if lookup.key_type != "text" else {}
        keywords |= {"by_account": True} if lookup.by_account else {}
        keywords |= {"requires": list(lookup.requires)} if lookup.requires else {}
        return (lookup.name, lookup.table), keywords


def _lookup(name: str, table: str, **definition: Any) -> Lookup:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in definition.items()}
    return Lookup(name, table, **fields)


class CreateLookupOp(LookupOp):
    verb = "create_lookup"

    @classmethod
    def create_lookup(
        cls,
        operations: Operations,
        name: str,
        table: str,
        *,
        key: str,
        returns: Sequence[str],
        key_type: str = "text",
        by_account: bool = False,
        requires: Sequence[str] = (),
    ) -> None:
        """Create the function `tenancy.<name>(key)` as the lookup role.

        The table must already be guarded with every column the lookup reads in its `lookup_columns`.
        """
        operations.invoke(cls(Lookup(name, table, key, tuple(returns), key_type, by_account, tuple(requires))))

    def run(self, operations: Operations) -> None:
        run(operations, rls.create_lookup_sql(self.lookup, current_installation().roles))

    def reverse(self) -> MigrateOperation:
        return DropLookupOp(self.lookup)


class RecreateLookupOp(LookupOp):
    verb = "recreate_lookup"

    @classmethod
    def recreate_lookup(cls, operations: Operations, name: str, table: str, **definition: Any) -> None:
        """Drop and create a lookup that was changed by hand; takes what `create_lookup` takes.

        Its reverse does the same: what was changed by hand stays repaired.
        """
        operations.invoke(cls(_lookup(name, table, **definition)))

    def run(self, operations: Operations) -> None:
        # The schema's owner may drop a function even when it was given to somebody else.
        drop = f"DROP FUNCTION IF EXISTS {rls.SCHEMA}.{self.lookup.name}"
        run(operations, [drop, *rls.create_lookup_sql(self.lookup, current_installation().roles)])

    def reverse(self) -> MigrateOperation:
        return RecreateLookupOp(self.lookup)


class DropLookupOp(LookupOp):
    verb = "drop_lookup"

    @classmethod
    def drop_lookup(cls, operations: Operations, name: str, table: str, **definition: Any) -> None:
        """Drop a lookup; takes what `create_lookup` takes, so that its reverse can create it again."""
        operations.invoke(cls(_lookup(name, table, **definition)))

    def run(self, operations: Operations) -> None:
        run(operations, rls.drop_lookup_sql(self.lookup, current_installation().roles))

    def reverse(self) -> MigrateOperation:
        return CreateLookupOp(self.lookup)


# Columns ---------------------------------------------------------------------------------------------


def add_column(operations: Operations, operation: AddColumnOp) -> None:
    """Add a column as alembic does; on a guarded table its UPDATE grant comes in the same operation."""
    toimpl.add_column(operations, operation)
    if operations.migration_context.dialect.name != "postgresql":
        return
    roles = current_installation().roles
    grant = rls.grant_added_column_sql(operation.table_name, operation.column.name, roles, schema=operation.schema)
    if isinstance(operations, BatchOperations):
        operations.impl.batch.append(("execute", (grant,), {}))  # after the column, which is queued too
    else:
        run(operations, [grant])
