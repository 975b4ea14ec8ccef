"""A server of the doctor's own: roles belong to the whole server, and other tests change those of the shared one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenancy.embedded import start
from tests.conftest import FAST, Database, bootstrap


@contextmanager
def own_cluster(folder: Path, **settings: str) -> Iterator[Database]:
    """Start a server with the roles, schema `tenancy` and the tests' tables; it ends with the block."""
    with start(data_dir=folder / "postgres", settings=FAST | settings) as server:
        bootstrap(server.url(), tables=True)
        yield Database(server, "postgres")
