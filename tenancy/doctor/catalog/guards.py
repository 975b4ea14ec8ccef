"""Which tables have to be guarded, and as what: told by the models, or else by the catalog itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Connection, Table

from tenancy import rls
from tenancy.doctor.catalog.objects import IndexState, Relation
from tenancy.doctor.catalog.snapshot import Fresh, Snapshot
from tenancy.doctor.findings import Subject
from tenancy.rls import Grant, GuardedTable, Policy, qualified
from tenancy.tables import TENANT_KEY, TableMark, mark_of

SCHEMA = rls.SCHEMA


@dataclass(frozen=True)
class Guard:
    """A table that has to be guarded.

    wanted: how; without a model its columns are unknown, and `model` is None. parent: of a partition or of
    an inheriting table, the table whose guard it has to have.
    """

    relation: Relation
    wanted: GuardedTable
    model: Table | None = None
    parent: Relation | None = None

    @property
    def mark(self) -> TableMark | None:
        return None if self.model is None else mark_of(self.model)

    @property
    def is_declared(self) -> bool:
        return self.model is not None


class Catalog(Snapshot):
    """The snapshot, and what follows from it together with the models."""

    def __init__(self, connection: Connection, subject: Subject) -> None:
        super().__init__(connection, subject)
        self.models = self._by_name(subject)

    def _by_name(self, subject: Subject) -> dict[tuple[str, str], Table]:
        tables = subject.metadata.tables.values() if subject.metadata is not None else ()
        return {(table.schema or self.default_schema or "public", table.name): table for table in tables}

    @cached_property
    def guards(self) -> dict[int, Guard]:
        """Every table that has to be guarded, by oid: declared ones, those with a tenant, and their children."""
        declared = {(table.schema, table.name): table for table in self._declared()}
        found: dict[int, Guard] = {}
        children: list[Relation] = []
        for relation in self._tables():
            model = self.models.get((relation.schema, relation.name))
            guarded = declared.get((model.schema, model.name)) if model is not None else None
            if guarded is not None:
                found[relation.oid] = Guard(relation, guarded, model)
            elif relation.parents:
                children.append(relation)
            elif model is None and self._looks_guarded(relation):
                found[relation.oid] = Guard(relation, self._recovered(relation))
        self._adopt(found, children)
        return found

    def _declared(self) -> list[GuardedTable]:
        return rls.guarded(self.subject.metadata) if self.subject.metadata is not None else []

    def _tables(self) -> Iterator[Relation]:
        for relation in self.relations.values():
            if relation.is_table and relation.schema != SCHEMA and not relation.is_extension:
                yield relation

    def _looks_guarded(self, relation: Relation) -> bool:
        return TENANT_KEY in relation.columns or any(
            policy.name == "tenancy_guard" for policy in self.states[relation.oid].policies
        )

    def _recovered(self, relation: Relation) -> GuardedTable:
        """Derive from the catalog alone what a table was guarded as."""
        state = self.states[relation.oid]
        account_key = state.account_key
        read = tuple(sorted(g.column for g in state.grants if g.role == self.roles.lookup and g.column))
        is_read = read or any(policy.name == "tenancy_lookup" for policy in state.policies)
        deletes = {grant.role for grant in state.grants if grant.privilege == "DELETE"}
        is_registry = self._primary_keys.get(relation.oid) == (TENANT_KEY,) and deletes & set(self.runtime) == {
            self.roles.platform
        }
        return GuardedTable(
            name=relation.name,
            kind="account" if account_key else "registry" if is_registry else "staff" if state.is_staff else "tenant",
            update=(),
            key=account_key or TENANT_KEY,
            schema=relation.schema,
            lookup_columns=(read or (account_key or TENANT_KEY,)) if is_read else (),
        )

    @cached_property
    def _primary_keys(self) -> dict[int, tuple[str, ...]]:
        return {key.table: key.columns for key in self.keys if key.kind == "p"}

    def _adopt(self, found: dict[int, Guard], children: list[Relation]) -> None:
        """Give children the guard of their parents, generation by generation; the rest stand for themselves."""
        while adopted := [r for r in children if r.oid not in found and any(p in found for p in r.parents)]:
            for relation in adopted:
                parent = next(found[oid] for oid in relation.parents if oid in found)
                found[relation.oid] = Guard(relation, parent.wanted, parent=parent.relation)
        for relation in children:
            if relation.oid not in found and self._looks_guarded(relation):
                found[relation.oid] = Guard(relation, self._recovered(relation))

    def is_platform(self, relation: Relation) -> bool:
        """Whether the models say that the table belongs to no tenant."""
        model = self.models.get((relation.schema, relation.name))
        mark = mark_of(model) if model is not None else None
        return mark is not None and mark.kind == "platform"

    def grants_to(self, oid: int, roles: tuple[str, ...]) -> list[Grant]:
        """What some roles may do with a relation, in a fixed order."""
        return sorted((grant for grant in self.states[oid].grants if grant.role in roles), key=str)

    @cached_property
    def fresh_library(self) -> Fresh:
        """What a fresh installation would be, with the policies of every shape of table there is."""
        return self.fresh(list({_shape(guard.wanted): guard.wanted for guard in self.guards.values()}.values()))

    @cached_property
    def _policies_by_shape(self) -> dict[tuple[str, str, bool], tuple[Policy, ...]]:
        return {_shape(table): found for table, found in self.fresh_library.policies.items()}

    def wanted_policies(self, guard: Guard) -> tuple[Policy, ...]:
        """The policies a table should have, in this server's words."""
        return self._policies_by_shape[_shape(guard.wanted)]

    def index_name(self, index: IndexState) -> str:
        """An index's SQL name: it lives in the schema of its table."""
        return qualified(index.name, self.relations[index.table].schema)

    @cached_property
    def tenant_readers(self) -> set[int]:
        """The views and materialized views that read a guarded table, themselves or through others."""
        reached = set(self.guards)
        while more := {view for view, reads in self.view_reads.items() if view not in reached and reads & reached}:
            reached |= more
        return {oid for oid in reached - set(self.guards) if oid in self.relations}


def _shape(table: GuardedTable) -> tuple[str, str, bool]:
    """What the policies of a table depend on."""
    return "tenant" if table.kind == "registry" else table.kind, table.key, bool(table.lookup_columns)
