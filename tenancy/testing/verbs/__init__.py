"""Verbs: what can be done to a table, and by whom. A verb that means nothing to a table is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tenancy.testing.rows import pairs_of
from tenancy.testing.shapes import Shape
from tenancy.testing.stage import Actor
from tenancy.testing.verbs import keys, reads, relations, structure, writes
from tenancy.testing.verbs.attempts import Attempt

ALL: tuple[Actor, ...] = ("owner", "stranger", "unbound", "empty", "table_owner")
# The owner of a table may empty it by right: no policy holds TRUNCATE.
RUNTIME: tuple[Actor, ...] = ("owner", "stranger", "unbound", "empty")
TENANTS: tuple[Actor, ...] = ("owner", "stranger")


@dataclass(frozen=True)
class Verb:
    """One way to reach rows."""

    name: str
    actors: tuple[Actor, ...]
    attempt: Callable[[Attempt], None]


_READS = (
    Verb("select_orm", ALL, reads.select_orm),
    Verb("select_core", ALL, reads.select_core),
    Verb("select_text", ALL, reads.select_text),
    Verb("copy_to", ALL, reads.copy_to),
    Verb("join", ALL, reads.join),
    Verb("subquery", ALL, reads.subquery),
    Verb("cte", ALL, reads.cte),
    Verb("aggregate", ALL, reads.aggregate),
)
_RELATIONS = (Verb("eager_load", RUNTIME, relations.eager_load), Verb("lazy_load", RUNTIME, relations.lazy_load))
_NEW_ROWS = (
    Verb("bulk_insert", ALL, writes.bulk_insert),
    Verb("insert_select", ALL, writes.insert_select),
)
_CHANGES = (
    Verb("update_by_key", ALL, writes.update_by_key),
    Verb("update_all", ALL, writes.update_all),
    Verb("update_tenant", ALL, writes.update_tenant),
    Verb("delete_by_key", ALL, writes.delete_by_key),
    Verb("delete_all", ALL, writes.delete_all),
    Verb("merge", ALL, writes.merge),
    Verb("copy_from", ALL, writes.copy_from),
    Verb("truncate", RUNTIME, writes.truncate),
)


def verbs_of(shape: Shape) -> Iterator[Verb]:
    """Return the verbs that mean something to a table, in the order of the matrix.

    Of a table of accounts or of staff, which no tenant has, only the policies are compared; no tenant reads staff's.
    """
    if shape.guarded.kind == "staff":
        yield Verb("staff_only", RUNTIME, structure.staff_only)
    elif shape.guarded.kind != "account":
        yield from _of_tenants(shape)
    yield Verb("policies", ("table_owner",), structure.policies)
    if shape.is_named_by_sessions:
        yield Verb("orm_predicate", TENANTS, structure.orm_predicate)


def _of_tenants(shape: Shape) -> Iterator[Verb]:
    yield from _READS
    yield from _RELATIONS if shape.relationships else ()
    if not shape.is_single or not shape.keeps_its_key:
        yield Verb("insert", ALL, writes.insert_row)
    yield from _NEW_ROWS if not shape.is_single else ()
    if not shape.keeps_its_key and shape.has_key:
        yield Verb("upsert", ALL, writes.upsert)
    yield from _CHANGES
    for key in shape.pointers:
        if not shape.can_insert and not all(shape.updates(local) for local, _ in pairs_of(key)):
            continue
        columns = ",".join(local for local, _ in pairs_of(key))
        yield Verb(f"foreign_key:{columns}", ALL, keys.point_at_stranger(key))
    for names in shape.uniques if shape.can_insert and not shape.is_single else ():
        columns = ",".join(name for name in names if name != "tenant_id")
        yield Verb(f"unique:{columns}", ALL, keys.probe_unique(names))
