"""Start the server of a data folder, or join the one that runs; the last user's exit stops it."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from sqlalchemy.engine import URL

from tenancy.embedded.binaries import Source
from tenancy.embedded.cold_start import START_TIMEOUT_S, ColdStart
from tenancy.embedded.folder import POLL_S, DataFolder, Postmaster, try_lock
from tenancy.embedded.server import ADMIN, Server
from tenancy.errors import ServerError

STOP_TIMEOUT_S = 30.0
OURS = {"listen_addresses", "port", "unix_socket_directories", "unix_socket_permissions", "hba_file", "data_directory"}


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
    folder = Path(tempfile.mkdtemp(prefix="tenancy-"))
    try:
        return start_from(source, folder, settings=settings, remove_after=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


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
            folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (folder.root / "PG_VERSION").exists():
                raise ServerError(
                    f"{str(folder.root)!r} is a bare PostgreSQL data directory, made by another tool",
                    hint="choose a new folder and restore a dump into it",
                )
            users_fd = folder.join_users()
            undo.callback(os.close, users_fd)
            with folder.starting():
                postmaster = _join(folder) or ColdStart(folder, source, chosen, tcp_port, remove_after).run()
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
                f"the server of {str(folder.root)!r} runs but is not ready\n{folder.log_tail()}",
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
            if try_lock(server_fd, fcntl.LOCK_SH):
                return  # the guard keeps this lock until it has removed what it should
            if not try_lock(users_fd, fcntl.LOCK_EX) and try_lock(users_fd, fcntl.LOCK_SH):
                return  # others use the server
        time.sleep(POLL_S)
