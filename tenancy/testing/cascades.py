"""What deleting rows takes along, worked out in Python from the metadata and the seeded rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import ForeignKeyConstraint, MetaData, Table

from tenancy.testing.rows import Row, foreign_keys, identity_of

Changes = dict[str, tuple[int, int, int]]


def deleting(
    metadata: MetaData, rows: Mapping[str, list[Row]], table: Table, doomed: Iterable[Row]
) -> Changes | ForeignKeyConstraint:
    """Return how many rows each table loses or has blanked, or the foreign key that forbids it.

    rows: by table, those of one tenant: nothing of another's may change.
    """
    deleted: dict[str, set[tuple[str, ...]]] = {table.key: set()}
    blanked: dict[str, int] = {}
    forbidding: list[tuple[ForeignKeyConstraint, tuple[str, ...]]] = []
    waiting = [(table, list(doomed))]
    deleted[table.key] |= {identity_of(table, row) for row in waiting[0][1]}
    while waiting:
        parent, gone = waiting.pop()
        for key, child, row in _pointing_at(metadata, rows, parent, gone):
            identity = identity_of(child, row)
            action = (key.ondelete or "NO ACTION").upper()
            if identity in deleted.get(child.key, ()):
                continue
            if action == "CASCADE":
                deleted.setdefault(child.key, set()).add(identity)
                waiting.append((child, [row]))
            elif action.startswith("SET"):
                blanked[child.key] = blanked.get(child.key, 0) + 1
            elif (key.initially or "").upper() != "DEFERRED":
                forbidding.append((key, identity))
    for key, identity in forbidding:
        if identity not in deleted.get(key.table.key, ()):
            return key
    names = deleted.keys() | blanked.keys()
    return {name: (0, blanked.get(name, 0), len(deleted.get(name, ()))) for name in sorted(names)}


def _pointing_at(
    metadata: MetaData, rows: Mapping[str, list[Row]], parent: Table, gone: list[Row]
) -> Iterator[tuple[ForeignKeyConstraint, Table, Row]]:
    for child in metadata.tables.values():
        for key in foreign_keys(child):
            if key.referred_table is not parent:
                continue
            pairs = [(element.parent.name, element.column.name) for element in key.elements]
            for row in rows.get(child.key, ()):
                if any(all(row[local] == target[there] for local, there in pairs) for target in gone):
                    yield key, child, row
