"""From a table to its mapped class, which SQLAlchemy has no public way to find."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import Mapper, mapperlib


def mappers_of(metadata: MetaData) -> dict[Table, Mapper[Any]]:
    """Return the class of each table that is mapped alone: not as part of another class, nor as a part of a join."""
    registries: Iterable[Any] = mapperlib._all_registries()  # a MetaData does not know its registries
    found: dict[Table, Mapper[Any]] = {}
    mappers = (mapper for registry in registries for mapper in registry.mappers)
    for mapper in sorted(mappers, key=lambda mapper: mapper.class_.__qualname__):
        local = mapper.local_table
        if isinstance(local, Table) and local.metadata is metadata and mapper.inherits is None:
            found.setdefault(local, mapper)
    return found


def kinds_of(mapper: Mapper[Any]) -> dict[str, Any]:
    """Return, by column, the value that tells rows of a class from those of its subclasses; none without subclasses."""
    column = mapper.polymorphic_on
    kinds = [mapper.polymorphic_identity] if mapper.polymorphic_identity is not None else sorted(mapper.polymorphic_map)
    return {str(column.key): kinds[0]} if column is not None and kinds else {}
