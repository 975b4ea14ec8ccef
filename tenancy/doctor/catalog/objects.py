"""The objects of a database that the checks speak of, as the catalog holds them."""

from __future__ import annotations

from dataclasses import dataclass

from tenancy.rls import qualified

_NOUNS = {
    "r": "table",
    "p": "table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
    "S": "sequence",
}


@dataclass(frozen=True)
class Relation:
    """A table, view, materialized view, foreign table or sequence outside the server's own schemas."""

    oid: int
    schema: str
    name: str
    kind: str
    owner: str
    is_enabled: bool
    is_forced: bool
    options: tuple[str, ...]
    parents: tuple[int, ...]
    is_extension: bool
    columns: tuple[str, ...]

    @property
    def sql_name(self) -> str:
        return qualified(self.name, self.schema)

    @property
    def label(self) -> str:
        """How findings name it."""
        return f"{_NOUNS[self.kind]} {self.sql_name}"

    @property
    def is_table(self) -> bool:
        return self.kind in ("r", "p")

    def has_option(self, name: str) -> bool:
        """Whether a boolean option was set, in any of the spellings that the server keeps."""
        values = dict(option.split("=", 1) for option in self.options)
        return values.get(name, "false").lower() in ("true", "on", "1", "yes")


@dataclass(frozen=True)
class TenantColumn:
    type: str
    is_required: bool
    default: str | None


@dataclass(frozen=True)
class Numbering:
    oid: int
    table: int
    column: str
    is_identity: bool


@dataclass(frozen=True)
class Key:
    """A primary key, unique, exclusion or foreign key constraint (contype p, u, x, f).

    is_disabled: the triggers that hold a foreign key were switched off.
    """

    oid: int
    table: int
    name: str
    kind: str
    columns: tuple[str, ...]
    refers_to: int
    referred: tuple[str, ...]
    is_validated: bool
    is_inherited: bool
    definition: str
    is_disabled: bool


@dataclass(frozen=True)
class IndexState:
    """columns: '' for an expression. text: expressions and predicate. lost_classes, is_lost_expression: what
    row-level security keeps from being used."""

    oid: int
    table: int
    name: str
    is_unique: bool
    is_constraint: bool
    columns: tuple[str, ...]
    text: str
    lost_classes: tuple[str, ...]
    is_lost_expression: bool
    is_inherited: bool
    definition: str


@dataclass(frozen=True)
class Function:
    oid: int
    schema: str
    name: str
    arguments: str
    owner: str
    has_strong_owner: bool
    is_definer: bool
    is_leakproof: bool
    is_trigger: bool
    callers: tuple[str, ...]
    is_extension: bool
    is_procedure: bool

    @property
    def sql_name(self) -> str:
        return f"{qualified(self.name, self.schema)}({self.arguments})"

    @property
    def noun(self) -> str:
        return "procedure" if self.is_procedure else "function"

    @property
    def label(self) -> str:
        return f"{self.noun} {self.sql_name}"


@dataclass(frozen=True)
class Trigger:
    table: int
    name: str
    is_enabled: bool
    function: int
