"""Start the server of a data folder, or join the one that runs; the last user's exit stops it."""

import fcntl
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from sqlalchemy.engine import URL

from tenancy.embedded.binaries import Binaries, Source, find_binaries
from tenancy.embedded.folder import POLL_S, DataFolder, Postmaster, try_lock
from tenancy.embedded.owner import Owner, choose_owner
from tenancy.embedded.server import ADMIN, Server
from tenancy.errors import ServerError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
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
OURS = {"listen_addresses", "port", "unix_socket_directories", "unix_socket_permissions", "hba_file", "data_directory"}

# The socket's folder is closed to everybody else, so whoever reaches it is the owner or root.
ACCESS_RULES = """\
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
"""


def start(data_dir: Path, *, settings: Mapping[str, str] | None = None, tcp_port: int | None = None) -> Server:
    """Start the server of this folder, or join the one that runs; its data stays there between runs.

    settings: of postgresql.conf, over ours; those of the process that starts the server hold until it stops.
    tcp_port: also listen on 127.0.0.1, with passwords only; 0 takes a free port; None means no TCP.
    The server stops when the last process that called this closes it, exits, crashes or is killed.
    Raises: ServerError - no usable programs, a cluster of another major version, or a failed start.
    """
    return start_from(None, data_dir, settings=settings, tcp_port=tcp_port)


def start_private(source: Source | None, *, settings: Mapping[str, str] | None = None) -> Server:
    """Start a server in a new temporary folder, removed when its last user is gone."""
    return start_from(source, Path(tempfile.mkdtemp(prefix="tenancy-")), settings=settings, remove_after=True)


def start_from(
    source: Source | None,
    data_dir: Path,
    *,
    settings: Mapping[str, str] | None = None,
    tcp_port: int | None = None,
    remove_after: bool = False,
) -> Server:
    """Do what `start` says with the programs of one source only."""
    chosen = dict(settings or {})
    if refused := sorted(OURS & chosen.keys()):
        raise ServerError(f"settings {refused} decide who can connect", hint="leave them out; tcp_port opens a port")
    folder = DataFolder(data_dir.resolve())
    with ExitStack() as undo:
        try:
            folder.root.mkdir(parents=True, exist_ok=True)
            if (folder.root / "PG_VERSION").exists():
                raise ServerError(
                    f"{str(folder.root)!r} is a bare PostgreSQL data directory, made by another tool",
                    hint="choose a new folder and restore a dump into it",
                )
            users_fd = folder.join_users()
            undo.callback(os.close, users_fd)
            with folder.starting():
                postmaster = _join(folder) or _Launch(folder, source, chosen, tcp_port, remove_after).run()
        except OSError as error:
            raise ServerError(
                f"data folder {str(folder.root)!r} cannot be used: {error}", hint="choose a folder you may write to"
            ) from error
        listens = postmaster.tcp_host not in ("", "*")
        if tcp_port is not None and not (listens and tcp_port in (0, postmaster.port)):
            raise ServerError(
                f"the server of {str(folder.root)!r} runs already, without TCP port {tcp_port}",
                hint="ask for the port in the process that starts the server",
            )
        undo.pop_all()
    return Server(
        _socket_url(folder.socket, postmaster.port),
        data_dir=folder.root,
        tcp_port=postmaster.port if listens else None,
        release=partial(_leave, folder, users_fd),
    )


def _socket_url(socket_folder: Path, port: int) -> URL:
    query = {"host": str(socket_folder.resolve()), "port": str(port)}
    return URL.create("postgresql+psycopg", username=ADMIN, database="postgres", query=query)


def _join(folder: DataFolder) -> Postmaster | None:
    """Wait for a server that is up or coming up; None when no process of one is left."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        lock_fd = folder.open_lock("server.lock")
        try:
            if try_lock(lock_fd, fcntl.LOCK_EX):
                return None
        finally:
            os.close(lock_fd)
        if postmaster := folder.postmaster():
            return postmaster
        if time.monotonic() > deadline:
            raise ServerError(
                f"the server of {str(folder.root)!r} runs but is not ready\n{folder.log_tail(0)}",
                hint="wait for its recovery, or end it",
            )
        time.sleep(POLL_S)


def _leave(folder: DataFolder, users_fd: int) -> None:
    """Give back our share; when it was the last, wait until the server has stopped."""
    os.close(users_fd)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while folder.root.exists() and time.monotonic() < deadline:
        with suppress(FileNotFoundError), ExitStack() as probes:
            server_fd = os.open(folder.root / "server.lock", os.O_RDWR)
            probes.callback(os.close, server_fd)
            users_fd = os.open(folder.root / "users.lock", os.O_RDWR)
            probes.callback(os.close, users_fd)
            if try_lock(server_fd, fcntl.LOCK_SH) and not (folder.root / ".private").exists():
                return
            if try_lock(users_fd, fcntl.LOCK_SH) and not try_lock(users_fd, fcntl.LOCK_EX):
                return  # others use the server
        time.sleep(POLL_S)


class _Launch:
    """One attempt to bring a server up; the caller holds the start lock and no server is alive."""

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
        self.owner: Owner = choose_owner(folder.cluster)
        self.binaries: Binaries = find_binaries(source, owner=self.owner, major=folder.major)
        self.log_start_bytes = 0

    def run(self) -> Postmaster:
        self._refuse_other_version()
        self._begin_log()
        with ExitStack() as closing, self.folder.log.open("ab") as log:
            if self.folder.major is None:
                self._initdb(log.fileno())
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
            alive_fd, guard_end_fd = os.pipe()
            for fd in (users_fd, server_fd, cluster_fd, socket_fd, alive_fd):
                closing.callback(os.close, fd)
            fcntl.flock(server_fd, fcntl.LOCK_EX)
            plan = {
                "command": self._command(cluster_fd, socket_fd),
                "popen": {"pass_fds": [server_fd, cluster_fd, socket_fd], **self.owner.popen_options()},
                "users_fd": users_fd,
                "remove": [str(socket_folder), *([str(self.folder.root)] if self.remove_after else [])],
                "remove_all": self.remove_after,
            }
            with subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", str(GUARD), json.dumps(plan)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment("C"),
                umask=0o077,
                pass_fds=(users_fd, server_fd, cluster_fd, socket_fd, guard_end_fd),
                start_new_session=True,  # Ctrl-C in the terminal reaches the app, which still needs its server
            ):
                os.close(guard_end_fd)
            return self._wait_until_ready(alive_fd)

    def _refuse_other_version(self) -> None:
        major = self.folder.major
        if major is not None and major != self.binaries.major:
            raise ServerError(
                f"the cluster in {str(self.folder.root)!r} was made by PostgreSQL {major}, "
                f"but the programs found are PostgreSQL {self.binaries.major}",
                hint=f"dump it with PostgreSQL {major} and restore it into a new folder, or remove the folder",
            )

    def _begin_log(self) -> None:
        log = self.folder.log
        if log.exists() and log.stat().st_size > LOG_KEPT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        self.log_start_bytes = log.stat().st_size if log.exists() else 0

    def _initdb(self, log_fd: int) -> None:
        """Make the cluster beside its place and move it there whole: a killed initdb leaves no half cluster."""
        unfinished = self.folder.root / "cluster.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        self.owner.make_folder(unfinished)
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if self.binaries.major >= 17 else []
        folder_fd = os.open(unfinished, os.O_RDONLY)
        try:
            answer = subprocess.run(  # noqa: S603
                [self.binaries.program("initdb"), "-D", self.owner.way_into(folder_fd, unfinished), *locale]
                + ["-E", "UTF8", "-U", ADMIN, "--auth=trust", "--no-sync", "--no-instructions"],
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
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
        rules = unfinished / "pg_hba.conf"
        rules.write_text(ACCESS_RULES)
        unfinished.rename(self.folder.cluster)

    def _make_socket_folder(self) -> Path:
        place = self.folder.socket
        if place.is_symlink():
            place.unlink()
        shutil.rmtree(place, ignore_errors=True)
        if len(os.fsencode(place / ".s.PGSQL.65535.lock")) <= SOCKET_PATH_BYTES:
            self.owner.make_folder(place)
            return place
        for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 (mkdtemp makes a closed folder in it)
            short = Path(tempfile.mkdtemp(prefix="tenancy-", dir=parent))
            if len(os.fsencode(short / ".s.PGSQL.65535.lock")) <= SOCKET_PATH_BYTES:
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
        tail = self.folder.log_tail(self.log_start_bytes)
        return ServerError(f"{what}; last lines of {str(self.folder.log)!r}:\n{tail}", hint="read the log's last lines")


def _environment(locale: str) -> dict[str, str]:
    """Pass on only what programs need: PGPORT and the like would change the server, secrets are not its business."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
    return {"LC_ALL": locale, **{name: os.environ[name] for name in kept if name in os.environ}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
