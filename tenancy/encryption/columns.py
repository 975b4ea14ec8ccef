"""Encrypted columns: what a model declares, and how a value knows the row it is sealed for.

A type alone sees values and no rows. So an attribute holds a SealedValue, which `before_insert` and `before_update`
seal for their row, and which is opened when it is read. Whatever passes by the objects is refused by the type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column, ColumnElement, Dialect, LargeBinary, Table, TypeDecorator, event
from sqlalchemy.orm import (
    ColumnProperty,
    InstrumentedAttribute,
    MappedColumn,
    Mapper,
    QueryableAttribute,
    Session,
    mapped_column,
    object_session,
)
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.sql import operators

from tenancy.context import require_tenant
from tenancy.encryption.ciphers import Place, label_of, row_of
from tenancy.errors import EncryptionError, ModelError, WrongTenantError
from tenancy.tables import TENANT_KEY, TenantTable

if TYPE_CHECKING:
    from tenancy.encryption.keyring import Keyring

KEYRING = "tenancy_keyring"  # where a session's `info` has it


class SealedValue:
    """A value of an encrypted column as objects and statements hold it; shows nothing of it.

    data: the sealed bytes; None until it is sealed. clear: the plain bytes; None until it is opened.
    """

    __slots__ = ("clear", "data")

    def __init__(self, data: bytes | None = None, *, clear: bytes | None = None) -> None:
        self.data = data
        self.clear = clear

    def is_same(self, other: object) -> bool:
        """Tell whether both are known to hold the same value."""
        if not isinstance(other, SealedValue):
            return False
        return (self.data is not None and self.data == other.data) or (
            self.clear is not None and self.clear == other.clear
        )

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, SealedValue) and self.data is not None and self.data == other.data)

    __hash__ = None  # type: ignore[assignment]  # it changes when it is sealed

    def __repr__(self) -> str:
        return "<SealedValue>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.data is None:
            raise EncryptionError("a value that is not sealed yet cannot be pickled", hint="flush the session first")
        return SealedValue, (self.data,)


class EncryptedType(TypeDecorator[Any]):
    """Base of the encrypted types: sealed bytes in the database, refused as anything else.

    label: what values are bound to in place of `<table>.<column>`: after a rename, the old name.
    """

    impl = LargeBinary
    cache_ok = True
    hashable = False

    def __init__(self, *, label: str | None = None) -> None:
        super().__init__()
        self.label = label

    def encode(self, value: Any) -> bytes:
        raise NotImplementedError

    def decode(self, clear: bytes) -> Any:
        raise NotImplementedError

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        if value is None:
            return None
        if isinstance(value, SealedValue) and value.data is not None:
            return value.data
        raise EncryptionError(
            "a plain value reached a statement about an encrypted column, which does not know the row to seal it for",
            hint="set it on an object and flush that, or pass keyring.seal_value(session, Model.column, id, value)",
        )

    def process_result_value(self, value: Any, dialect: Dialect) -> SealedValue | None:
        return None if value is None else SealedValue(bytes(value))

    def as_stored(self, data: bytes) -> SealedValue:
        """Return bytes as a value that statements take; for the test kit, whose rows need no sense."""
        return SealedValue(data)

    def compare_values(self, x: Any, y: Any) -> bool:
        return x is y or (isinstance(x, SealedValue) and x.is_same(y))

    class Comparator(TypeDecorator.Comparator[Any]):
        """Answers whether there is a value, and nothing about it."""

        def operate(self, op: Any, *other: Any, **options: Any) -> ColumnElement[Any]:
            asks_for_null = op in (operators.is_, operators.is_not, operators.eq, operators.ne) and _is_null(other)
            # SQLAlchemy finds columns in dictionaries, and so compares one with itself.
            is_itself = len(other) == 1 and isinstance(other[0], ColumnElement) and hash(other[0]) == hash(self.expr)
            if not asks_for_null and not (op is operators.eq and is_itself):
                raise EncryptionError(
                    f"an encrypted column cannot be asked for {op.__name__}: each value has a nonce of its own",
                    hint="read the rows and compare in Python, or keep what is searched for in a column of its own",
                )
            return super().operate(op, *other, **options)

        def reverse_operate(self, op: Any, other: Any, **options: Any) -> ColumnElement[Any]:
            return self.operate(op, other, **options)

    comparator_factory = Comparator  # pyright: ignore[reportAssignmentType]  # as SQLAlchemy's own types do


def _is_null(other: tuple[Any, ...]) -> bool:
    return len(other) == 1 and (other[0] is None or getattr(other[0], "__visit_name__", "") == "null")


class EncryptedString(EncryptedType):
    """Text, encrypted."""

    cache_ok = True

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"an encrypted text must be a str, not {type(value).__name__}")
        return value.encode()

    def decode(self, clear: bytes) -> str:
        return clear.decode()


class EncryptedJSON(EncryptedType):
    """Anything that JSON can say, encrypted. Each reading returns a copy: assign a changed value anew."""

    cache_ok = True

    def encode(self, value: Any) -> bytes:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()

    def decode(self, clear: bytes) -> Any:
        return json.loads(clear)


def encrypted_column(
    kind: EncryptedType | None = None, *, label: str | None = None, **options: Any
) -> MappedColumn[Any]:
    """Declare an encrypted column of a tenant table: `note: Mapped[str | None] = encrypted_column()`.

    kind: None for text; `EncryptedJSON()` for anything else. label: what values are bound to in place of
        `<table>.<column>`; give the old name after a rename, or nothing that was stored opens any more.
    options: those of `mapped_column` that do not need the value: `deferred`, `info`, `nullable`, `comment` and such.
    Raises: ModelError - an option would need the server to see the value.
    """
    for name in ("default", "insert_default", "server_default", "onupdate", "index", "unique", "primary_key"):
        if options.get(name) is not None and options[name] is not False:
            raise ModelError(
                f"an encrypted column cannot have {name}", hint="set the value on the object; keep keys unencrypted"
            )
    chosen = kind if kind is not None else EncryptedString()
    if label is not None:
        chosen = type(chosen)(label=label)
    return mapped_column(chosen, **options)


# Places -----------------------------------------------------------------------------------------------


def encrypted_columns(table: Table) -> list[Column[Any]]:
    """Return the encrypted columns of a table."""
    return [column for column in table.columns if isinstance(column.type, EncryptedType)]


def row_key_columns(table: Table) -> list[Column[Any]]:
    """Return the columns that name a row within its tenant."""
    return [column for column in table.primary_key.columns if column.name != TENANT_KEY]


def row_in(columns: Sequence[Column[Any]], values: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values of a row's key, each of the type in which the database will give it back.

    Raises: EncryptionError - one is unknown, or of another type: what is sealed for "7" does not open for 7.
    """
    row = row_of(values)
    if len(row) != len(columns):
        raise EncryptionError(
            f"{len(row)} values name a row whose key has {len(columns)}", hint="pass one for each column but tenant_id"
        )
    for column, value in zip(columns, row, strict=True):
        wanted = _python_type(column)
        if wanted is not None and not isinstance(value, wanted):
            raise EncryptionError(
                f"the key {column.name!r} of a row with sealed values is a {type(value).__name__}, not a "
                f"{wanted.__name__}",
                hint="convert it first: the value would not open for the key that the database gives back",
            )
    return row


def _python_type(column: Column[Any]) -> type | None:
    try:
        return column.type.python_type
    except NotImplementedError:  # a type of the program's own, which does not say
        return None


def label_of_column(column: Column[Any]) -> str:
    """Return what the values of an encrypted column are bound to."""
    kind = column.type
    if not isinstance(kind, EncryptedType):
        raise EncryptionError(f"column {column.name!r} is not encrypted", hint="pass Model.column of an encrypted one")
    return kind.label or label_of(column.table.fullname, column.name)


def column_of(attribute: QueryableAttribute[Any]) -> Column[Any]:
    """Return the column behind `Model.attribute`."""
    prop = attribute.property
    if not isinstance(prop, ColumnProperty):
        raise EncryptionError(f"{attribute!r} is no column", hint="pass Model.column of an encrypted one")
    return cast("Column[Any]", prop.columns[0])


@dataclass(frozen=True, slots=True)
class _Shape:
    """What there is to know of one encrypted attribute. row: the attributes that name its row."""

    key: str
    kind: EncryptedType
    label: str
    row: tuple[str, ...]
    row_columns: tuple[Column[Any], ...]

    def place_in(self, instance: Any) -> Place:
        """Return where the value of this object belongs, in the scope of its tenant and in no other."""
        tenant = require_tenant()
        owner = getattr(instance, TENANT_KEY)
        if owner != tenant:
            raise WrongTenantError(
                f"{type(instance).__name__} belongs to tenant {owner!r}, but the scope is {tenant!r}",
                hint="read and write encrypted values in the scope of their own tenant",
            )
        return Place(tenant, self.label, row_in(self.row_columns, [getattr(instance, key) for key in self.row]))


@lru_cache(maxsize=1024)
def _shape_of(mapper: Mapper[Any], key: str) -> _Shape:
    column = cast("Column[Any]", mapper.column_attrs[key].columns[0])
    rows = tuple(row_key_columns(column.table))
    names = tuple(mapper.get_property_by_column(row).key for row in rows)
    return _Shape(key, cast("EncryptedType", column.type), label_of_column(column), names, rows)


@lru_cache(maxsize=1024)
def _shapes_of(mapper: Mapper[Any]) -> tuple[_Shape, ...]:
    found = (prop for prop in mapper.column_attrs if isinstance(prop.columns[0].type, EncryptedType))
    return tuple(_shape_of(mapper, prop.key) for prop in found)


def keyring_of(session: Session | None) -> Keyring:
    """Return the keyring that a session's values are sealed and opened with.

    Raises: EncryptionError - there is no session, or nobody gave it one.
    """
    if session is None:
        raise EncryptionError(
            "the object has left its session, and with it the keys to its encrypted values",
            hint="read the value before the session is closed",
        )
    found = session.info.get(KEYRING)
    if found is None:
        raise EncryptionError("the session has no keyring", hint="call keyring.serve(Session) when the program starts")
    return cast("Keyring", found)


# Attributes -------------------------------------------------------------------------------------------


class EncryptedAttribute(InstrumentedAttribute[Any]):  # pyright: ignore[reportIncompatibleVariableOverride]  # its docstring
    """The attribute of an encrypted column: plain outside, a SealedValue in the object."""

    __slots__ = ()
    inherit_cache = True

    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        value = super().__get__(instance, owner)
        if value is None:
            return None
        shape = _shape_of(cast("Mapper[Any]", self.parent), self.key)
        if not isinstance(value, SealedValue):
            raise EncryptionError(
                f"{self.key!r} was given a value past its attribute", hint="assign it: object.x = ..."
            )
        if value.clear is None:
            place, session = shape.place_in(instance), object_session(instance)
            value.clear = keyring_of(session).open(cast("Session", session), cast("bytes", value.data), place)
        return shape.kind.decode(value.clear)

    def __set__(self, instance: object, value: Any) -> None:
        if value is not None and not isinstance(value, SealedValue):
            shape = _shape_of(cast("Mapper[Any]", self.parent), self.key)
            value = SealedValue(clear=shape.kind.encode(value))
        super().__set__(instance, value)


@event.listens_for(TenantTable, "attribute_instrument", propagate=True)
def _seal_attribute(model: type, _key: str, attribute: Any) -> None:
    prop = getattr(attribute, "property", None)
    if not isinstance(prop, ColumnProperty) or not isinstance(prop.columns[0].type, EncryptedType):
        return
    # The attribute stays the one that SQLAlchemy made and knows: only reading and writing are ours.
    attribute.__class__ = EncryptedAttribute
    for name, listener in (("before_insert", _seal_new), ("before_update", _seal_changed)):
        if not event.contains(model, name, listener):
            event.listen(model, name, listener)


def _values_of(mapper: Mapper[Any], target: object) -> Iterator[tuple[_Shape, SealedValue]]:
    for shape in _shapes_of(mapper):
        value = target.__dict__.get(shape.key)
        if isinstance(value, SealedValue):
            yield shape, value


def _seal_new(mapper: Mapper[Any], _connection: object, target: Any) -> None:
    """Seal all values, those too that were sealed in a transaction which was rolled back, with its new key."""
    session = object_session(target)
    for shape, value in _values_of(mapper, target):
        _give_key(shape, target)
        place, keyring = shape.place_in(target), keyring_of(session)
        if value.clear is None:
            value.clear = keyring.open(cast("Session", session), cast("bytes", value.data), place)
        value.data = keyring.seal(cast("Session", session), value.clear, place)


def _seal_changed(mapper: Mapper[Any], _connection: object, target: Any) -> None:
    """Seal what was assigned. Bytes that somebody has sealed must open here, or nobody could read them any more."""
    session, before = object_session(target), instance_state(target).committed_state
    for shape, value in _values_of(mapper, target):
        if value.data is not None and (shape.key not in before or value.is_same(before[shape.key])):
            continue
        place, keyring = shape.place_in(target), keyring_of(session)
        if value.clear is None:
            value.clear = keyring.open(cast("Session", session), cast("bytes", value.data), place)
        else:
            value.data = keyring.seal(cast("Session", session), value.clear, place)


def _give_key(shape: _Shape, target: Any) -> None:
    """Make the row's id now: by itself, SQLAlchemy would when the statement is run."""
    for key, column in zip(shape.row, shape.row_columns, strict=True):
        default: Any = column.default
        if target.__dict__.get(key) is None and default is not None:
            if default.is_callable:
                setattr(target, key, default.arg(None))
            elif default.is_scalar:
                setattr(target, key, default.arg)
