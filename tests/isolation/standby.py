"""A primary and its streaming standby, as processes of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import make_url
from uuid_utils.compat import uuid7

from tenancy.embedded import Server, start
from tenancy.embedded.binaries import find_binaries
from tenancy.embedded.owner import choose_owner
from tests.conftest import FAST, Database, bootstrap

REPLAY_TIMEOUT_S = 20.0
# What is committed is in the log at once, or "everything written so far" would not be what was committed.
SETTINGS = FAST | {"synchronous_commit": "on", "max_wal_senders": "4"}
FOLLOWING = SETTINGS | {"hot_standby": "on"}
REPLICATOR = "standby_of_the_tests"
ACME, GLOBEX = UUID(int=1 << 64), UUID(int=2 << 64)


@dataclass(frozen=True)
class Pair:
    """A primary, and the standby that follows it; the tests' tables are in database `postgres` of both."""

    primary: Database
    standby: Database

    def catch_up(self) -> None:
        """Wait until the standby has replayed everything the primary has written so far."""
        with self.primary.connect("postgres") as connection:
            written = connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
        deadline = time.monotonic() + REPLAY_TIMEOUT_S
        with self.standby.connect("postgres") as connection:
            connection.autocommit = True
            while True:
                found = connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written).fetchone()
                if found == (True,):
                    return
                assert time.monotonic() < deadline, f"the standby did not replay up to {written}"
                time.sleep(0.01)


@contextmanager
def start_pair(*, tcp: bool = False) -> Iterator[Pair]:
    """Start both. tcp: each listens on a port of 127.0.0.1 too."""
    tcp_port = 0 if tcp else None
    # Not in pytest's folder: it is closed to the user that servers run as, and the standby walks to the primary.
    folder = Path(tempfile.mkdtemp(prefix="tenancy-pair-"))
    try:
        folder.chmod(0o711)
        for name in ("primary", "standby"):
            (folder / name).mkdir(mode=0o711)
        with start(folder / "primary", settings=SETTINGS, tcp_port=tcp_port) as primary:
            bootstrap(primary.url(), tables=True)
            with primary.connect() as connection:
                connection.execute(f"CREATE ROLE {REPLICATOR} LOGIN REPLICATION".encode())
            copy_cluster(primary, folder / "standby")
            with start(folder / "standby", settings=FOLLOWING, tcp_port=tcp_port) as standby:
                yield Pair(Database(primary, "postgres"), Database(standby, "postgres"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def start_filled_pair() -> Iterator[Pair]:
    """Start both; Ada is in acme and Eve in globex, on each."""
    with start_pair() as started:
        with started.primary.connect("postgres") as truth:
            for tenant, name in ((ACME, "Ada"), (GLOBEX, "Eve")):
                truth.execute(
                    "INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, %s, %s, 'active')",
                    [tenant, f"t{tenant.int >> 64}", name],
                )
                truth.execute(
                    "INSERT INTO people (tenant_id, id, name, email) VALUES (%s, %s, %s, 'e')", [tenant, uuid7(), name]
                )
        started.catch_up()
        yield started


def copy_cluster(primary: Server, root: Path) -> None:
    """Copy the primary with pg_basebackup, which also writes how the copy follows it."""
    cluster = root / "cluster"
    owner = choose_owner(cluster)
    owner.make_folder(cluster)
    query = make_url(primary.url()).query
    program = find_binaries(None, owner=owner).program("pg_basebackup")
    command = [program, "-D", str(cluster), "-h", str(query["host"]), "-p", str(query["port"]), "-U", REPLICATOR]
    done = subprocess.run(
        [*command, "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"],
        cwd="/",
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        **owner.popen_options(),
    )
    assert done.returncode == 0, done.stderr
