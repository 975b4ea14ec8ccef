"""Rotation: which values are under an old data key, sealing them anew, and wrapping data keys anew. All of it resumes.

What there is to do is derived from the tables, never kept beside them: whoever is killed goes on where the rows are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    LargeBinary,
    MetaData,
    Table,
    and_,
    bindparam,
    func,
    insert,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.orm import Session

from tenancy.context import require_tenant
from tenancy.encryption.ciphers import VERSION_BYTES, VERSION_FROM, Place, row_of, version_bytes
from tenancy.encryption.columns import SealedValue, encrypted_columns, label_of_column, row_key_columns
from tenancy.encryption.keyring import Keyring, lock_keys
from tenancy.encryption.stores import Wrapped
from tenancy.errors import InvalidCiphertextError, KeyDestroyedError, ModelError
from tenancy.marks import mark_of
from tenancy.tables import TENANT_KEY, tenant_tables

_PASSES = 5
_BETWEEN_PASSES_S = 0.5


@dataclass(frozen=True)
class Progress:
    """How far one table is. unreadable: rows that no key opens where they are; they are left as they are."""

    table: str
    done: int
    left: int
    unreadable: int = 0


def encrypted_tables(metadata: MetaData) -> list[Table]:
    """Return every tenant table with an encrypted column."""
    return [table for table in tenant_tables(metadata) if encrypted_columns(table)]


def check_rotatable(metadata: MetaData) -> None:
    """Refuse models whose values could never be sealed anew.

    Raises: ModelError - the platform role may not update a table with an encrypted column; names each.
    """
    fixed = [
        table.name
        for table in encrypted_tables(metadata)
        if (mark := mark_of(table)) is not None and "UPDATE" not in mark.platform
    ]
    if fixed:
        raise ModelError(
            f"the platform may not update {', '.join(map(repr, fixed))}, so their values keep their first key for ever",
            hint="leave it UPDATE: limit_grants(app=..., platform=(..., 'UPDATE'))",
        )


def count_by_version(session: Session, table: Table) -> dict[int, int]:
    """Count the values of a table, in the tenant in scope, by the version of the data key they are under."""
    found: dict[int, int] = {}
    for column in encrypted_columns(table):
        version = _version_in(column)
        counted = (
            select(version, func.count())
            .where(table.c[TENANT_KEY] == require_tenant(), column.is_not(None))
            .group_by(version)
        )
        for data, count in session.execute(counted):
            key = int.from_bytes(data, "big")
            found[key] = found.get(key, 0) + count
    return found


def count_stale(session: Session, table: Table, version: int) -> int:
    """Count the rows of a table, in the tenant in scope, with a value that is not under this version."""
    counted = select(func.count()).select_from(table).where(_is_stale(table, version))
    return int(session.execute(counted).scalar_one())


def reencrypt(session: Session, keyring: Keyring, metadata: MetaData, *, batch_rows: int = 500) -> Iterator[Progress]:
    """Seal every value of the tenant in scope under its current data key, and commit after each batch.

    session: of the platform, in the tenant's scope. Rows that others hold are left for a later pass; a row that is
    changed meanwhile keeps the change. Values that other processes seal with the key before, which they do for the
    keyring's `ttl_s`, are found by calling this again.
    Raises: ModelError - a table cannot be updated. KeyStoreError, KeyDestroyedError.
    """
    check_rotatable(metadata)
    tenant = require_tenant()
    keyring.forget(tenant)
    version = keyring.current_version(session)
    if version is None:
        return
    for table in encrypted_tables(metadata):
        yield from _reencrypt_table(session, keyring, table, version, batch_rows)


def _reencrypt_table(
    session: Session, keyring: Keyring, table: Table, version: int, batch_rows: int
) -> Iterator[Progress]:
    done = left = unreadable = 0
    for number in range(_PASSES):
        after: tuple[Any, ...] | None = None
        unreadable = 0
        while True:
            sealed, damaged, after = _reencrypt_batch(session, keyring, table, version, batch_rows, after)
            left = count_stale(session, table, version)
            session.commit()
            done, unreadable = done + sealed, unreadable + damaged
            if sealed or damaged:
                yield Progress(table.name, done, left, unreadable)
            if after is None:
                break
        if left <= unreadable:
            break
        if number + 1 < _PASSES:
            time.sleep(_BETWEEN_PASSES_S)  # somebody holds those rows
    yield Progress(table.name, done, left, unreadable)


def _reencrypt_batch(
    session: Session, keyring: Keyring, table: Table, version: int, limit: int, after: tuple[Any, ...] | None
) -> tuple[int, int, tuple[Any, ...] | None]:
    """Seal some rows anew; returns how many, how many could not be opened, and where the next batch begins."""
    keys, columns, tenant = row_key_columns(table), encrypted_columns(table), require_tenant()
    wanted = (
        select(*keys, *(type_coerce(column, LargeBinary).label(f"sealed_{column.name}") for column in columns))
        .where(_is_stale(table, version))
        .order_by(*keys)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if after is not None:
        wanted = wanted.where(tuple_(*keys) > tuple_(*after))
    rows = session.execute(wanted).all()
    changed, damaged = [], 0
    for row in rows:
        key = row_of(row[: len(keys)])
        values: dict[str, Any] = {f"key_{column.name}": value for column, value in zip(keys, key, strict=True)}
        try:
            for column, data in zip(columns, row[len(keys) :], strict=True):
                place = Place(tenant, label_of_column(column), key)
                fresh = (
                    None if data is None else keyring.seal(session, keyring.open(session, bytes(data), place), place)
                )
                values[f"value_{column.name}"] = None if fresh is None else SealedValue(fresh)
        except InvalidCiphertextError:
            damaged += 1
            continue
        changed.append(values)
    if changed:
        session.connection().execute(_sealing(table, keys, columns), changed)
    return len(changed), damaged, row_of(rows[-1][: len(keys)]) if len(rows) == limit else None


def _sealing(table: Table, keys: list[Column[Any]], columns: list[Column[Any]]) -> Any:
    # The rows are not changed in any way that a reader would see: when they were stays as it is.
    kept = {column.name: column for column in table.columns if column.onupdate is not None}
    return (
        update(table)
        .where(table.c[TENANT_KEY] == require_tenant(), *(key == bindparam(f"key_{key.name}") for key in keys))
        .values({**kept, **{column.name: bindparam(f"value_{column.name}", type_=column.type) for column in columns}})
    )


def _version_in(column: Column[Any]) -> ColumnElement[bytes]:
    return func.substring(type_coerce(column, LargeBinary), VERSION_FROM, VERSION_BYTES, type_=LargeBinary)


def _is_stale(table: Table, version: int) -> ColumnElement[bool]:
    current = version_bytes(version)
    return and_(
        table.c[TENANT_KEY] == require_tenant(),
        or_(*(_version_in(column) != current for column in encrypted_columns(table))),
    )


# Data keys --------------------------------------------------------------------------------------------


def rewrap(session: Session, keyring: Keyring) -> int:
    """Wrap the data keys of the tenant in scope with the current master key; returns how many had another.

    session: of the platform. No value changes, and no key: whoever has one unwrapped goes on with it.
    Raises: KeyStoreError - the old or the new master key does not answer; nothing is changed.
    """
    tenant, columns, current = require_tenant(), keyring.table.c, keyring.store.current_id
    old = select(columns.version, columns.master_key_id, columns.wrapped).where(
        columns.tenant_id == tenant, columns.wrapped.is_not(None), columns.master_key_id != current
    )
    rows = session.execute(old.with_for_update()).all()
    for row in rows:
        context = keyring.context(tenant, row.version)
        plain = keyring.store.unwrap(Wrapped(row.master_key_id, row.wrapped), context=context)
        wrapped = keyring.store.wrap(plain, context=context)
        session.execute(
            update(keyring.table)
            .where(columns.tenant_id == tenant, columns.version == row.version)
            .values(wrapped=wrapped.data, master_key_id=wrapped.master_key_id)
        )
    return len(rows)


def destroy_keys(session: Session, keyring: Keyring) -> int:
    """Destroy the data keys of the tenant in scope, for good; returns how many there were.

    session: of the platform. From the commit on nothing of the tenant's opens, and nothing more is sealed for it;
    processes that have a key unwrapped let go of it after the keyring's `ttl_s`. Backups of the table hold the wrapped
    keys for as long as they are kept.
    """
    tenant, columns = require_tenant(), keyring.table.c
    lock_keys(session, tenant)
    known = keyring.versions(session)
    if not known:  # or a first value would make a first key
        session.execute(
            insert(keyring.table).values(tenant_id=tenant, version=1, master_key_id="", destroyed_at=func.now())
        )
    elif None in known.values():
        raise KeyDestroyedError(
            f"the data keys of tenant {tenant!r} were destroyed before", hint="there is nothing left to destroy"
        )
    session.execute(
        update(keyring.table)
        .where(columns.tenant_id == tenant, columns.destroyed_at.is_(None))
        .values(wrapped=None, destroyed_at=func.now())
    )
    keyring.forget(tenant)
    return len(known)
