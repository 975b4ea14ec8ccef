# ruff: noqa: E402 - what gevent patches must be patched before it is imported
"""A program on gevent, run by test_gevent.py: it patches everything, so it needs a process of its own."""

from gevent import monkey

monkey.patch_all()

import json
import sys
from collections.abc import Callable
from contextvars import copy_context
from typing import Any
from uuid import UUID

import gevent
from gevent.pool import Pool
from gevent.threadpool import ThreadPool
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.errors import TenancyError
from tenancy.session import tenant_sessionmaker
from tests.models import Person


def main(url: str, acme: UUID, globex: UUID) -> dict[str, Any]:
    engine = create_tenant_engine(url, pool_size=2, max_overflow=0)
    sessions = tenant_sessionmaker(engine)

    def names() -> list[str]:
        with sessions() as session:
            return list(session.scalars(select(Person.name).order_by(Person.name)))

    def attempt(act: Callable[[], Any]) -> Any:
        try:
            return act()
        except DBAPIError as error:
            return type(error.orig).__name__
        except TenancyError as error:
            return type(error).__name__

    def plainly() -> list[str]:
        with engine.connect() as connection:
            return list(connection.exec_driver_sql("SELECT name FROM people").scalars())

    native, one = ThreadPool(1), Pool(1)
    with tenant_scope(acme):
        found: dict[str, Any] = {
            "here": names(),
            "greenlet": gevent.spawn(attempt, names).get(),
            "greenlet, handed the context": gevent.spawn(copy_context().run, attempt, names).get(),
            "thread": native.apply(attempt, (names,)),
            "thread, handed the context": native.apply(copy_context().run, (attempt, names)),
            "pool, handed A": one.spawn(copy_context().run, attempt, names).get(),
        }
        outliving = gevent.spawn_later(0.02, copy_context().run, attempt, names)
    found["greenlet, handed a scope that has ended"] = outliving.get()
    found["thread, afterwards"] = native.apply(attempt, (names,))
    found["thread, afterwards, without a session"] = native.apply(attempt, (plainly,))
    with tenant_scope(globex):
        found["pool, handed B"] = one.spawn(copy_context().run, attempt, names).get()
    found["pool, afterwards"] = one.spawn(attempt, plainly).get()
    found["both at once"] = take_turns(names, acme, globex)
    engine.dispose()
    return found


def take_turns(names: Callable[[], list[str]], acme: UUID, globex: UUID) -> list[list[list[str]]]:
    """Two greenlets in two scopes, which the event loop interleaves at every wait."""

    def work(tenant: UUID) -> list[list[str]]:
        seen = set()
        for _ in range(50):
            with tenant_scope(tenant):
                seen.add(tuple(names()))
                gevent.sleep(0)
                seen.add(tuple(names()))
        return sorted(list(found) for found in seen)

    workers = [gevent.spawn(work, tenant) for tenant in (acme, globex)]
    return [worker.get() for worker in workers]


if __name__ == "__main__":
    json.dump(main(sys.argv[1], UUID(sys.argv[2]), UUID(sys.argv[3])), sys.stdout)
