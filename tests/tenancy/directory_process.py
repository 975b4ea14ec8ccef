"""A process with a directory of its own, for tests that need several. Speaks lines of JSON on stdout.

usage: python -m tests.tenancy.directory_process watch|fork URL SLUG
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from tenancy.binding import create_tenant_engine
from tenancy.directory import Reference, SQLDirectory
from tests.models import Tenant


def say(**fields: Any) -> None:
    print(json.dumps({"pid": os.getpid()} | fields), flush=True)  # noqa: T201 - this is what it is for


def until(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(condition())


def status(directory: SQLDirectory, slug: str) -> str | None:
    found = directory.find(Reference("slug", slug))
    return found.status if found else None


def watch(directory: SQLDirectory, slug: str) -> None:
    """Say once that the tenant is active and changes are heard, then when it is suspended."""
    status(directory, slug)
    say(listening=until(lambda: directory.is_listening), status=status(directory, slug))
    until(lambda: status(directory, slug) == "suspended")
    say(status=status(directory, slug), at=time.time())


def fork(directory: SQLDirectory, slug: str) -> None:
    """Fork with a remembered tenant, a pooled connection and a running listener, as a preloading server does."""
    status(directory, slug)
    until(lambda: directory.is_listening)
    inherited = server_sockets()
    child = os.fork()
    if child == 0:
        kept = inherited & server_sockets()
        remembered = directory.peek(Reference("slug", slug)) is not None
        found = status(directory, slug)
        heard = until(lambda: directory.is_listening)
        say(who="child", remembered=remembered, status=found, listening=heard, talks_on=len(kept & used(directory)))
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.5)
    say(who="parent", listening=directory.is_listening, status=status(directory, slug))
    directory.close()


def server_sockets() -> set[int]:
    """The inodes of this process's open sockets."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(int(target[8:-1]))
    return found


def used(directory: SQLDirectory) -> set[int]:
    """The inodes of the sockets that the directory's own connections talk on."""
    listener = directory._listener
    connections = [listener._connection] if listener is not None else []
    with directory._require_engine().connect() as connection:
        connections.append(connection.connection.driver_connection)
        return {os.fstat(one.fileno()).st_ino for one in connections if one is not None}


def main() -> None:
    task, url, slug = sys.argv[1:]
    engine = create_tenant_engine(url)
    directory = SQLDirectory(Tenant)
    directory.bind(engine)
    {"watch": watch, "fork": fork}[task](directory, slug)
    directory.close()
    engine.dispose()


if __name__ == "__main__":
    socket.setdefaulttimeout(10)
    main()
