"""The directory that asks PostgreSQL: cached, bounded, and safe across forks."""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import Future
from contextvars import Context
from time import monotonic
from types import MappingProxyType

from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import class_mapper

from tenancy.directory.answers import Answer, Reference, TenantRecord
from tenancy.directory.listener import Listener, opener
from tenancy.directory.memory import Memory
from tenancy.directory.models import TenantMixin, table_of
from tenancy.errors import ConfigurationError, DirectoryError
from tenancy.lookups import Lookup, lookups_of


class SQLDirectory:
    """Finds tenants through the exact-key lookup functions, at most once per reference and change.

    ttl_s, negative_ttl_s: how long a tenant, and an "unknown", are remembered while changes are heard.
    floor_ttl_s: how long anything is remembered while they are not; and a domain always, since nobody tells of those.
    max_lookups: lookups at the database at one moment; further ones wait up to `wait_s`, then fail.
    listen_url: for LISTEN, when the engine goes through a pooler. None takes the engine's own URL.
    """

    def __init__(
        self,
        tenants: type[TenantMixin],
        *,
        domains: type[object] | None = None,
        ttl_s: float = 60.0,
        negative_ttl_s: float = 10.0,
        floor_ttl_s: float = 1.0,
        max_entries: int = 10_000,
        max_lookups: int = 4,
        wait_s: float = 2.0,
        listen_url: str | None = None,
    ) -> None:
        models: list[type[object]] = [tenants] if domains is None else [tenants, domains]
        tables = [table_of(class_mapper(model, configure=False)) for model in models]
        self.metadata: MetaData = tables[0].metadata
        self._lookups = {
            lookup.name: lookup
            for table in tables
            for lookup in lookups_of(table.metadata)
            if lookup.table == table.name
        }
        self._memory = Memory(
            ttl_s=ttl_s, negative_ttl_s=negative_ttl_s, floor_ttl_s=floor_ttl_s, max_entries=max_entries
        )
        self._max_lookups = max_lookups
        self._wait_s = wait_s
        self._listen_url = listen_url
        self._engine: Engine | None = None
        self._is_closed = False
        self.lookups = 0  # made at the database by this process, for a gauge
        self._become_ready()
        forked = weakref.WeakMethod(self._forked)
        os.register_at_fork(after_in_child=lambda: (restart := forked()) and restart())

    def _become_ready(self) -> None:
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(self._max_lookups)
        self._flights: dict[Reference, Future[TenantRecord | None]] = {}
        self._listener: Listener | None = None

    def _forked(self) -> None:
        if self._listener is not None:
            self._listener.abandon()
        if self._engine is not None:
            self._engine.dispose(close=False)
        self._memory.reset()
        self._become_ready()

    @property
    def is_bound(self) -> bool:
        return self._engine is not None

    @property
    def is_listening(self) -> bool:
        """True while changes made by other processes are being heard."""
        return monotonic() < self._memory.lease_until

    def bind(self, engine: Engine) -> None:
        """Read through this engine; the Flask extension passes that of its sessions."""
        self._engine = engine

    def close(self) -> None:
        """Stop listening. Answers then live no longer than the floor time."""
        with self._lock:
            self._is_closed = True
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()

    def peek(self, reference: Reference) -> Answer | None:
        return self._memory.peek(reference)

    def find(self, reference: Reference) -> TenantRecord | None:
        answer = self._memory.peek(reference)
        return answer.tenant if answer is not None else self._find_once(reference)

    def _find_once(self, reference: Reference) -> TenantRecord | None:
        """Join the lookup of this reference that is under way, or make it."""
        with self._lock:
            self._listen()
            answer = self._memory.peek(reference)
            if answer is not None:
                return answer.tenant
            flight = self._flights.get(reference)
            leads = flight is None
            if flight is None:
                flight = self._flights[reference] = Future()
                self.lookups += 1
        if not leads:
            try:
                return flight.result(self._wait_s)
            except TimeoutError:
                raise _too_slow(self._wait_s) from None
        try:
            flight.set_result(self._look_up(reference))
        except DirectoryError as error:
            flight.set_exception(error)
        finally:
            with self._lock:
                del self._flights[reference]
            if not flight.done():
                flight.set_exception(_unanswered("the lookup was interrupted"))
        return flight.result()

    def _look_up(self, reference: Reference) -> TenantRecord | None:
        engine = self._require_engine()
        if not self._slots.acquire(timeout=self._wait_s):
            raise _too_slow(self._wait_s)
        try:
            asked_at, generation = monotonic(), self._memory.generation
            # In a context of its own: the caller's scope, if any, has no part in who is found.
            tenant = Context().run(self._fetch, engine, reference)
        except SQLAlchemyError as error:
            raise _unanswered(f"the lookup failed with {type(error).__name__}") from error
        finally:
            self._slots.release()
        self._memory.keep(reference, tenant, asked_at=asked_at, generation=generation)
        return tenant

    def _fetch(self, engine: Engine, reference: Reference) -> TenantRecord | None:
        with engine.connect() as connection:
            if reference.kind != "domain":
                return self._fetch_tenant(connection, reference.kind, reference.value)
            rows = self._lookup("tenant_by_domain").fetch(connection, reference.value)
            if len(rows) > 1:
                raise _unanswered("more than one tenant has verified the same domain")
            return self._fetch_tenant(connection, "id", str(rows[0].tenant_id)) if rows else None

    def _fetch_tenant(self, connection: Connection, kind: str, value: str) -> TenantRecord | None:
        rows = self._lookup(f"tenant_by_{kind}").fetch(connection, value)
        if not rows:
            return None
        columns = dict(rows[0]._mapping)
        own = {name: columns.pop(name) for name in ("slug", "name", "status")}
        return TenantRecord(id=columns.pop("tenant_id"), **own, extra=MappingProxyType(columns))

    def _lookup(self, name: str) -> Lookup:
        try:
            return self._lookups[name]
        except KeyError:
            raise ConfigurationError(
                f"the directory has no lookup {name!r}",
                hint="pass the model of custom domains: SQLDirectory(Tenant, domains=Domain)",
            ) from None

    def _require_engine(self) -> Engine:
        if self._engine is None:
            raise ConfigurationError(
                "the directory has no engine", hint="pass it to Tenancy(directory=...) or call bind(engine)"
            )
        return self._engine

    def _listen(self) -> None:
        if self._listener is None and not self._is_closed and self._engine is not None:
            self._listener = Listener(self._memory, opener(self._engine, self._listen_url))
            weakref.finalize(self, self._listener.stop)


def _too_slow(wait_s: float) -> DirectoryError:
    return _unanswered(f"no answer within {wait_s:g} s: too many lookups wait, or the database is slow")


def _unanswered(found: str) -> DirectoryError:
    return DirectoryError(
        f"the directory could not answer: {found}", hint="try again shortly; look at the database's load and log"
    )
