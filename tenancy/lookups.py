"""Lookups: exact-key reads made before a tenant is known, each a function owned by the `lookup` role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, MetaData, Row, text

from tenancy.errors import ModelError

SCHEMA = "tenancy"
_INFO = "tenancy_lookups"


@dataclass(frozen=True)
class Lookup:
    """One function `tenancy.<name>(key)` that returns the rows of `table` whose `key` column equals the argument.

    key: a column of text, bytea or uuid, stored normalised; `by_account` instead compares it with the
        account bound to the transaction, and the function takes no argument.
    returns: the only columns the caller sees.
    requires: columns that must not be NULL for a row to answer, such as `verified_at`.
    """

    name: str
    table: str
    key: str
    returns: tuple[str, ...]
    key_type: str = "text"
    by_account: bool = False
    requires: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for identifier in (self.name, self.table, self.key, *self.returns, *self.requires):
            if not identifier.isidentifier() or not identifier.islower():
                raise ModelError(
                    f"{identifier!r} is not a plain lower-case SQL name", hint="lookups take unquoted names"
                )
        if self.key_type not in ("text", "bytea", "uuid"):
            raise ModelError(
                f"a lookup by {self.key_type} is not an exact-key read",
                hint="store the key normalised as text, bytea or uuid: other types leak through their operators",
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns the lookup role must be able to read, key first."""
        return tuple(dict.fromkeys((self.key, *self.returns, *self.requires)))

    def fetch(self, connection: Connection, key: Any = None) -> Sequence[Row[Any]]:
        """Return the matching rows, also on a connection to which no tenant is bound.

        key: the normalised value; None only for a lookup by the bound account.
        """
        argument = "" if self.by_account else f"CAST(:key AS {self.key_type})"
        statement = text(f"SELECT {', '.join(self.returns)} FROM {SCHEMA}.{self.name}({argument})")  # noqa: S608 - checked names
        return connection.execute(statement, {} if self.by_account else {"key": key}).all()


def declare_lookup(metadata: MetaData, lookup: Lookup) -> Lookup:
    """Record the lookup with the metadata of its table, so that migrations create it; returns it."""
    declared: list[Lookup] = metadata.info.setdefault(_INFO, [])
    if any(other.name == lookup.name and other != lookup for other in declared):
        raise ModelError(f"two lookups are named {lookup.name!r}", hint="give each lookup its own name")
    if lookup not in declared:
        declared.append(lookup)
    return lookup


def lookups_of(metadata: MetaData) -> tuple[Lookup, ...]:
    """Return the declared lookups, in order of declaration."""
    return tuple(metadata.info.get(_INFO, ()))
