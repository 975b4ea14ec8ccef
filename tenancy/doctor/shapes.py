"""The shape of every table as the database has it: columns, keys and indexes, in a constant number of queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Connection, text

KeyKind = Literal["primary key", "unique", "foreign key"]


@dataclass(frozen=True)
class ColumnShape:
    """One column. `type` is spelled by the server, without length or precision."""

    type: str
    is_nullable: bool


@dataclass(frozen=True)
class Key:
    """One key, by what it does and not by its name: two databases name the same key differently.

    refers_to: schema-qualified table and its columns, for a foreign key; columns pair up in order.
    """

    kind: KeyKind
    columns: tuple[str, ...]
    refers_to: tuple[str, tuple[str, ...]] | None = None

    @property
    def meaning(self) -> tuple[KeyKind, frozenset[object], str | None]:
        """Equal for keys that allow the same rows: the order of columns does not count."""
        if self.refers_to is None:
            return self.kind, frozenset(self.columns), None
        table, referred = self.refers_to
        return self.kind, frozenset(zip(self.columns, referred, strict=True)), table

    def __str__(self) -> str:
        target = f" to {self.refers_to[0]} ({', '.join(self.refers_to[1])})" if self.refers_to else ""
        return f"{self.kind} ({', '.join(self.columns)}){target}"


@dataclass
class TableShape:
    """One table of the database, by its schema-qualified name."""

    name: str
    columns: dict[str, ColumnShape] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    leading: set[tuple[str, ...]] = field(default_factory=set)


_COLUMNS = text("""
    SELECT n.nspname || '.' || c.relname, a.attname, format_type(a.atttypid, NULL), NOT a.attnotnull
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tenancy') AND n.nspname NOT LIKE 'pg\\_t%'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                                AND d.deptype = 'e')
    ORDER BY 1, a.attnum
""")
_KEYS = text("""
    SELECT n.nspname || '.' || c.relname, k.contype::text,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place),
           (SELECT rn.nspname || '.' || r.relname FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace
            WHERE r.oid = k.confrelid),
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (number, place)
                 JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.place)
    FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype IN ('p', 'u', 'f') AND k.conparentid = 0
    ORDER BY 1, k.conname
""")
_INDEXES = text("""
    SELECT n.nspname || '.' || c.relname, i.indisunique, i.indpred IS NOT NULL OR i.indexprs IS NOT NULL,
           EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')),
           ARRAY(SELECT coalesce(a.attname::text, '') FROM unnest(i.indkey::int[]) WITH ORDINALITY AS u (number, place)
                 LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.number
                 WHERE u.place <= i.indnkeyatts ORDER BY u.place)
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND i.indisvalid
    ORDER BY 1
""")
_TYPES = text("SELECT t, format_type(to_regtype(t), NULL) FROM unnest(CAST(:types AS text[])) AS t")
_KINDS: Mapping[str, KeyKind] = {"p": "primary key", "u": "unique", "f": "foreign key"}


def read_shapes(connection: Connection) -> dict[str, TableShape]:
    """Return every ordinary table by its schema-qualified name, but the system's, an extension's and ours.

    Three queries, however many tables. A partition is left out: it has the shape of its parent.
    """
    shapes: dict[str, TableShape] = {}
    for name, column, kind, nullable in connection.execute(_COLUMNS):
        shape = shapes.setdefault(name, TableShape(name))
        if column is not None:
            shape.columns[column] = ColumnShape(kind, nullable)
    for name, contype, columns, target, referred in connection.execute(_KEYS):
        if name in shapes:
            refers_to = (target, tuple(referred)) if target else None
            shapes[name].keys.append(Key(_KINDS[contype], tuple(columns), refers_to))
    for name, is_unique, is_partial, is_constraint, columns in connection.execute(_INDEXES):
        if name in shapes:
            shapes[name].leading.add(tuple(columns))
            if is_unique and not is_partial and not is_constraint:
                shapes[name].keys.append(Key("unique", tuple(columns)))
    return shapes


def canonical_types(connection: Connection, types: Iterable[str]) -> dict[str, str | None]:
    """Return each type as the server spells it, without length; None for a type that it does not have. One query."""
    return {row[0]: row[1] for row in connection.execute(_TYPES, {"types": sorted(set(types))})}
