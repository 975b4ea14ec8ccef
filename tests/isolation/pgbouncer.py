"""PgBouncer as a process of the tests' own, in front of one server, ended with whatever started it."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psycopg
import pytest
from sqlalchemy import make_url

from tenancy.embedded.owner import choose_owner
from tests.conftest import ROLES, Database

PoolMode = Literal["session", "transaction", "statement"]
PORT = 6432  # of the socket only: there is no TCP
START_TIMEOUT_S = 15.0
PR_SET_PDEATHSIG = 1
INSTALL = "apt-get -qq update && apt-get -qq install -y pgbouncer"


def find_program() -> str:
    """Return the path of pgbouncer; install it if that takes no question to anybody.

    Where it cannot be had the test is skipped, and says so; in CI it fails, as a proof that is not run proves nothing.
    """
    if os.geteuid() == 0 and _which() is None and shutil.which("apt-get"):
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["sh", "-c", INSTALL], env=quiet, capture_output=True, check=False, timeout=200)
    program = _which()
    if program is None:
        missing = f"T073 AND T074 ARE NOT PROVEN HERE: pgbouncer is missing; as root: {INSTALL}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return program


def _which() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class PgBouncer:
    """A pooler on a unix socket that nobody else can reach. `servers`: connections to the server, for each role."""

    def __init__(self, database: Database, mode: PoolMode, *, servers: int = 1) -> None:
        self._program = find_program()
        self._target = make_url(database.url("postgres"))
        self._mode, self._servers = mode, servers
        self._owner = choose_owner(Path(os.devnull, "nothing"))  # it refuses to run as root, like the server
        # Not in pytest's folder: that one is closed to the user it runs as, and too long a path for a socket.
        self.folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, role: str) -> str:
        query = {"host": str(self.folder), "port": str(PORT), "sslmode": "disable", "gssencmode": "disable"}
        return self._target._replace(username=role, query=query).render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        try:
            self._start()
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def server_pids(self) -> list[int]:
        """The server's processes that the pooler holds for the app role, as its console tells them."""
        return [row["remote_pid"] for row in self._show("SERVERS") if row["user"] == ROLES.app]

    def _show(self, what: str) -> list[dict[str, Any]]:
        console = make_url(self.url("postgres")).set(drivername="postgresql", database="pgbouncer")
        with psycopg.connect(console.render_as_string(hide_password=False), autocommit=True) as connection:
            # The console knows the simple protocol only, which psycopg's ClientCursor speaks.
            cursor = psycopg.ClientCursor(connection, row_factory=psycopg.rows.dict_row)
            return list(cursor.execute(f"SHOW {what}".encode()))

    def _start(self) -> None:
        if self._owner.is_other:
            os.chown(self.folder, self._owner.uid, self._owner.gid)
        host = str(self._target.query.get("host", self._target.host))
        is_folder = host.startswith("/")
        with open(self.folder / "pgbouncer.log", "wb") as log:
            folder_fd = os.open(host if is_folder else self.folder, os.O_RDONLY)
            try:
                self._configure(self._owner.way_into(folder_fd, Path(host)) if is_folder else host)
                self._process = subprocess.Popen(
                    [self._program, str(self.folder / "pgbouncer.ini")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    pass_fds=(folder_fd,),
                    preexec_fn=_die_with_parent,
                    **self._owner.popen_options(),
                )
            finally:
                os.close(folder_fd)

    def _configure(self, host: str) -> None:
        users = ("postgres", ROLES.app, ROLES.platform, ROLES.migrator)
        (self.folder / "users.txt").write_text("".join(f'"{name}" ""\n' for name in users))
        self._write_settings(
            {
                "listen_addr": "",
                "listen_port": PORT,
                "unix_socket_dir": self.folder,
                "auth_type": "trust",  # the folder is closed: whoever reaches the socket is the owner or root
                "auth_file": self.folder / "users.txt",
                "admin_users": "postgres",
                "pool_mode": self._mode,
                "default_pool_size": self._servers,
                "server_lifetime": 3600,
            },
            f"* = host={host} port={self._target.query.get('port', self._target.port or 5432)}",
        )

    def _write_settings(self, settings: dict[str, object], database: str) -> None:
        lines: Iterable[str] = (f"{name} = {value}" for name, value in settings.items())
        (self.folder / "pgbouncer.ini").write_text("\n".join(["[databases]", database, "[pgbouncer]", *lines, ""]))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self._show("VERSION")
            except psycopg.OperationalError as error:
                gone = self._process is not None and self._process.poll() is not None
                if gone or time.monotonic() > deadline:
                    log = (self.folder / "pgbouncer.log").read_text(errors="replace")
                    raise AssertionError(f"pgbouncer did not start: {error}\n{log}") from error
                time.sleep(0.02)
            else:
                return


def _die_with_parent() -> None:
    """Let the kernel end the pooler when the tests are killed and no `finally` runs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
