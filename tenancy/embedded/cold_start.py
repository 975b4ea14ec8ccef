"""Bring a server up where none is alive: make its cluster, hand it to a guard, wait until it is ready."""

import fcntl
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, TypedDict

from tenancy.embedded.binaries import Source, find_binaries
from tenancy.embedded.folder import POLL_S, DataFolder, Postmaster, last_lines
from tenancy.embedded.owner import PopenOptions, choose_owner
from tenancy.embedded.server import ADMIN
from tenancy.embedded.versions import check_version
from tenancy.errors import ServerError

START_TIMEOUT_S = 60.0
LOG_KEPT_BYTES = 5_000_000
SOCKET_PATH_BYTES = 100  # the kernel allows 108 on Linux, 104 on macOS, a final zero included
DEFAULT_PORT = 5432
GUARD = Path(__file__).with_name("guard.py")

SETTINGS = {
    "max_connections": "200",
    "max_locks_per_transaction": "256",  # a schema with many partitions is created in one transaction
    "max_wal_senders": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "password_encryption": "scram-sha-256",
}

# The socket's folder is closed to everybody else, so whoever reaches it is the owner or root: they are trusted.
ACCESS = ("--auth-local=trust", "--auth-host=scram-sha-256")
INITDB = ("-E", "UTF8", "-U", ADMIN, *ACCESS, "--no-sync", "--no-instructions")


class Plan(TypedDict):
    """What the guard is told, as JSON."""

    command: list[str]
    command_fds: list[int]
    command_user: PopenOptions
    users_fd: int
    discard_data: bool
    remove: list[str]


class ColdStart:
    """One attempt; the caller holds the start lock and has seen that no process of the server is alive."""

    def __init__(
        self,
        folder: DataFolder,
        source: Source | None,
        settings: dict[str, str],
        tcp_port: int | None,
        remove_after: bool,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.tcp_port = tcp_port
        self.remove_after = remove_after
        self.owner = choose_owner(folder.cluster)
        self.binaries = find_binaries(source, owner=self.owner, major=folder.major)

    def run(self) -> Postmaster:
        self._refuse_other_version()
        check_version(self.binaries.major, self.binaries.minor, where=str(self.binaries.folder))
        with ExitStack() as closing, _open_log(self.folder.log) as self.log:
            self.log_start_bytes = self.log.tell()
            if self.folder.major is None:
                self._initdb()
            # No process of the server is alive, so the number in a stale file is somebody else's by now:
            # left there, PostgreSQL would refuse to start as long as that somebody runs.
            (self.folder.cluster / "postmaster.pid").unlink(missing_ok=True)
            socket_folder = self._make_socket_folder()
            users_fd, server_fd, cluster_fd, socket_fd = (
                self.folder.open_lock("users.lock"),
                self.folder.open_lock("server.lock"),
                os.open(self.folder.cluster, os.O_RDONLY),
                os.open(socket_folder, os.O_RDONLY),
            )
            alive_fd, guards_end_fd = os.pipe()
            for fd in (users_fd, server_fd, cluster_fd, socket_fd, alive_fd):
                closing.callback(os.close, fd)
            fcntl.flock(server_fd, fcntl.LOCK_EX)
            plan: Plan = {
                "command": self._command(cluster_fd, socket_fd),
                "command_fds": [server_fd, cluster_fd, socket_fd],
                "command_user": self.owner.popen_options(),
                "users_fd": users_fd,
                "remove": [str(socket_folder), *([str(self.folder.root)] if self.remove_after else [])],
                "discard_data": self.remove_after,
            }
            with subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), json.dumps(plan)],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                cwd="/",
                env=_environment("C"),
                umask=0o077,
                pass_fds=(users_fd, server_fd, cluster_fd, socket_fd, guards_end_fd),
                start_new_session=True,  # Ctrl-C in the terminal reaches the app, which still needs its server
            ):
                os.close(guards_end_fd)
            return self._wait_until_ready(alive_fd)

    def _refuse_other_version(self) -> None:
        major = self.folder.major
        if major is not None and major != self.binaries.major:
            raise ServerError(
                f"the cluster in {str(self.folder.root)!r} was made by PostgreSQL {major}, "
                f"but the programs found are PostgreSQL {self.binaries.major}",
                hint=f"dump it with PostgreSQL {major} and restore it into a new folder, or remove the folder",
            )

    def _initdb(self) -> None:
        """Make the cluster beside its place and move it there whole: a killed initdb leaves no half cluster."""
        unfinished = self.folder.root / "cluster.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        self.owner.make_folder(unfinished)
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if self.binaries.major >= 17 else []
        folder_fd = os.open(unfinished, os.O_RDONLY)
        try:
            answer = subprocess.run(
                [self.binaries.program("initdb"), "-D", self.owner.way_into(folder_fd, unfinished), *locale, *INITDB],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                check=False,
                cwd="/",
                env=_environment("C" if locale else "C.UTF-8"),
                pass_fds=(folder_fd,),
                **self.owner.popen_options(),
            )
        finally:
            os.close(folder_fd)
        if answer.returncode != 0:
            raise self._failure("initdb failed")
        unfinished.rename(self.folder.cluster)

    def _make_socket_folder(self) -> Path:
        place = self.folder.socket
        if place.is_symlink():
            place.unlink()
        shutil.rmtree(place, ignore_errors=True)
        if _is_usable(place):
            self.owner.make_folder(place)
            return place
        for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 (mkdtemp makes a closed folder in it)
            short = Path(tempfile.mkdtemp(prefix="tenancy-", dir=parent))
            if _is_usable(short):
                break
            short.rmdir()
        if self.owner.is_other:
            os.chown(short, self.owner.uid, self.owner.gid)
        place.symlink_to(short)
        return short

    def _command(self, cluster_fd: int, socket_fd: int) -> list[str]:
        settings = {
            **SETTINGS,
            **self.settings,
            "listen_addresses": "" if self.tcp_port is None else "127.0.0.1",
            "port": str(_free_port() if self.tcp_port == 0 else self.tcp_port or DEFAULT_PORT),
            "unix_socket_directories": self.owner.way_into(socket_fd, self.folder.socket.resolve()),
            "unix_socket_permissions": "0700",
        }
        cluster = self.owner.way_into(cluster_fd, self.folder.cluster)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self.binaries.program("postgres"), "-D", cluster, *options]

    def _wait_until_ready(self, alive_fd: int) -> Postmaster:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if postmaster := self.folder.postmaster():
                return postmaster
            gone, _, _ = select.select([alive_fd], [], [], POLL_S)
            if gone:  # end of file: the guard has ended, and so the server
                raise self._failure("the server ended while it started")
        raise self._failure(f"the server was not ready after {START_TIMEOUT_S:.0f} s")

    def _failure(self, what: str) -> ServerError:
        # From the open file: the guard of a private folder has removed its name by now.
        self.log.seek(self.log_start_bytes)
        tail = last_lines(self.log)
        return ServerError(f"{what}; last lines of {str(self.folder.log)!r}:\n{tail}", hint="read the log's last lines")


def _environment(locale: str) -> dict[str, str]:
    """Pass on only what programs need: PGPORT and the like would change the server, secrets are not its business."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
    return {"LC_ALL": locale, **{name: os.environ[name] for name in kept if name in os.environ}}


def _is_usable(socket_folder: Path) -> bool:
    """Tell whether every client can name the folder: a short path of letters that no URL or list escapes."""
    is_short = len(os.fsencode(socket_folder / ".s.PGSQL.65535.lock")) <= SOCKET_PATH_BYTES
    return is_short and re.fullmatch(r"[\w./-]+", str(socket_folder), re.ASCII) is not None


def _open_log(path: Path) -> BinaryIO:
    if path.exists() and path.stat().st_size > LOG_KEPT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return open(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+b")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
