"""The URL map: each route and method, and which rows the parts of its address stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import MetaData, Table

from tenancy.directory import TenantMixin
from tenancy.errors import ConfigurationError
from tenancy.tables import TENANT_KEY, TenantTable, tenant_tables

Outcome = Literal["refused", "apart", "exempt", "declared", "leaks", "changes", "told apart", "not called"]
PASSING: frozenset[Outcome] = frozenset({"refused", "apart", "exempt", "declared"})
_ROW_NAMES = frozenset({"id", "uuid", "pk", "key", "row", "item", "object"})
_SUFFIX = re.compile(r"_(id|uuid|pk|slug|key)$")
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+")


@dataclass(frozen=True, order=True)
class Route:
    """One rule of the URL map with one of its methods.

    parameters: names of the variable parts, in order. exempt: why it is served without a tenant; "" if it is not.
    """

    rule: str
    method: str
    endpoint: str
    parameters: tuple[str, ...] = ()
    exempt: str = ""


@dataclass(frozen=True)
class Body:
    """What a request brings along besides its address. path: values of parts of the address that are no row's.

    content: a body that is neither JSON nor a form, such as an uploaded file.
    """

    json: Any = None
    form: Mapping[str, Any] | None = None
    content: bytes | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    path: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RouteVerdict:
    """What became of one route.

    outcome: refused (a foreign id was answered like a missing one), apart (no ids in the address, nothing of the
        other tenant in the answer), exempt and declared (not proven, with a `reason`); the others are failures.
    calls: what was sent and what came back, in words.
    """

    route: Route
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    calls: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.outcome in PASSING


@dataclass(frozen=True)
class Target:
    """The rows that one variable part of an address stands for."""

    parameter: str
    table: Table
    column: str


def find_targets(route: Route, metadata: MetaData) -> dict[str, Target]:
    """Return, by parameter, the rows each part stands for; a part that cannot be told is left out.

    In this order: a foreign key's column of that name, a class or table of that name, and, for a bare `id`, the
    part of the address before it, the endpoint, and the blueprint.
    """
    tables = _Names(metadata)
    found: dict[str, Target] = {}
    for parameter in route.parameters:
        table = _first(tables.of_parameter(parameter), tables.of_place(route, parameter))
        if table is not None:
            found[parameter] = Target(parameter, table, _column(parameter, table))
    return found


def table_of_route(route: Route, metadata: MetaData) -> Table | None:
    """Return the tenant table that a route without ids is about, such as `/people`; None if none can be told."""
    tables = _Names(metadata)
    parts = [part for part in route.rule.split("/") if part and "<" not in part]
    return _first(*(tables.of_noun(part) for part in reversed(parts)), tables.of_endpoint(route))


def _first(*tables: Table | None) -> Table | None:
    return next((table for table in tables if table is not None), None)


def foreign_keys(metadata: MetaData) -> dict[str, Table]:
    """Return, by column name, the tenant table that columns of this name refer to; ambiguous names are left out."""
    found: dict[str, set[Table]] = {}
    for table in tenant_tables(metadata):
        for constraint in table.foreign_key_constraints:
            columns = [column.name for column in constraint.columns if column.name != TENANT_KEY]
            if len(columns) == 1 and TENANT_KEY in constraint.referred_table.c:
                found.setdefault(columns[0], set()).add(constraint.referred_table)
    return {name: tables.pop() for name, tables in found.items() if len(tables) == 1}


class _Names:
    """The words a table goes by: its own name, that of its class, singular and plural."""

    def __init__(self, metadata: MetaData) -> None:
        self._keys = foreign_keys(metadata)
        self._tables: dict[str, Table | None] = {}
        for table in tenant_tables(metadata):
            for word in {*_forms(table.name), *_class_names(table)}:
                self._add(word, table)

    def _add(self, word: str, table: Table) -> None:
        self._tables[word] = None if word in self._tables else table  # a word for two tables names neither

    def of_noun(self, noun: str) -> Table | None:
        word = noun.lower().replace("-", "_")
        return _first(*(self._tables.get(form) for form in _forms(word)))

    def of_parameter(self, parameter: str) -> Table | None:
        if parameter in self._keys:
            return self._keys[parameter]
        noun = _SUFFIX.sub("", parameter)
        return None if noun in _ROW_NAMES or noun == "slug" else self.of_noun(noun)

    def of_place(self, route: Route, parameter: str) -> Table | None:
        """Tell from the part of the address before it, as in `/people/<id>`."""
        before = re.split(rf"<(?:[^<>]*:)?{re.escape(parameter)}>", route.rule)[0].rstrip("/").rpartition("/")[2]
        if before and "<" not in before and (table := self.of_noun(before)) is not None:
            return table
        return self.of_endpoint(route)

    def of_endpoint(self, route: Route) -> Table | None:
        *holders, name = route.endpoint.split(".")
        words = name.split("_")
        tails = ["_".join(words[start:]) for start in range(len(words))]
        return _first(*(self.of_noun(noun) for noun in (*tails, *reversed(holders))))


def _forms(word: str) -> Iterator[str]:
    yield word
    if word.endswith("ies"):
        yield word[:-3] + "y"
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("s"):
        yield word[:-1]
    else:
        yield word + "s"
        yield word + "es"
        if word.endswith("y"):
            yield word[:-1] + "ies"


def _class_names(table: Table) -> Iterator[str]:
    for model in (*_subclasses(TenantTable), *_subclasses(TenantMixin)):
        if getattr(model, "__table__", None) is table:
            yield "_".join(part.lower() for part in _WORDS.findall(model.__name__))


def _subclasses(model: type[Any]) -> Iterator[type[Any]]:
    derived: type[Any]
    for derived in model.__subclasses__():
        yield derived
        yield from _subclasses(derived)


def _column(parameter: str, table: Table) -> str:
    if parameter in table.c and parameter != TENANT_KEY and not table.c[parameter].foreign_keys:
        return parameter
    if parameter.endswith("slug") and "slug" in table.c:
        return "slug"
    names = [column.name for column in table.primary_key if column.name != TENANT_KEY]
    if not names and TENANT_KEY in table.c:
        return TENANT_KEY
    return "id" if "id" in table.c else names[0]


def check_declarations(unswept: Mapping[str, str], routes: Sequence[Route]) -> None:
    """Refuse a declared exception without a reason, and one for a route that is not there.

    Raises: ConfigurationError
    """
    known = {route.endpoint for route in routes} | {f"{route.method} {route.endpoint}" for route in routes}
    for name, reason in unswept.items():
        if not isinstance(reason, str) or not reason.strip():
            raise ConfigurationError(
                f"route {name!r} is declared unswept for no reason", hint="say why it cannot be called"
            )
        if name not in known:
            raise ConfigurationError(
                f"{name!r} is declared unswept, and there is no such endpoint", hint="take the declaration out"
            )
