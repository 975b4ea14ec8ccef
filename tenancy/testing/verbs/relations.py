"""Related rows, loaded along with an object or when first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.orm import RelationshipProperty, Session, lazyload, selectinload
from sqlalchemy.orm.interfaces import ORMOption

from tenancy.context import outside_any_scope
from tenancy.testing.rows import Row, identity_of
from tenancy.testing.verbs.attempts import Attempt, Outcome
from tenancy.testing.verbs.reads import refuse_in_python
from tenancy.testing.world import SeededTenant


def eager_load(attempt: Attempt) -> None:
    for prop in attempt.shape.relationships:
        _follow(attempt, prop, selectinload(prop.class_attribute))


def lazy_load(attempt: Attempt) -> None:
    for prop in attempt.shape.relationships:
        _follow(attempt, prop, lazyload(prop.class_attribute))
        if attempt.actor == "unbound":
            _follow_too_late(attempt, prop)


def _follow(attempt: Attempt, prop: RelationshipProperty[Any], option: ORMOption) -> None:
    def act(session: Session) -> Outcome:
        model = prop.parent.class_
        parents = session.scalars(select(model).options(option)).unique().all()
        return Outcome(seen=tuple(sorted(one for parent in parents for one in _related(parent, prop))))

    attempt.step(
        prop.key,
        act,
        owner=_expected(attempt, prop, attempt.owner),
        stranger=_expected(attempt, prop, attempt.stranger),
    )
    if not attempt.is_bound:
        refuse_in_python(attempt, act)


def _follow_too_late(attempt: Attempt, prop: RelationshipProperty[Any]) -> None:
    """An object taken out of its scope loads nothing more."""
    with attempt.refusals() as refusals, attempt.stage.session("owner") as session:
        parent = session.scalars(select(prop.parent.class_).options(lazyload(prop.class_attribute))).first()
        with outside_any_scope():
            refusals.append(Outcome(seen=tuple(_related(parent, prop))))
    attempt.judge(f"{prop.key} after the scope", Outcome("NoTenantError"), refusals[0])


def _related(parent: Any, prop: RelationshipProperty[Any]) -> list[tuple[str, ...]]:
    value = getattr(parent, prop.key)
    many = list(value.values() if isinstance(value, dict) else value) if prop.uselist else [value]
    return [_identity(one) for one in many if one is not None]


def _identity(found: Any) -> tuple[str, ...]:
    mapper = inspect(found).mapper
    table = mapper.local_table
    row = {column.name: getattr(found, mapper.get_property_by_column(column).key) for column in table.primary_key}
    return (table.key, *identity_of(table, row))


def _expected(attempt: Attempt, prop: RelationshipProperty[Any], tenant: SeededTenant) -> Outcome:
    """The related rows of each of the tenant's rows, found by comparing columns in Python."""
    target: Any = prop.mapper.local_table
    targets = attempt.world.rows[target.key][tenant.id]
    links = [] if prop.secondary is None else attempt.world.rows[str(getattr(prop.secondary, "key", ""))][tenant.id]
    found = []
    for row in attempt.rows_of(tenant):
        for other in targets:
            times = _times(prop, row, other, links)
            found += [(target.key, *identity_of(target, other))] * times
    return Outcome(seen=tuple(sorted(found)))


def _times(prop: RelationshipProperty[Any], row: Row, other: Row, links: list[Row]) -> int:
    if prop.secondary is None:
        return int(all(_equal(row, here.name, other, there.name) for here, there in prop.local_remote_pairs or ()))
    near = [(column.name, link.name) for column, link in prop.synchronize_pairs or ()]
    far = [(column.name, link.name) for column, link in prop.secondary_synchronize_pairs or ()]
    return sum(
        all(_equal(row, name, link, of_link) for name, of_link in near)
        and all(_equal(other, name, link, of_link) for name, of_link in far)
        for link in links
    )


def _equal(one: Mapping[str, Any], name: str, other: Mapping[str, Any], other_name: str) -> bool:
    return one[name] is not None and bool(one[name] == other[other_name])
