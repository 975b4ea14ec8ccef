"""The keyring: each tenant's data keys, unwrapped when first needed and kept for a while."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Column, Connection, Table, event, func, insert, inspect, select
from sqlalchemy.orm import Mapper, QueryableAttribute, Session, SessionTransaction, scoped_session, sessionmaker

from tenancy.context import require_tenant
from tenancy.encryption import ciphers
from tenancy.encryption.ciphers import KEY_BYTES, Place
from tenancy.encryption.columns import (
    KEYRING,
    EncryptedType,
    SealedValue,
    column_of,
    label_of_column,
    row_in,
    row_key_columns,
)
from tenancy.encryption.models import DataKeyMixin
from tenancy.encryption.stores import KeyStore, Wrapped
from tenancy.errors import EncryptionError, InvalidCiphertextError, KeyDestroyedError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import async_sessionmaker

_UNCOMMITTED = "tenancy_uncommitted_keys"


class _Keys:
    """The data keys of one tenant, as they were read: wrapped, and unwrapped as far as they were needed."""

    __slots__ = ("ciphers", "expires_at", "wrapped")

    def __init__(self, wrapped: dict[int, Wrapped | None], expires_at: float) -> None:
        self.wrapped = wrapped  # by version; None for one that was destroyed
        self.expires_at = expires_at
        self.ciphers: dict[int, AESGCM] = {}

    @property
    def current(self) -> int | None:
        """The version that seals: the highest; None when there is none, or they were destroyed."""
        return None if self.is_destroyed else max(self.wrapped, default=None)

    @property
    def is_destroyed(self) -> bool:
        """Whether the keys were destroyed: then one that was made at the same moment does not count either."""
        return None in self.wrapped.values()


class Keyring:
    """Seals and opens values with the data keys of the tenant in scope, and with no others.

    model: the mapped class with DataKeyMixin. store: unwraps them.
    ttl_s: how long an unwrapped key is kept, and so how long another process goes on with a key after it was
        replaced or destroyed. bound: tenants whose keys are kept at once; beyond, those not used longest go.
    """

    def __init__(
        self,
        model: type[DataKeyMixin],
        store: KeyStore,
        *,
        ttl_s: float = 300.0,
        bound: int = 1_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.store = store
        self.unwraps = 0
        self.ttl_s = ttl_s
        self._bound = bound
        self._clock = clock
        self._kept: OrderedDict[UUID, _Keys] = OrderedDict()
        self._lock = threading.Lock()

    def serve(self, *factories: sessionmaker[Any] | async_sessionmaker[Any] | scoped_session[Any]) -> None:
        """Let the sessions that these factories make from now on seal and open values."""
        for factory in factories:
            maker = factory.session_factory if isinstance(factory, scoped_session) else factory
            maker.configure(info={**(maker.kw.get("info") or {}), KEYRING: self})

    def __repr__(self) -> str:
        return f"<Keyring of {self.model.__name__}>"

    # Values ---------------------------------------------------------------------------------------

    def seal(self, session: Session, clear: bytes, place: Place) -> bytes:
        """Encrypt a value of the tenant in scope; its first one makes the tenant's first data key.

        Raises: KeyStoreError, KeyDestroyedError
        """
        keys = self._keys(session, place.tenant)
        if not keys.wrapped:
            self._make(session, place.tenant, is_first=True)
            keys = self._keys(session, place.tenant)
        version = keys.current
        if version is None:
            raise _destroyed(place.tenant)
        return ciphers.seal(self._cipher(keys, place.tenant, version), version, clear, place)

    def open(self, session: Session, data: bytes, place: Place) -> bytes:
        """Decrypt a value of the tenant in scope.

        Raises: InvalidCiphertextError, KeyStoreError, KeyDestroyedError
        """
        version = ciphers.version_of(data)
        keys = self._keys(session, place.tenant)
        if version not in keys.wrapped:  # it may be newer than what was read
            self.forget(place.tenant)
            keys = self._keys(session, place.tenant)
        if version not in keys.wrapped:
            raise InvalidCiphertextError(
                f"tenant {place.tenant!r} has no data key of version {version}",
                hint="the value was moved here from another tenant, or the key's row is lost: restore it",
            )
        return ciphers.unseal(self._cipher(keys, place.tenant, version), data, place)

    def seal_value(self, session: Session, attribute: QueryableAttribute[Any], row: Any, value: Any) -> SealedValue:
        """Seal a value for a statement that no object stands behind, such as a bulk insert.

        attribute: `Model.column`. row: the id that the row will have; a tuple where its key is several columns.
        """
        column = column_of(attribute)
        place = Place(require_tenant(), label_of_column(column), _row(column, row))
        clear = cast("EncryptedType", column.type).encode(value)
        return SealedValue(self.seal(session, clear, place), clear=clear)

    def open_value(self, session: Session, attribute: QueryableAttribute[Any], row: Any, value: SealedValue) -> Any:
        """Open what `select(Model.column)` returned of the row with this id."""
        column = column_of(attribute)
        if value.data is None:
            raise EncryptionError("the value was never sealed", hint="pass one that was read from the database")
        clear = self.open(session, value.data, Place(require_tenant(), label_of_column(column), _row(column, row)))
        return cast("EncryptedType", column.type).decode(clear)

    # Keys -----------------------------------------------------------------------------------------

    def warm(self, session: Session) -> None:
        """Read and unwrap the current key of the tenant in scope: then no attribute needs the database.

        For asynchronous sessions, whose attributes cannot wait: `await session.run_sync(keyring.warm)`.
        """
        tenant = require_tenant()
        keys = self._keys(session, tenant)
        for version, wrapped in keys.wrapped.items():
            if wrapped is not None:
                self._cipher(keys, tenant, version)

    def versions(self, session: Session) -> dict[int, Wrapped | None]:
        """Return the data keys of the tenant in scope by version, read anew; None for one that was destroyed."""
        return dict(self._read(session, require_tenant()).wrapped)

    def add_version(self, session: Session) -> int:
        """Make a new data key for the tenant in scope; from the commit on it seals, and older ones open.

        Other processes seal with the one before for `ttl_s` at most.
        Raises: KeyDestroyedError - the tenant's keys were destroyed, and it gets no others.
        """
        return self._make(session, require_tenant(), is_first=False)

    def current_version(self, session: Session) -> int | None:
        """Return the version that seals for the tenant in scope; None when it has no key yet.

        Raises: KeyDestroyedError
        """
        keys = self._keys(session, require_tenant())
        if keys.is_destroyed:
            raise _destroyed(require_tenant())
        return keys.current

    def forget(self, tenant: UUID) -> None:
        """Let go of a tenant's unwrapped keys, in this process."""
        with self._lock:
            self._kept.pop(tenant, None)

    def context(self, tenant: UUID, version: int) -> dict[str, str]:
        """Return what a data key is wrapped for."""
        return {"purpose": "tenancy data key", "tenant": str(tenant), "version": str(version)}

    @property
    def table(self) -> Table:
        mapper: Mapper[Any] = inspect(self.model)
        return cast("Table", mapper.local_table)

    def _keys(self, session: Session, tenant: UUID) -> _Keys:
        uncommitted: dict[UUID, _Keys] | None = session.info.get(_UNCOMMITTED)
        if uncommitted is not None:
            if tenant not in uncommitted:
                uncommitted[tenant] = self._read(session, tenant)
            return uncommitted[tenant]
        with self._lock:
            found = self._kept.get(tenant)
            if found is not None and found.expires_at > self._clock():
                self._kept.move_to_end(tenant)
                return found
        found = self._read(session, tenant)
        # A session on a connection of somebody else's does not know what will be committed.
        if found.wrapped and not isinstance(session.get_bind(), Connection):
            with self._lock:
                self._kept[tenant] = found
                self._kept.move_to_end(tenant)
                while len(self._kept) > self._bound:
                    self._kept.popitem(last=False)
        return found

    def _read(self, session: Session, tenant: UUID) -> _Keys:
        columns = self.table.c
        statement = select(columns.version, columns.master_key_id, columns.wrapped).where(columns.tenant_id == tenant)
        expires_at = self._clock() + self.ttl_s
        with session.no_autoflush:
            rows = session.execute(statement).all()
        return _Keys(
            {row.version: None if row.wrapped is None else Wrapped(row.master_key_id, row.wrapped) for row in rows},
            expires_at,
        )

    def _cipher(self, keys: _Keys, tenant: UUID, version: int) -> AESGCM:
        found = keys.ciphers.get(version)
        if found is None:
            wrapped = keys.wrapped[version]
            if wrapped is None or keys.is_destroyed:
                raise _destroyed(tenant)
            self.unwraps += 1
            found = AESGCM(self.store.unwrap(wrapped, context=self.context(tenant, version)))
            keys.ciphers[version] = found
        return found

    def _make(self, session: Session, tenant: UUID, *, is_first: bool) -> int:
        """Add a data key in the session's transaction; is_first: unless somebody has been faster.

        What it seals is rolled back with it, so it is not kept for others before it is committed.
        """
        lock_keys(session, tenant)
        known = self._read(session, tenant)
        if known.is_destroyed:
            raise _destroyed(tenant)
        if is_first and known.wrapped:
            return max(known.wrapped)
        version = max(known.wrapped, default=0) + 1
        wrapped = self.store.wrap(os.urandom(KEY_BYTES), context=self.context(tenant, version))
        values = {"version": version, "master_key_id": wrapped.master_key_id, "wrapped": wrapped.data}
        with session.no_autoflush:
            session.execute(insert(self.table).values(tenant_id=tenant, **values))
        self.forget(tenant)
        session.info.setdefault(_UNCOMMITTED, {}).pop(tenant, None)
        if not event.contains(session, "after_transaction_end", _forget_uncommitted):
            event.listen(session, "after_transaction_end", _forget_uncommitted)
        return version


def lock_keys(session: Session, tenant: UUID) -> None:
    """Let nobody else make or destroy keys of the tenant until the transaction ends."""
    with session.no_autoflush:
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"tenancy data keys {tenant}", 0))))


def _forget_uncommitted(session: Session, transaction: SessionTransaction) -> None:
    """At the end of a savepoint read the keys again: it may have taken one back. At the end of all, go by others'."""
    if transaction.parent is None:
        session.info.pop(_UNCOMMITTED, None)
    elif _UNCOMMITTED in session.info:
        session.info[_UNCOMMITTED].clear()


def _row(column: Column[Any], row: Any) -> tuple[Any, ...]:
    return row_in(row_key_columns(column.table), row if isinstance(row, tuple) else (row,))


def _destroyed(tenant: UUID) -> KeyDestroyedError:
    return KeyDestroyedError(
        f"the data keys of tenant {tenant!r} were destroyed", hint="nothing can be done: that was their purpose"
    )
