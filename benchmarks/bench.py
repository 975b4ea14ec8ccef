"""The server of one run: its own databases, roles that can be reached by socket and by TCP, and one core each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from benchmarks.delay_line import DelayLine
from tenancy.embedded import Server, start
from tenancy.rls import Roles, bootstrap_sql, install_sql

ROLES = Roles()
PASSWORD = "bench-only"
# Commits wait for no disk: its speed, the same for all, would only hide the differences. Nothing else runs beside.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "max_parallel_workers_per_gather": "0",
    "max_connections": "200",
}
Connection = psycopg.Connection[Any]


class Bench:
    """One run's server, and what parts share. scale: of rounds and budgets; below 1 for a rehearsal."""

    def __init__(self, server: Server, folder: Path, *, cache: Path, scale: float = 1.0) -> None:
        self.server, self.folder, self.cache, self.scale = server, folder, cache, scale
        self.cores = sorted(os.sched_getaffinity(0))
        self._built: dict[str, Any] = {}

    def budget(self, seconds: float) -> float:
        return seconds * self.scale

    def rounds(self, wanted: int) -> int:
        return max(4, int(wanted * self.scale))

    def built(self, name: str, build: Callable[[Bench, str], Any]) -> Any:
        """Return what `build` made of a new database of this name; built once a run, whoever asks first."""
        if name not in self._built:
            with self.server.connect() as admin:
                admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
            self._built[name] = build(self, name)
        return self._built[name]

    def admin(self, database: str) -> Connection:
        """Open a superuser's connection in autocommit."""
        return self.server.connect(database=database)

    def socket_url(self, role: str, database: str) -> str:
        return self.server.url(role=role, database=database)

    def connect(self, role: str, database: str) -> Connection:
        """Open a plain driver connection as a role, by the socket."""
        url = make_url(self.socket_url(role, database)).set(drivername="postgresql")
        return psycopg.connect(url.render_as_string(hide_password=False))

    def login(self, role: str) -> None:
        """Make sure that a role exists, and that it can come in by TCP."""
        with self.server.connect() as admin:
            if admin.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
                admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        self.server.set_password(role, PASSWORD)

    @contextmanager
    def delayed(self, delay_s: float) -> Iterator[DelayLine]:
        """Put a delay line in front of the server's TCP port."""
        port = int(self.server.tcp_port or 0)
        with DelayLine(("127.0.0.1", port), delay_s=delay_s) as line:
            yield line

    def tcp_url(self, role: str, database: str, port: int | None = None) -> str:
        """Give the URL through 127.0.0.1; port: of a delay line, None for the server's own."""
        url = make_url(self.server.tcp_url(role=role, database=database))
        return url.set(port=port or url.port).render_as_string(hide_password=False)

    def prepare(self, database: str) -> None:
        """Create the library's roles and its schema in a database."""
        with self.admin(database) as admin:
            send(admin, bootstrap_sql(ROLES, database))
            with as_owner(admin):
                send(admin, install_sql(ROLES))


def send(connection: Connection, statements: list[str]) -> None:
    for statement in statements:
        connection.execute(statement.encode())


@contextmanager
def as_owner(admin: Connection) -> Iterator[None]:
    """Act as the owner role for one transaction of a superuser's connection."""
    with admin.transaction():
        admin.execute(f"SET LOCAL ROLE {ROLES.owner}".encode())
        yield


def pin(server: Server) -> None:
    """Give the server one core and this process another: a backend that changes cores changes the figures by half."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1 and server.data_dir is not None:
        postmaster = int((server.data_dir / "cluster" / "postmaster.pid").read_text().split()[0])
        os.sched_setaffinity(postmaster, {cores[1]})
        os.sched_setaffinity(0, {cores[0]})


@contextmanager
def opened(folder: Path, *, cache: Path, scale: float = 1.0) -> Iterator[Bench]:
    """Start the server of a run, pinned, and stop it afterwards. cache: where the rivals' environments are kept."""
    with ExitStack() as stack:
        server = stack.enter_context(start(folder / "pg", settings=SETTINGS, tcp_port=0))
        everything = os.sched_getaffinity(0)
        stack.callback(os.sched_setaffinity, 0, everything)
        bench = Bench(server, folder, cache=cache, scale=scale)
        pin(server)
        yield bench
