"""What lies in a data folder, and the locks in it that tell who is alive."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tenancy.errors import ServerError

POLL_S = 0.002
LOCK_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Postmaster:
    """What a ready server wrote into its postmaster.pid."""

    pid: int
    port: int
    tcp_host: str


@dataclass(frozen=True)
class DataFolder:
    """The layout of one data folder.

    cluster/       PostgreSQL's own data directory
    socket         folder of the unix socket, or a link to one where the path would be too long
    server.log     what the server and initdb wrote
    users.lock     shared: by each process that uses the server; exclusive: by the guard while it stops it
    start.lock     exclusive: by the one process that starts the server
    server.lock    exclusive: by the guard and every process of the server, inherited; free = all of them are gone
    """

    root: Path

    @property
    def cluster(self) -> Path:
        return self.root / "cluster"

    @property
    def socket(self) -> Path:
        return self.root / "socket"

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    @property
    def major(self) -> int | None:
        """Major version that made the cluster; None without one."""
        try:
            return int((self.cluster / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None

    def postmaster(self) -> Postmaster | None:
        """Read what a ready server says of itself; None while it starts, stops or is not there."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 8 or lines[7].strip() != "ready":
            return None
        return Postmaster(pid=int(lines[0]), port=int(lines[3]), tcp_host=lines[5].strip())

    def log_tail(self) -> str:
        try:
            with self.log.open("rb") as log:
                return last_lines(log)
        except FileNotFoundError:
            return ""

    def open_lock(self, name: str) -> int:
        return os.open(self.root / name, os.O_RDWR | os.O_CREAT, 0o600)

    def join_users(self) -> int:
        """Take a share of the users' lock; closing the returned descriptor gives it back."""
        return self._take("users.lock", fcntl.LOCK_SH, "its server is still stopping")

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Be the only process that starts this folder's server."""
        lock_fd = self._take("start.lock", fcntl.LOCK_EX, "another process is still starting its server")
        try:
            yield
        finally:
            os.close(lock_fd)

    def _take(self, name: str, kind: int, busy: str) -> int:
        lock_fd = self.open_lock(name)
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while not try_lock(lock_fd, kind):
            if time.monotonic() > deadline:
                os.close(lock_fd)
                raise ServerError(
                    f"data folder {str(self.root)!r} is busy: {busy}\n{self.log_tail()}",
                    hint="wait for the other process, or end it",
                )
            time.sleep(POLL_S)
        return lock_fd


def last_lines(log: BinaryIO, *, lines: int = 15) -> str:
    return b"\n".join(log.read().splitlines()[-lines:]).decode(errors="replace")


def try_lock(lock_fd: int, kind: int) -> bool:
    try:
        fcntl.flock(lock_fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
