"""The catalog as the checks see it: read section by section, each at most once, the whole database at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from tenancy.doctor.catalog import queries
from tenancy.doctor.catalog.objects import Function, IndexState, Key, Numbering, Relation, TenantColumn, Trigger
from tenancy.doctor.findings import Subject
from tenancy.lookups import lookups_of
from tenancy.rls import Flavour, GuardedTable, Policy, TableState, canonical_policies
from tenancy.rls.catalog import read_states
from tenancy.rls.hardening import weaknesses
from tenancy.rls.migrations import Routine, fresh_lookups, freshly_installed, read_routines, send
from tenancy.rls.signatures import BIND


@dataclass(frozen=True)
class Fresh:
    """What a fresh installation of the library would be, in this server's own words."""

    routines: dict[str, Routine]
    lookups: dict[str, Routine]
    facts: frozenset[tuple[str, str]]
    policies: dict[GuardedTable, tuple[Policy, ...]]


class Snapshot:
    """One examination's view of the database. Each section is one query, run in a savepoint when it is first
    asked for; one that fails raises the same error to every check that asks."""

    def __init__(self, connection: Connection, subject: Subject) -> None:
        self.connection = connection
        self.subject = subject
        self.roles = subject.roles
        self.flavour: Flavour = subject.flavour
        (row,) = self.rows(queries.SERVER)
        self.database, self.default_schema, self.is_installed, self.is_hardened = row

    def weaknesses(self) -> list[str]:
        """What the runtime roles hold of all that hardening takes from them."""
        savepoint = self.connection.begin_nested()
        try:
            return weaknesses(self.connection, self.roles)
        finally:
            savepoint.rollback()

    def rows(self, statement: str) -> Sequence[Any]:
        savepoint = self.connection.begin_nested()
        try:
            options = {"no_parameters": True}
            found = self.connection.exec_driver_sql(statement, execution_options=options).all()
        except SQLAlchemyError:
            savepoint.rollback()
            raise
        savepoint.commit()
        return found

    def unfiltered_rows(self, statement: str) -> Sequence[Any]:
        """Read rows of tables, or fail where a policy would hide some."""
        savepoint = self.connection.begin_nested()
        try:
            send(self.connection, ["SET LOCAL row_security = off"])
            return self.connection.exec_driver_sql(statement, execution_options={"no_parameters": True}).all()
        finally:
            savepoint.rollback()

    @property
    def runtime(self) -> tuple[str, str]:
        """The roles that serve requests."""
        return self.roles.app, self.roles.platform

    @property
    def exposed(self) -> tuple[str, ...]:
        """Whom nothing may be given that the library does not give."""
        return (*self.runtime, "PUBLIC")

    @cached_property
    def relations(self) -> dict[int, Relation]:
        return {row[0]: Relation(*_fixed(row)) for row in self.rows(queries.RELATIONS)}

    @cached_property
    def states(self) -> dict[int, TableState]:
        """Policies and grants of every relation."""
        savepoint = self.connection.begin_nested()
        try:
            return read_states(self.connection, self.relations)
        finally:
            savepoint.rollback()

    @cached_property
    def tenant_columns(self) -> dict[int, TenantColumn]:
        return {oid: TenantColumn(*rest) for oid, *rest in self.rows(queries.TENANT_COLUMNS)}

    @cached_property
    def sequences(self) -> list[Numbering]:
        return [Numbering(*row) for row in self.rows(queries.SEQUENCES)]

    @cached_property
    def keys(self) -> list[Key]:
        return [Key(*_fixed(row)) for row in self.rows(queries.CONSTRAINTS)]

    @cached_property
    def indexes(self) -> list[IndexState]:
        return [IndexState(*_fixed(row)) for row in self.rows(queries.INDEXES)]

    @cached_property
    def view_reads(self) -> dict[int, set[int]]:
        """What each view and materialized view reads directly."""
        reads: dict[int, set[int]] = {}
        for view, relation in self.rows(queries.VIEW_READS):
            reads.setdefault(view, set()).add(relation)
        return reads

    @cached_property
    def barrier_views(self) -> dict[int, str]:
        """The text of each security_barrier view."""
        return {row[0]: row[1] for row in self.rows(queries.WINDOWS)}

    @cached_property
    def functions(self) -> dict[int, Function]:
        return {row[0]: Function(*_fixed(row)) for row in self.rows(queries.ROUTINES)}

    @cached_property
    def triggers(self) -> list[Trigger]:
        return [Trigger(*row) for row in self.rows(queries.TRIGGERS)]

    @cached_property
    def privileges(self) -> Sequence[Any]:
        """(kind, object, grantee, privilege) of what is no table."""
        return self.rows(queries.PRIVILEGES)

    @cached_property
    def rules(self) -> Sequence[Any]:
        """(relation, name) of every rule but those that make a view."""
        return self.rows(queries.RULES)

    @cached_property
    def shadows(self) -> Sequence[Any]:
        """(kind, name) of operators and casts between built-in types."""
        return self.rows(queries.SHADOWS)

    @cached_property
    def defaults(self) -> Sequence[Any]:
        """(role, schema, kind, grantee, privilege); an empty list of privileges has a None for each."""
        return self.rows(queries.DEFAULTS)

    @cached_property
    def extensions(self) -> Sequence[Any]:
        return self.rows(queries.EXTENSIONS)

    @cached_property
    def publications(self) -> Sequence[Any]:
        """(name, whether for all tables, the relations published)."""
        return self.rows(queries.PUBLICATIONS)

    @cached_property
    def slots(self) -> Sequence[Any]:
        return self.rows(queries.SLOTS)

    @cached_property
    def facts(self) -> frozenset[tuple[str, str]]:
        return self._facts()

    def _facts(self) -> frozenset[tuple[str, str]]:
        return frozenset((thing, fact) for thing, fact in self.rows(queries.LIBRARY))

    @cached_property
    def routines(self) -> dict[str, Routine]:
        return read_routines(self.connection)

    @property
    def is_signed(self) -> bool:
        """Whether scopes have to be signed: then the library's functions are others."""
        return BIND in self.routines

    def fresh(self, shapes: Sequence[GuardedTable]) -> Fresh:
        """Install the library anew beside the real one, read it, and forget it again.

        shapes: tables whose policies are wanted in the server's words.
        """
        lookups = lookups_of(self.subject.metadata) if self.subject.metadata is not None else ()
        savepoint = self.connection.begin_nested()
        try:
            # Both come back with the savepoint. A migration that is under way is not waited for.
            send(self.connection, [f"SET LOCAL ROLE {self.roles.owner}", "SET LOCAL lock_timeout = '5s'"])
            with freshly_installed(self.connection, self.roles, self.flavour, signed=self.is_signed):
                routines = read_routines(self.connection)
                facts = self._facts()
                policies = canonical_policies(self.connection, shapes, self.roles, self.flavour)
                found = fresh_lookups(self.connection, lookups, self.roles)
                return Fresh(routines, found, facts, policies)
        finally:
            savepoint.rollback()


def _fixed(row: Sequence[Any]) -> Iterator[Any]:
    """Each value of a row, its arrays as tuples."""
    return (tuple(value) if isinstance(value, list) else value for value in row)
