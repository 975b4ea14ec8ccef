"""The operations of revision files that put policies and grants on tables, and take them off."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from alembic.operations import Operations
from alembic.operations.ops import MigrateOperation

from tenancy import rls
from tenancy.alembic.execution import current_installation, online, run
from tenancy.alembic.operations import TenancyOp
from tenancy.marks import EVERY_PRIVILEGE
from tenancy.rls import GuardedTable, Policy
from tenancy.rls.migrations import read_update_columns
from tenancy.tables import TENANT_KEY

GuardedKind = Literal["tenant", "registry", "account", "staff"]


class GuardOp(TenancyOp):
    """An operation on the guard of one table. `knows_columns` is False when the catalog is to be asked for them."""

    def __init__(self, table: GuardedTable, *, knows_columns: bool = True) -> None:
        self.table = table
        self.knows_columns = knows_columns

    @property
    def arguments(self) -> tuple[tuple[str, ...], dict[str, object]]:
        keywords = _arguments(self.table)
        return (str(self.table.name),), keywords if self.knows_columns else keywords | {"update": None}

    def guard(self, operations: Operations) -> None:
        installed, table = current_installation(), self.table
        if not self.knows_columns:
            connection = online(operations, f"the columns of {table.name!r} cannot be read")
            table = dataclasses.replace(table, update=read_update_columns(connection, table))
        run(operations, rls.guard_sql(table, installed.roles, installed.flavour))


def _arguments(table: GuardedTable) -> dict[str, object]:
    arguments: dict[str, object] = {"update": [str(column) for column in table.update]}
    for field in dataclasses.fields(GuardedTable):
        value = getattr(table, field.name)
        is_usual = value == field.default or (field.name, value) == ("kind", "tenant")
        if field.name in ("name", "update") or is_usual or (field.name == "app" and table.kind == "staff"):
            continue
        arguments[field.name] = [str(item) for item in value] if isinstance(value, tuple) else str(value)
    return arguments


def _table(
    name: str,
    *,
    kind: GuardedKind = "tenant",
    update: Sequence[str] | None = None,
    app: Sequence[str] | None = None,
    **rest: Any,
) -> GuardedTable:
    fields: dict[str, Any] = {
        field: tuple(value) if isinstance(value, list) else value for field, value in rest.items()
    }
    return GuardedTable(name, kind, tuple(update or ()), app=_app_privileges(kind, app), **fields)


def _app_privileges(kind: GuardedKind, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return what the app role may do: nothing with a table of staff."""
    if given is None:
        return () if kind == "staff" else EVERY_PRIVILEGE
    return tuple(given)


class GuardTableOp(GuardOp):
    verb = "guard_table"

    @classmethod
    def guard_table(
        cls,
        operations: Operations,
        table_name: str,
        *,
        update: Sequence[str] | None = None,
        kind: GuardedKind = "tenant",
        key: str = TENANT_KEY,
        app_update: Sequence[str] | None = None,
        app: Sequence[str] | None = None,
        platform: Sequence[str] = EVERY_PRIVILEGE,
        lookup_columns: Sequence[str] = (),
        sequences: Sequence[str] = (),
        schema: str | None = None,
    ) -> None:
        """Put policies and grants on a table.

        update: the columns anyone may update; None reads every column outside the key from the catalog,
            which offline mode cannot.
        kind: `registry` for the table of tenants, `account` for one guarded by the bound account, `staff` for
            one that opens in a platform scope only.
        key: the guarding column. app_update: narrower list for the app role. app, platform: what each role may
            do with rows, of SELECT, INSERT, UPDATE, DELETE; None is all of it, or nothing for kind `staff`.
        lookup_columns: what lookups read. sequences: those its columns draw from.
        Raises: MigrationError - `update` is None in offline mode.
        """
        table = GuardedTable(
            name=table_name,
            kind=kind,
            update=tuple(update or ()),
            key=key,
            schema=schema,
            app_update=None if app_update is None else tuple(app_update),
            app=_app_privileges(kind, app),
            platform=tuple(platform),
            lookup_columns=tuple(lookup_columns),
            sequences=tuple(sequences),
        )
        operations.invoke(cls(table, knows_columns=update is not None))

    def run(self, operations: Operations) -> None:
        self.guard(operations)

    def reverse(self) -> MigrateOperation:
        return UnguardTableOp(self.table, knows_columns=self.knows_columns)


class UnguardTableOp(GuardOp):
    verb = "unguard_table"

    @classmethod
    def unguard_table(cls, operations: Operations, table_name: str, **guard: Any) -> None:
        """Take policies and grants off a table: nobody but its owner can read it then.

        Takes what `guard_table` takes, so that its reverse can guard the table again.
        """
        operations.invoke(cls(_table(table_name, **guard), knows_columns=guard.get("update") is not None))

    def run(self, operations: Operations) -> None:
        run(operations, rls.unguard_sql(self.table, current_installation().roles))

    def reverse(self) -> MigrateOperation:
        return GuardTableOp(self.table, knows_columns=self.knows_columns)


class ReguardTableOp(GuardOp):
    """`was`: the fields of the guard that were different before; none of them after a change by hand."""

    verb = "reguard_table"

    def __init__(
        self,
        table: GuardedTable,
        *,
        knows_columns: bool = True,
        was: Mapping[str, tuple[str, ...] | None] | None = None,
    ) -> None:
        super().__init__(table, knows_columns=knows_columns)
        self.was = dict(was or {})

    @classmethod
    def reguard_table(
        cls, operations: Operations, table_name: str, *, was: Mapping[str, Any] | None = None, **guard: Any
    ) -> None:
        """Write the policies and grants of a guarded table anew, as its model asks for them now.

        Takes what `guard_table` takes. was: those arguments that were different before, so that its
        reverse restores them; what was changed by hand is not among them and stays repaired.
        """
        before = {name: tuple(value) if isinstance(value, list) else value for name, value in (was or {}).items()}
        knows_columns = guard.get("update") is not None
        operations.invoke(cls(_table(table_name, **guard), knows_columns=knows_columns, was=before))

    @property
    def arguments(self) -> tuple[tuple[str, ...], dict[str, object]]:
        positional, keywords = super().arguments
        was = {name: None if value is None else [str(item) for item in value] for name, value in self.was.items()}
        return positional, keywords | ({"was": was} if was else {})

    def run(self, operations: Operations) -> None:
        self.guard(operations)

    def reverse(self) -> MigrateOperation:
        now = {name: getattr(self.table, name) for name in self.was}
        before: dict[str, Any] = dict(self.was)
        return ReguardTableOp(dataclasses.replace(self.table, **before), knows_columns=self.knows_columns, was=now)


# Policies that are not ours --------------------------------------------------------------------------


class PolicyOp(TenancyOp):
    """An operation on one permissive policy that somebody else wrote."""

    def __init__(self, table_name: str, policy: Policy, *, schema: str | None = None) -> None:
        self.table_name = table_name
        self.policy = policy
        self.schema = schema

    @property
    def arguments(self) -> tuple[tuple[str, ...], dict[str, object]]:
        policy = self.policy
        keywords: dict[str, object] = {}
        keywords |= {"command": policy.command} if policy.command != "ALL" else {}
        keywords |= {"roles": list(policy.roles)} if policy.roles != ("PUBLIC",) else {}
        keywords |= {"using": policy.using} if policy.using else {}
        keywords |= {"check": policy.check} if policy.check else {}
        keywords |= {"schema": str(self.schema)} if self.schema else {}
        return (str(self.table_name), policy.name), keywords


def _policy(
    name: str,
    *,
    command: Any = "ALL",
    roles: Sequence[str] = ("PUBLIC",),
    using: str | None = None,
    check: str | None = None,
) -> Policy:
    return Policy(name, True, command, tuple(roles), using, check)


class DropPermissivePolicyOp(PolicyOp):
    verb = "drop_permissive_policy"

    @classmethod
    def drop_permissive_policy(
        cls, operations: Operations, table_name: str, name: str, *, schema: str | None = None, **text: Any
    ) -> None:
        """Drop a permissive policy that the library did not write.

        Takes what `create_permissive_policy` takes, so that its reverse can create the policy again.
        """
        operations.invoke(cls(table_name, _policy(name, **text), schema=schema))

    def run(self, operations: Operations) -> None:
        table = rls.qualified(self.table_name, self.schema)
        run(operations, [f"DROP POLICY {rls.quote(self.policy.name)} ON {table}"])

    def reverse(self) -> MigrateOperation:
        return CreatePermissivePolicyOp(self.table_name, self.policy, schema=self.schema)


class CreatePermissivePolicyOp(PolicyOp):
    verb = "create_permissive_policy"

    @classmethod
    def create_permissive_policy(
        cls,
        operations: Operations,
        table_name: str,
        name: str,
        *,
        command: str = "ALL",
        roles: Sequence[str] = ("PUBLIC",),
        using: str | None = None,
        check: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Create a permissive policy besides the library's. It cannot get past the guard, but read it twice."""
        policy = _policy(name, command=command, roles=roles, using=using, check=check)
        operations.invoke(cls(table_name, policy, schema=schema))

    def run(self, operations: Operations) -> None:
        roles = tuple(role if role == "PUBLIC" else rls.quote(role) for role in self.policy.roles)
        policy = dataclasses.replace(self.policy, roles=roles)
        run(operations, [policy.create_sql(rls.qualified(self.table_name, self.schema))])

    def reverse(self) -> MigrateOperation:
        return DropPermissivePolicyOp(self.table_name, self.policy, schema=self.schema)
