"""Readiness: whether this process could serve a request now. Asked often, by whoever sends requests here."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic, sleep

import psycopg
from sqlalchemy import Engine, MetaData, make_url, text

from app.observability.probes import Check, Finding, Probe, Prober, State
from tenancy.directory import Reference, SQLDirectory

_KEPT_S = 1.0
_LISTENER_WAIT_S = 0.5
_NOBODY = Reference("slug", "readiness-probe")
_DATABASE = "Look at the database, and at what lies between: APP_DATABASE_URL."
FIXES: Mapping[str, str] = {
    "database": _DATABASE,
    "platform": "See that the platform's role may sign in: APP_PLATFORM_DATABASE_URL.",
    "migrations": "Run the migrations of this release: python -m app migrate.",
    "listener": "Let LISTEN reach the database directly, past any pooler: APP_LISTEN_DATABASE_URL.",
}
# The catalogue may be read by everybody; alembic's own table by nobody who serves requests.
_COLUMNS = text(
    "SELECT c.relname || '.' || a.attname FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')"
)


@dataclass(frozen=True)
class Parts:
    """What a process needs to serve requests. metadata: of every table that its code reads."""

    engine: Engine
    platform_url: str
    directory: SQLDirectory
    metadata: MetaData


class Readiness:
    """Says whether the parts stand, from memory when asked again within a second: probes must be no load."""

    def __init__(self, parts: Parts, prober: Prober) -> None:
        self._parts = parts
        self._prober = prober
        self._lock = threading.Lock()
        self._kept: tuple[float, list[Check]] | None = None

    def checks(self) -> list[Check]:
        with self._lock:
            if self._kept is None or monotonic() - self._kept[0] >= _KEPT_S:
                self._kept = (monotonic(), self._prober.ask(self._probes(), fixes=FIXES))
            return self._kept[1]

    def _probes(self) -> dict[str, Probe]:
        return {
            "database": self._ask_database,
            "platform": self._sign_in_as_platform,
            "migrations": self._compare_schema,
            "listener": self._ask_listener,
        }

    def _ask_database(self) -> Finding:
        with self._parts.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        return Finding()

    def _sign_in_as_platform(self) -> Finding:
        """Sign in and leave: a platform scope would write a row of the audit at each probe."""
        url = make_url(self._parts.platform_url).set(drivername="postgresql").render_as_string(hide_password=False)
        timeout_s = max(2, int(self._prober.timeout_s))
        # tenancy: ignore[TEN403] it reads no row, and asks for nothing but to be let in
        psycopg.connect(url, connect_timeout=timeout_s, application_name="crm health").close()
        return Finding()

    def _compare_schema(self) -> Finding:
        """See that every column is there that this release reads and writes."""
        with self._parts.engine.connect() as connection:
            there = set(connection.execute(_COLUMNS).scalars())
        tables = self._parts.metadata.tables.values()
        wanted = {f"{table.name}.{column.name}" for table in tables for column in table.columns}
        missing = sorted(wanted - there)
        if not missing:
            return Finding()
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return Finding(State.DOWN, f"The database lacks {missing[0]}{more}.", FIXES["migrations"])

    def _ask_listener(self) -> Finding:
        """Without the listener requests are served well, at the price of a lookup a second for each tenant."""
        directory = self._parts.directory
        directory.find(_NOBODY)  # the first look for a tenant is what starts it
        until = monotonic() + min(_LISTENER_WAIT_S, self._prober.timeout_s / 2)
        while not directory.is_listening:
            if monotonic() >= until:
                said = "Changes of tenants are not heard of: each is looked up once a second."
                return Finding(State.DEGRADED, said, FIXES["listener"])
            sleep(0.02)
        return Finding()
