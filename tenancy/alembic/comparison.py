"""What a comparison knows before it writes its first operation: the models, the database, and the server's own text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, Inspector, MetaData, Table

from tenancy import rls
from tenancy.alembic.execution import Installation, current_installation
from tenancy.errors import MigrationError
from tenancy.lookups import Lookup, lookups_of
from tenancy.marks import EVERY_PRIVILEGE
from tenancy.rls import Grant, GuardedTable, Policy, Roles, TableState
from tenancy.rls.migrations import (
    Routine,
    announces,
    can_draw,
    fresh_lookups,
    freshly_installed,
    is_installed,
    read_routines,
)
from tenancy.rls.signatures import BIND
from tenancy.tables import TENANT_KEY, mark_of

Key = tuple[str | None, str]


@dataclass
class Comparison:
    """Tables are keyed by (schema, name), the default schema being None as alembic has it.

    wanted: every guarded table of the models. released: those that are guarded and whose model asks for
    that no longer. states, columns: what exists. policies: what the server makes of the wanted ones.
    incomplete: those without their trigger or the use of their sequences. announcing: those that have the
    trigger of a registry.
    routines: the functions there are; fresh: those there ought to be.
    """

    installation: Installation
    is_installed: bool
    wanted: dict[Key, GuardedTable]
    released: list[Key]
    created: set[Key]
    lookups: list[Lookup]
    model_columns: dict[Key, frozenset[str]]
    known_names: frozenset[str]
    states: dict[Key, TableState]
    columns: dict[Key, frozenset[str]]
    sequences: dict[Key, tuple[str, ...]]
    incomplete: set[Key]
    announcing: set[Key]
    policies: dict[GuardedTable, tuple[Policy, ...]]
    routines: dict[str, Routine]
    fresh: dict[str, Routine]

    @property
    def is_signed(self) -> bool:
        """Whether the policies of the database demand signed scopes."""
        return BIND in self.routines

    @property
    def changed_functions(self) -> list[str]:
        """The functions of the library that are missing or not as it would write them."""
        lookups = {lookup.name for lookup in self.lookups}
        return [
            name
            for name, wanted in self.fresh.items()
            if name not in lookups and not (name in self.routines and self.routines[name].answers(wanted))
        ]

    def is_guarded(self, key: Key) -> bool:
        return any(policy.name in rls.POLICY_NAMES for policy in self.states[key].policies)

    def differs(self, key: Key) -> bool:
        """Whether a guard is not as its model asks, but for what adding and dropping columns puts right."""
        table, state, roles = self.wanted[key], self.states[key], self.installation.roles
        ours = {policy.name: policy for policy in state.policies if policy.name in rls.POLICY_NAMES}
        if not state.is_enabled or state.is_forced == (self.installation.flavour == "citus"):
            return True
        if key in self.incomplete or ours != {policy.name: policy for policy in self.policies[table]}:
            return True
        runtime = {roles.app, roles.platform, roles.lookup, roles.backup, "PUBLIC"}
        wanted, granted = rls.grants(table, roles), {grant for grant in state.grants if grant.role in runtime}
        missing = {grant for grant in wanted - granted if not self._comes_with_column(key, grant)}
        extra = {grant for grant in granted - wanted if grant.column in (None, *self.model_columns[key])}
        return bool(missing or extra)

    def _comes_with_column(self, key: Key, grant: Grant) -> bool:
        table = self.wanted[key]
        is_narrow = grant.role == self.installation.roles.app and table.app_update is not None
        has_others = not self.columns[key].isdisjoint(table.update)  # by which to tell who may update it
        return grant.privilege == "UPDATE" and grant.column not in self.columns[key] and has_others and not is_narrow

    def was(self, key: Key) -> dict[str, tuple[str, ...] | None]:
        """Return what a downgrade restores: columns that lookups read, and a narrower list for the app role.

        Never a wider one: a privilege that the model refuses may have been granted by hand.
        """
        table, before = self.wanted[key], self.recovered(key)
        was: dict[str, tuple[str, ...] | None] = {}
        read = tuple(column for column in before.lookup_columns if column in self.model_columns[key])
        if set(read) != set(table.lookup_columns):
            was["lookup_columns"] = read
        if table.app_update is not None and before.app_update is not None:
            updated = tuple(column for column in table.app_update if column in before.app_update)
            if updated != table.app_update:
                was["app_update"] = updated
        return was

    def recovered(self, key: Key) -> GuardedTable:
        """Derive from policies and grants what a table was guarded with; nothing but the catalog knows."""
        state, roles = self.states[key], self.installation.roles
        schema, name = key

        def columns(role: str, privilege: str) -> tuple[str, ...]:
            found = (g.column for g in state.grants if (g.role, g.privilege) == (role, privilege) and g.column)
            return tuple(sorted(found))

        account_key, is_registry, is_staff = state.account_key, key in self.announcing, state.is_staff
        update, app_update = columns(roles.platform, "UPDATE"), columns(roles.app, "UPDATE")
        app, platform = privileges_of(roles.app, state.grants), privileges_of(roles.platform, state.grants)
        is_same = app_update == update or "UPDATE" not in (app if "UPDATE" in platform else platform)
        return GuardedTable(
            name=name,
            schema=schema,
            kind="account" if account_key else "registry" if is_registry else "staff" if is_staff else "tenant",
            key=account_key or TENANT_KEY,
            update=update or app_update,
            app_update=None if is_same and not is_registry else app_update,
            app=EVERY_PRIVILEGE if is_registry else app,
            platform=EVERY_PRIVILEGE if is_registry else platform,
            lookup_columns=columns(roles.lookup, "SELECT"),
            sequences=self.sequences[key],
        )


def privileges_of(role: str, found: Iterable[Grant]) -> tuple[str, ...]:
    """Return what a role may do with the rows of a table."""
    held = {grant.privilege for grant in found if grant.role == role}
    return tuple(privilege for privilege in EVERY_PRIVILEGE if privilege in held)


def read_comparison(
    context: AutogenContext, metadatas: Sequence[MetaData], *, created: set[Key], dropped: set[Key]
) -> Comparison:
    """Read everything a comparison needs; changes nothing that outlives a savepoint.

    created, dropped: the tables alembic's own comparison creates and drops.
    """
    connection = context.connection
    if connection is None:
        raise MigrationError("autogenerate has no connection", hint="run it online")
    installation = current_installation()
    roles, flavour = installation.roles, installation.flavour
    tables = {_key(context, table): table for metadata in metadatas for table in metadata.sorted_tables}
    guarded = {(g.schema, g.name): g for metadata in metadatas for g in rls.guarded(metadata)}
    wanted = {k: g for k, t in tables.items() if (g := guarded.get((t.schema, t.name))) and _is_included(context, k, t)}
    lookups = [lookup for metadata in metadatas for lookup in lookups_of(metadata)]
    platform = [k for k, t in tables.items() if k not in wanted and _is_included(context, k, t) and _is_platform(t)]
    states = rls.read_state(connection, [_bare(key) for key in {*wanted, *platform, *dropped} - created])
    routines = read_routines(connection)
    installed = is_installed(connection)
    with freshly_installed(connection, roles, flavour, signed=installation.signed):
        fresh = read_routines(connection)
        policies = rls.canonical_policies(connection, list(wanted.values()), roles, flavour)
        fresh |= fresh_lookups(connection, lookups, roles)
    comparison = Comparison(
        installation=installation,
        is_installed=installed,
        wanted=wanted,
        released=[],
        created=created,
        lookups=[lookup for lookup in lookups if any(lookup.table == name for _, name in wanted)],
        model_columns={key: frozenset(column.name for column in table.columns) for key, table in tables.items()},
        known_names=frozenset(name for _, name in {*tables, *dropped}),
        states=states,
        columns={key: frozenset(_columns(context.inspector, key)) for key in states},
        sequences={key: tuple(_sequences(context.inspector, key)) for key in states},
        incomplete={key for key in wanted if key in states and not _is_complete(connection, wanted[key], roles)},
        announcing={key for key in states if announces(connection, _bare(key))},
        policies=policies,
        routines=routines,
        fresh=fresh,
    )
    comparison.released += [key for key in platform if key in states and comparison.is_guarded(key)]
    return comparison


def _key(context: AutogenContext, table: Table) -> Key:
    assert context.connection is not None  # noqa: S101 - read_comparison checked it
    is_default = table.schema == context.connection.dialect.default_schema_name
    return (None if is_default else table.schema, table.name)


def _is_included(context: AutogenContext, key: Key, table: Table) -> bool:
    schema, name = key
    return context.run_name_filters(name, "table", {"schema_name": schema}) and context.run_object_filters(
        table, name, "table", False, table
    )


def _is_platform(table: Table) -> bool:
    mark = mark_of(table)
    return mark is not None and mark.kind == "platform"


def _bare(key: Key) -> GuardedTable:
    return GuardedTable(name=key[1], schema=key[0], kind="tenant", update=())


def _is_complete(connection: Connection, table: GuardedTable, roles: Roles) -> bool:
    is_told = table.kind != "registry" or announces(connection, table)
    return is_told and (not table.sequences or can_draw(connection, table, roles))


def _columns(inspector: Inspector, key: Key) -> Iterable[str]:
    return (column["name"] for column in inspector.get_columns(key[1], schema=key[0]))


def _sequences(inspector: Inspector, key: Key) -> Iterable[str]:
    serial = (c["name"] for c in inspector.get_columns(key[1], schema=key[0]) if c.get("autoincrement") is True)
    return (f"{key[1]}_{column}_seq" for column in serial)
