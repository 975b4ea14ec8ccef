"""The buffer between requests and the ledger: adding to it costs a lock and some additions, and no statement.

A thread writes what came together every few seconds, or sooner when there is much of it. A clean stop writes the rest.
A process that is killed loses what it has not written: at most `flush_s` seconds of it, and `MOST_REQUESTS` requests.
While the database is away everything is kept and written later, up to a bound.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import cast
from uuid import UUID, uuid4

from sqlalchemy import Float, Table, bindparam, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from app.db import Database
from app.tenants.models import Tenant
from app.tenants.states import Status
from app.usage.models import UsageRecord
from tenancy.context import outside_any_scope, tenant_scope
from tenancy.tables import TENANT_KEY, new_id

log = logging.getLogger(__name__)

MOST_REQUESTS = 10_000
_MOST_KEPT = 10_000
_ERASED = (Status.DELETING, Status.DELETED)
_RECORDS = cast("Table", UsageRecord.__table__)


@dataclass
class Batch:
    """What one tenant used since the last one. key: under which the ledger keeps it, however often it is sent."""

    key: str
    since: float
    amounts: dict[str, int]


class UsageBuffer:
    """Adds up what tenants use in this process, and writes it to the ledger. flush_s: how often."""

    def __init__(self, database: Database, *, flush_s: float) -> None:
        self._database = database
        self._flush_s = flush_s
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._kept: list[tuple[UUID, Batch]] = []
        self._begin()

    def _begin(self) -> None:
        """Begin as a process of its own; a forked one inherits what its parent will write."""
        self._process = os.getpid()
        self._name = uuid4().hex
        self._number = 0
        self._requests = 0
        self._open: dict[UUID, Batch] = {}
        self._is_closed = False

    def add(self, tenant_id: UUID, amounts: Mapping[str, int]) -> None:
        """Add what one request used."""
        with self._lock:
            if self._process != os.getpid():
                self._begin()
                self._thread, self._kept = None, []
            batch = self._open.get(tenant_id)
            if batch is None:
                self._number += 1
                batch = self._open[tenant_id] = Batch(f"{self._name}-{self._number}", monotonic(), {})
            mine = batch.amounts
            for meter, amount in amounts.items():
                mine[meter] = mine.get(meter, 0) + amount
            self._requests += 1
            if self._thread is None and not self._is_closed:
                self._start()
            if self._requests >= MOST_REQUESTS:
                self._wake.set()

    def flush(self) -> None:
        """Write everything that was added; what cannot be written is kept for the next time."""
        with self._writing:
            with self._lock:
                self._kept += self._open.items()
                self._open, self._requests = {}, 0
            unwritten = []
            for tenant_id, batch in self._kept:
                try:
                    self._write(tenant_id, batch)
                except Exception as error:  # noqa: BLE001 - whatever it is, the batch is kept and tried again
                    log.error("usage.not_written", extra={"tenant": str(tenant_id), "error": repr(error)[:200]})
                    unwritten.append((tenant_id, batch))
            lost = unwritten[:-_MOST_KEPT]
            if lost:
                log.error("usage.lost", extra={"batches": len(lost)})
            self._kept = unwritten[-_MOST_KEPT:]

    def close(self) -> None:
        """Stop the thread, and write what is left."""
        self._is_closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and self._process == os.getpid() and thread is not threading.current_thread():
            thread.join(timeout=10)
        atexit.unregister(self.close)
        if self._process == os.getpid():
            self.flush()

    def _start(self) -> None:
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _run(self) -> None:
        while not self._is_closed:
            self._wake.wait(self._flush_s)
            self._wake.clear()
            if not self._is_closed:
                self.flush()

    def _write(self, tenant_id: UUID, batch: Batch) -> None:
        """Write one batch, once: by its key a repetition is known, and by its age when it began."""
        age_s = literal(monotonic() - batch.since, Float)
        row = select(
            Tenant.id,
            literal(new_id()),
            literal(batch.key),
            func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, age_s),
            bindparam("amounts", batch.amounts, JSONB),
            # Nothing is added to a tenant that is being erased, or was.
        ).where(Tenant.id == tenant_id, Tenant.status.not_in(_ERASED))
        columns = [TENANT_KEY, "id", "key", "at", "amounts"]
        record = insert(_RECORDS).from_select(columns, row, include_defaults=False)
        with outside_any_scope(), tenant_scope(tenant_id), self._database.sessions.begin() as session:
            session.execute(record.on_conflict_do_nothing(index_elements=[TENANT_KEY, "key"]))
