"""The directory: which tenant a reference names. Cached, and told by the database when a tenant changes."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable
from uuid import UUID

import psycopg
from sqlalchemy import CheckConstraint, Connection, DateTime, Engine, Index, Table, Text, UniqueConstraint, Uuid, event
from sqlalchemy import func as sql
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Mapper, class_mapper, mapped_column
from uuid_utils.compat import uuid7

from tenancy.errors import ConfigurationError, DirectoryError
from tenancy.lookups import Lookup, declare_lookup, lookups_of
from tenancy.tables import registry_table

log = logging.getLogger(__name__)

CHANNEL = "tenancy_tenant"
STATUSES = ("pending", "active", "suspended", "archived", "deleting", "deleted")


# What is asked and answered ---------------------------------------------------------------------------


class Reference(NamedTuple):
    """What a request calls a tenant by; `value` is already in its one canonical spelling."""

    kind: Literal["id", "slug", "domain"]
    value: str


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant as the directory last read it; a snapshot, so it never touches a session.

    extra: the columns named in the model's `__directory_columns__`.
    """

    id: UUID
    slug: str
    name: str
    status: str
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


class Answer(NamedTuple):
    """A remembered answer; `tenant` is None when nobody is known by the reference. Times are monotonic."""

    tenant: TenantRecord | None
    loaded_at: float
    expires_at: float


@runtime_checkable
class Directory(Protocol):
    """Turns references into tenants."""

    def peek(self, reference: Reference) -> Answer | None:
        """Return the remembered answer, without I/O or waiting; None when it must be looked up."""
        ...

    def find(self, reference: Reference) -> TenantRecord | None:
        """Return the tenant, whatever its status; None when nobody is known by the reference.

        Raises: DirectoryError - no answer could be had; never to be taken for "unknown".
        """
        ...


# The models it reads ----------------------------------------------------------------------------------


class TenantMixin:
    """Columns of the table of tenants. A new tenant is `pending`, and so closed, until someone activates it.

    The key column is called `tenant_id`, so that a tenant sees its own row by the same policy as
    everywhere. `__directory_columns__` names further columns the directory should return.
    """

    __directory_columns__: tuple[str, ...] = ()

    id: Mapped[UUID] = mapped_column("tenant_id", Uuid, primary_key=True, default=uuid7, sort_order=-20)
    slug: Mapped[str] = mapped_column(
        Text,
        CheckConstraint(
            """slug COLLATE "C" ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND slug ~ '[a-z]' AND length(slug) <= 63""",
            name="slug_syntax",
        ),
        unique=True,
    )
    name: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(
        Text,
        CheckConstraint(f"status IN ({', '.join(map(repr, STATUSES))})", name="status_known"),
        default="pending",
        server_default="pending",
    )
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=sql.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=sql.now(), onupdate=sql.now())


class DomainMixin:
    """Columns of a tenant table of custom domains. Only a row with `verified_at` ever answers.

    A domain may be claimed by many tenants, and verified by one.
    """

    domain: Mapped[str] = mapped_column(Text)
    verified_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


@event.listens_for(TenantMixin, "instrument_class", propagate=True)
def _declare_registry(mapper: Mapper[Any], model: type[TenantMixin]) -> None:
    table = _table_of(mapper)
    registry_table(app_update=("name", "updated_at"))(table)
    returns = ("tenant_id", "slug", "name", "status", *model.__directory_columns__)
    declare_lookup(table.metadata, Lookup("tenant_by_id", table.name, "tenant_id", returns, key_type="uuid"))
    declare_lookup(table.metadata, Lookup("tenant_by_slug", table.name, "slug", returns))


@event.listens_for(DomainMixin, "instrument_class", propagate=True)
def _declare_domains(mapper: Mapper[Any], _model: type[DomainMixin]) -> None:
    table = _table_of(mapper)
    table.append_constraint(UniqueConstraint(table.c.tenant_id, table.c.domain))
    Index(
        f"{table.name}_verified_domain_key",
        table.c.domain,
        unique=True,
        postgresql_where=table.c.verified_at.is_not(None),
        info={"across_tenants": True},
    )
    declare_lookup(
        table.metadata,
        Lookup("tenant_by_domain", table.name, "domain", ("tenant_id",), requires=("verified_at",)),
    )


def _table_of(mapper: Mapper[Any]) -> Table:
    return cast("Table", mapper.local_table)


# What is remembered -----------------------------------------------------------------------------------


class _Memory:
    """Answers with an end. Reading takes no lock; every change does.

    While the listener holds a lease, the database is known to be telling us of changes and an answer
    lives its full time; without one it lives `floor_ttl_s`. `generation` counts invalidations: what was
    read before one must not be remembered after it.
    """

    def __init__(self, *, ttl_s: float, negative_ttl_s: float, floor_ttl_s: float, max_entries: int) -> None:
        self.floor_ttl_s = floor_ttl_s
        self._ttl_s = ttl_s
        self._negative_ttl_s = negative_ttl_s
        self._max_entries = max_entries
        self.reset()

    def reset(self) -> None:
        """Forget everything, locks included: the state a forked child starts from."""
        self._lock = threading.Lock()
        # Apart, so that a scan of made-up names cannot push out tenants that exist.
        self._known: dict[Reference, Answer] = {}
        self._unknown: dict[Reference, Answer] = {}
        self.generation = 0
        self.lease_until = 0.0

    def peek(self, reference: Reference) -> Answer | None:
        answer = self._known.get(reference) or self._unknown.get(reference)
        if answer is None:
            return None
        now = monotonic()
        if now >= answer.expires_at or (now >= answer.loaded_at + self.floor_ttl_s and now >= self.lease_until):
            return None
        return answer

    def keep(self, reference: Reference, tenant: TenantRecord | None, *, asked_at: float, generation: int) -> None:
        with self._lock:
            if generation != self.generation:
                return
            if tenant is None:
                self._put(self._unknown, reference, Answer(None, asked_at, asked_at + self._negative_ttl_s))
                return
            answer = Answer(tenant, asked_at, asked_at + self._ttl_s)
            for name in {reference, Reference("id", str(tenant.id)), Reference("slug", tenant.slug)}:
                self._unknown.pop(name, None)
                self._put(self._known, name, answer)

    def _put(self, answers: dict[Reference, Answer], reference: Reference, answer: Answer) -> None:
        answers.pop(reference, None)
        while len(answers) >= self._max_entries:
            del answers[next(iter(answers))]
        answers[reference] = answer

    def forget(self, tenant_id: str) -> None:
        """Drop the tenant's answers, and every "unknown": one of them may name it now."""
        with self._lock:
            self.generation += 1
            self._unknown = {}
            self._known = {name: a for name, a in self._known.items() if a.tenant and str(a.tenant.id) != tenant_id}

    def forget_all(self) -> None:
        with self._lock:
            self.generation += 1
            self._known = {}
            self._unknown = {}


class _Listener:
    """The thread that hears from the database which tenant changed, on a connection of its own."""

    def __init__(self, memory: _Memory, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self._memory = memory
        self._connect = connect
        self._stopping = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._run, name="tenancy-directory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's socket without saying a word on it."""
        connection = self._connection
        if connection is not None and not connection.closed:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, connection.fileno())
            os.close(nowhere)
            _abandoned.append(connection)

    def _run(self) -> None:
        pause_s = 0.1
        while not self._stopping.is_set():
            try:
                with self._connect() as self._connection:
                    self._listen(self._connection)
            except (psycopg.Error, OSError) as error:
                # Without a lease answers live the floor time: staying up without a listener is by design.
                log.warning("directory.listener_down", extra={"reason": str(error)})
                self._stopping.wait(pause_s)
                pause_s = min(pause_s * 2, 5.0)
            finally:
                self._memory.lease_until = 0.0
                self._connection = None

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        beat_s = min(self._memory.floor_ttl_s / 3, 0.3)  # also how long stop() waits
        connection.execute(f"LISTEN {CHANNEL}")
        self._memory.forget_all()
        while not self._stopping.is_set():
            asked_at = monotonic()
            row = connection.execute("SELECT pg_backend_pid(), pg_listening_channels()").fetchone()
            if row != (connection.info.backend_pid, CHANNEL):
                # A transaction pooler accepts LISTEN and then delivers nothing.
                raise psycopg.OperationalError("the listening connection is not a direct one")
            self._memory.lease_until = asked_at + self._memory.floor_ttl_s
            for notice in connection.notifies(timeout=beat_s):
                self._memory.forget(notice.payload)
                if self._stopping.is_set():
                    return


# Connections of a parent process. Collecting one would warn, and there is nothing right to do with it.
_abandoned: list[psycopg.Connection[Any]] = []


# The directory ----------------------------------------------------------------------------------------


class SQLDirectory:
    """Finds tenants through the exact-key lookup functions, at most once per reference and change.

    ttl_s, negative_ttl_s: how long a tenant, and an "unknown", are remembered while changes are heard.
    floor_ttl_s: how long anything is remembered while they are not.
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
        tables = [_table_of(class_mapper(model, configure=False)) for model in models]
        self._lookups = {
            lookup.name: lookup
            for table in tables
            for lookup in lookups_of(table.metadata)
            if lookup.table == table.name
        }
        self._memory = _Memory(
            ttl_s=ttl_s, negative_ttl_s=negative_ttl_s, floor_ttl_s=floor_ttl_s, max_entries=max_entries
        )
        self._max_lookups = max_lookups
        self._wait_s = wait_s
        self._listen_url = listen_url
        self._engine: Engine | None = None
        self._is_closed = False
        self._become_ready()
        forked = weakref.WeakMethod(self._forked)
        os.register_at_fork(after_in_child=lambda: (restart := forked()) and restart())

    def _become_ready(self) -> None:
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(self._max_lookups)
        self._flights: dict[Reference, Future[TenantRecord | None]] = {}
        self._listener: _Listener | None = None

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
            self._listener = _Listener(self._memory, _opener(self._engine, self._listen_url))
            weakref.finalize(self, self._listener.stop)


def _opener(engine: Engine, url: str | None) -> Callable[[], psycopg.Connection[Any]]:
    options: dict[str, Any] = {
        "autocommit": True,
        "application_name": "tenancy directory",
        "connect_timeout": 5,
        "tcp_user_timeout": 5000,
    }
    if url is not None:
        conninfo = url.replace("postgresql+psycopg://", "postgresql://", 1)
    else:
        conninfo = ""
        options = {**engine.dialect.create_connect_args(engine.url)[1], **options}
    return lambda: psycopg.connect(conninfo, **options)


def _too_slow(wait_s: float) -> DirectoryError:
    return _unanswered(f"no answer within {wait_s:g} s: too many lookups wait, or the database is slow")


def _unanswered(found: str) -> DirectoryError:
    return DirectoryError(
        f"the directory could not answer: {found}", hint="try again shortly; look at the database's load and log"
    )
