"""Guesses at values: one for each column type, different for each row, and naming its tenant where it can."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import NAMESPACE_OID, UUID, uuid5

from sqlalchemy import CheckConstraint, Column, types
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ranges
from sqlalchemy.types import TypeEngine

from tenancy.errors import ModelError

_ALLOWED = r"""(?:^|[\s("]){column}"?\s+IN\s+\(\s*'((?:[^']|'')*)'"""
_DAY = date(2030, 1, 1)
_MOMENT = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Guess:
    """What one value is guessed from: whose it is, and a number that no other row of its table has."""

    def __init__(self, column: Column[Any], marker: str, number: int) -> None:
        self.column = column
        self.marker = marker
        self.number = number
        # Of two dates in a row, the one declared later is later: an end is then after its start.
        self.place = [one.name for one in column.table.columns].index(column.name)

    def value(self) -> Any:
        """Return a value of the column's type.

        Raises: ModelError - nothing is known of the type.
        """
        allowed = _first_allowed(self.column)
        return self.of(self.column.type) if allowed is None else allowed

    def of(self, kind: TypeEngine[Any]) -> Any:
        for known, guess in _KNOWN:
            if isinstance(kind, known):
                return guess(self, kind)
        if isinstance(kind, types.ARRAY):
            return self._array(kind)
        if isinstance(kind, types.TypeDecorator):  # last: SQLAlchemy's own Interval is one, over a DateTime
            as_stored = getattr(kind, "as_stored", lambda value: value)  # of an encrypted type: it takes no plain value
            return as_stored(self.of(kind.impl_instance))
        raise ModelError(
            f"nothing is known of the type {kind!r} of {self.column.table.name}.{self.column.name}",
            hint="give the value in the row factory",
        )

    def text(self, length: int | None) -> str:
        name = self.column.name
        if "email" in name:
            written = f"{name}{self.number}@{self.marker}.test"
        elif name == "slug" or name.endswith(("domain", "host")):
            written = f"{self.marker}-{self.number}"
        else:
            written = f"{self.marker} {name} {self.number}"
        if length is None or len(written) <= length:
            return written
        if length <= 3:
            return _in_base_36(self.number, length)
        return f"{self.number}{self.marker}"[:length]  # the number first: it is what tells rows apart

    def uuid(self) -> UUID:
        return uuid5(NAMESPACE_OID, f"{self.column.table.key}.{self.column.name}/{self.marker}/{self.number}")

    def decimal(self, kind: types.Numeric[Any]) -> Decimal | float:
        scale = kind.scale or 0
        whole = 10 ** (kind.precision - scale) if kind.precision else 10**6
        value = Decimal(self.number % whole)
        return value if kind.asdecimal else float(value)

    def address(self, suffix: str = "") -> str:
        return f"10.{self.number >> 16 & 255}.{self.number >> 8 & 255}.{self.number & 255}{suffix}"

    def hardware(self, octets: int) -> str:
        return ":".join(f"{byte:02x}" for byte in (self.number | 2 << (8 * octets - 8)).to_bytes(octets, "big"))

    def range(self, kind: ranges.AbstractRange[Any]) -> ranges.Range[Any]:
        if isinstance(kind, ranges.AbstractMultiRange):
            kind = _SINGLE[type(kind)]()
        lower, upper = self._bounds(kind)
        return ranges.Range(lower, upper)

    def _bounds(self, kind: ranges.AbstractRange[Any]) -> tuple[Any, Any]:
        if isinstance(kind, ranges.DATERANGE):
            return _DAY + timedelta(days=2 * self.number), _DAY + timedelta(days=2 * self.number + 1)
        if isinstance(kind, ranges.TSRANGE | ranges.TSTZRANGE):
            start = _MOMENT if isinstance(kind, ranges.TSTZRANGE) else _MOMENT.replace(tzinfo=None)
            return start + timedelta(hours=2 * self.number), start + timedelta(hours=2 * self.number + 1)
        number = Decimal(self.number) if isinstance(kind, ranges.NUMRANGE) else self.number
        return number * 2, number * 2 + 1

    def _array(self, kind: types.ARRAY[Any]) -> list[Any]:
        value = self.of(kind.item_type)
        for _ in range(kind.dimensions or 1):
            value = [value]
        return cast("list[Any]", value)


def _in_base_36(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


def _first_allowed(column: Column[Any]) -> str | None:
    """The first value that a CHECK of the form `column IN ('a', 'b')` allows: the one kind that can be read."""
    if not isinstance(column.type, types.String) or isinstance(column.type, types.Enum):
        return None
    for text in _checks(column):
        found = re.search(_ALLOWED.replace("{column}", re.escape(column.name)), text, re.IGNORECASE)
        if found:
            return found[1].replace("''", "'")
    return None


def _checks(column: Column[Any]) -> Iterator[str]:
    for constraint in column.table.constraints:
        if isinstance(constraint, CheckConstraint):
            yield str(constraint.sqltext.compile(compile_kwargs={"literal_binds": True}))


def _enum(guess: Guess, kind: types.Enum) -> Any:
    return next(iter(kind.enum_class)) if kind.enum_class is not None else kind.enums[0]


def _uuid(guess: Guess, kind: types.Uuid[Any]) -> UUID | str:
    return guess.uuid() if kind.as_uuid else str(guess.uuid())


def _moment(guess: Guess, kind: types.DateTime) -> datetime:
    moment = _MOMENT + timedelta(days=guess.place, minutes=guess.number)
    return moment if kind.timezone else moment.replace(tzinfo=None)


def _time(guess: Guess, kind: types.Time) -> time:
    value = time(guess.number // 60 % 24, guess.number % 60)
    return value.replace(tzinfo=UTC) if kind.timezone else value


def _bits(guess: Guess, kind: postgresql.BIT) -> Any:
    length = kind.length or 1
    bits = f"{guess.number % 2**length:0{length}b}"
    written = getattr(postgresql, "BitString", None)  # SQLAlchemy 2.1 reads bits as a type of its own
    return bits if written is None else written(bits)


_SINGLE: dict[type[Any], type[ranges.AbstractRange[Any]]] = {
    postgresql.INT4MULTIRANGE: postgresql.INT4RANGE,
    postgresql.INT8MULTIRANGE: postgresql.INT8RANGE,
    postgresql.NUMMULTIRANGE: postgresql.NUMRANGE,
    postgresql.DATEMULTIRANGE: postgresql.DATERANGE,
    postgresql.TSMULTIRANGE: postgresql.TSRANGE,
    postgresql.TSTZMULTIRANGE: postgresql.TSTZRANGE,
}
# The first that fits: an Enum is a String, and before SQLAlchemy 2.1 a Float is a Numeric.
_KNOWN: tuple[tuple[type[Any], Callable[[Guess, Any], Any]], ...] = (
    (types.Enum, _enum),
    (postgresql.TSVECTOR, lambda g, _: f"'{g.marker}':1"),
    (postgresql.TSQUERY, lambda g, _: f"'{g.marker}'"),
    (types.Uuid, _uuid),
    (types.String, lambda g, kind: g.text(kind.length)),
    (types.Boolean, lambda g, _: False),
    (types.Integer, lambda g, _: g.number),
    (types.Float, lambda g, _: float(g.number)),
    (types.Numeric, lambda g, kind: g.decimal(kind)),
    (types.DateTime, _moment),
    (types.Date, lambda g, _: _DAY + timedelta(days=100 * g.place + g.number)),
    (types.Time, _time),
    (types.Interval, lambda g, _: timedelta(minutes=g.number)),
    (postgresql.INTERVAL, lambda g, _: timedelta(minutes=g.number)),
    (types.LargeBinary, lambda g, _: g.text(None).encode()),
    (types.JSON, lambda g, _: {"tenant": g.marker, "number": g.number}),
    (ranges.AbstractMultiRange, lambda g, kind: [g.range(kind)]),
    (ranges.AbstractRange, lambda g, kind: g.range(kind)),
    (postgresql.INET, lambda g, _: g.address()),
    (postgresql.CIDR, lambda g, _: g.address("/32")),
    (postgresql.MACADDR8, lambda g, _: g.hardware(8)),
    (postgresql.MACADDR, lambda g, _: g.hardware(6)),
    (postgresql.BIT, _bits),
    (postgresql.MONEY, lambda g, _: str(g.number)),
    (postgresql.OID, lambda g, _: g.number),
    (postgresql.HSTORE, lambda g, _: {"tenant": g.marker}),
)
