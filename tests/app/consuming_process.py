"""Another process that consumes cards: says `ready`, waits for a line, then says how many it got.

Started with the path of a JSON file of settings, a tenant's id, how many it tries in each thread, and how many threads.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

from app import close_app, create_app
from app.audit.actors import Actor, ActorKind, acting_as
from app.auth.desk import EXTENSION
from app.config import Settings
from app.usage.quotas import Quota, QuotaExceededError, consume
from tenancy.context import tenant_scope


def main(path: str, tenant: str, times: int, threads: int) -> None:
    app = create_app(Settings(**json.loads(Path(path).read_text())))
    sessions = app.extensions[EXTENSION].database.sessions

    def take(_thread: int) -> int:
        done = 0
        for _ in range(times):
            try:
                with (
                    app.app_context(),
                    acting_as(Actor(ActorKind.SYSTEM, "tests", "tests")),
                    tenant_scope(UUID(tenant)),
                    sessions.begin() as session,
                ):
                    consume(session, Quota.CARDS)
                done += 1
            except QuotaExceededError:
                pass
        return done

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    with ThreadPoolExecutor(threads) as pool:
        sys.stdout.write(str(sum(pool.map(take, range(threads)))))
    close_app(app)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
