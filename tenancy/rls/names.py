"""What all policy text shares: the schema, the flavour, and quoting of identifiers."""

from __future__ import annotations

from typing import Literal

from sqlalchemy.dialects import postgresql

from tenancy.lookups import SCHEMA as SCHEMA

Flavour = Literal["postgres", "citus"]

_preparer = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]  # SQLAlchemy's


def quote(identifier: str) -> str:
    """Return the identifier as SQL, quoted where it must be."""
    return str(_preparer.quote(identifier))


def qualified(table: str, schema: str | None = None) -> str:
    """Return a table's SQL name; without a schema the search path decides."""
    return f"{quote(schema)}.{quote(table)}" if schema else quote(table)
