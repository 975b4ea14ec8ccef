"""What every contender does with its people, written once, so that only the library in between differs.

Imports SQLAlchemy only: it also runs in the rivals' own environments.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

from sqlalchemy import Engine, event, insert, select, text, update
from sqlalchemy.engine.interfaces import CacheStats
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.contenders.protocol import timed

OpenSession = Callable[[UUID], AbstractContextManager[Session]]


class Contender(Protocol):
    """One way to keep tenants apart, used as its own documentation says.

    explicit: whether its users write the tenant by hand into every statement and object.
    """

    person: Any
    explicit: bool

    def engine(self, url: str, **options: Any) -> Engine: ...

    def sessions(self, engine: Engine) -> OpenSession:
        """Return what opens a session of a tenant, for one transaction that is committed at the end."""
        ...


def plain_person(table: str, tenant_column: str = "tenant_id") -> Any:
    """Return a model of people as an application without a tenancy library would write it."""

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = table
        tenant_id: Mapped[UUID] = mapped_column(tenant_column, primary_key=True)
        id: Mapped[UUID] = mapped_column(primary_key=True)
        name: Mapped[str]
        email: Mapped[str]
        company_id: Mapped[UUID | None]

    return Person


class Workload:
    """The actions of one contender by one way to the server."""

    def __init__(self, contender: Contender, engine: Engine, tenants: Sequence[tuple[UUID, Sequence[UUID]]]) -> None:
        self.contender, self.tenants = contender, tenants
        self.engine = engine
        self.open = contender.sessions(engine)
        self.person = contender.person

    def _pick(self, number: int) -> tuple[UUID, UUID]:
        tenant, people = self.tenants[number % len(self.tenants)]
        return tenant, people[number % len(people)]

    def _of(self, tenant: UUID) -> list[Any]:
        return [self.person.tenant_id == tenant] if self.contender.explicit else []

    def _new(self, tenant: UUID, number: int) -> dict[str, Any]:
        unique = uuid4()
        values = {"id": unique, "name": f"Person {number}", "email": f"{unique.hex}@bench.test", "company_id": None}
        # Only this library stamps objects; with all others the application does.
        return values if hasattr(self.contender, "stamps") else {"tenant_id": tenant, **values}

    def point(self, number: int) -> None:
        tenant, person = self._pick(number)
        with self.open(tenant) as session:
            found = session.execute(select(self.person.name).where(*self._of(tenant), self.person.id == person))
            assert found.scalar_one()

    def _list(self, number: int, wanted: int) -> None:
        tenant, _ = self._pick(number)
        with self.open(tenant) as session:
            statement = select(self.person).where(*self._of(tenant)).order_by(self.person.id).limit(wanted)
            assert len(session.scalars(statement).all()) == wanted

    def list_10(self, number: int) -> None:
        self._list(number, 10)

    def list_1000(self, number: int) -> None:
        self._list(number, 1000)

    def get(self, number: int) -> None:
        tenant, person = self._pick(number)
        with self.open(tenant) as session:
            assert session.get(self.person, (tenant, person)) is not None

    def insert(self, number: int) -> None:
        tenant, _ = self._pick(number)
        with self.open(tenant) as session:
            session.add(self.person(**self._new(tenant, number)))

    def bulk_insert(self, number: int) -> None:
        tenant, _ = self._pick(number)
        rows = [self._new(tenant, each) for each in range(1000)]
        with self.open(tenant) as session:
            session.execute(insert(self.person), rows)

    def update(self, number: int) -> None:
        tenant, person = self._pick(number)
        with self.open(tenant) as session:
            session.execute(
                update(self.person)
                .where(*self._of(tenant), self.person.id == person)
                .values(name=f"Person {number}")
                .execution_options(synchronize_session=False)
            )

    def unit_of_work(self, number: int) -> None:
        """Load ten, change each, add ten."""
        tenant, _ = self._pick(number)
        with self.open(tenant) as session:
            statement = select(self.person).where(*self._of(tenant)).order_by(self.person.id).limit(10)
            for person in session.scalars(statement):
                person.name = f"Person {number} of {tenant.hex}"
            session.add_all(self.person(**self._new(tenant, number)) for _ in range(10))

    def throughput(self, seconds: float, threads: int) -> float:
        """Return the transactions a second of `point` in this many threads."""
        barrier, counts = threading.Barrier(threads + 1), [0] * threads

        def work(which: int) -> None:
            barrier.wait()
            deadline = time.monotonic() + seconds
            number = which
            while time.monotonic() < deadline:
                self.point(number)
                number += threads
                counts[which] += 1

        workers = [threading.Thread(target=work, args=(which,)) for which in range(threads)]
        for worker in workers:
            worker.start()
        barrier.wait()
        begun = time.monotonic()
        for worker in workers:
            worker.join()
        return sum(counts) / (time.monotonic() - begun)

    def cache_hits(self, n: int, start: int) -> dict[str, int]:
        """Run the actions for `n` tenants and count how their statements were compiled.

        start: number of the first; another each time, or a unit of work finds its changes made already.
        """
        seen: Counter[str] = Counter()

        def look(_connection: Any, _cursor: Any, _sql: str, _given: Any, context: Any, _many: bool) -> None:
            if getattr(context, "compiled", None) is not None:
                seen["hit" if context.cache_hit is CacheStats.CACHE_HIT else "miss"] += 1

        event.listen(self.engine, "before_cursor_execute", look)
        for number in range(start, start + n):
            for action in (self.point, self.list_10, self.get, self.insert, self.update, self.unit_of_work):
                action(number)
        event.remove(self.engine, "before_cursor_execute", look)
        return dict(seen)

    def cpu(self, action: str) -> Callable[[int], list[float]]:
        """Return what measures the CPU time that a call of this action takes here and in its server process.

        The mean of `n` calls, in microseconds: a busy machine disturbs it less than the clock.
        """
        call = getattr(self, action)

        def run(n: int) -> list[float]:
            with self.open(self.tenants[0][0]) as session:
                server = Path(f"/proc/{session.execute(text('SELECT pg_backend_pid()')).scalar_one()}/schedstat")
            before = time.process_time_ns() + _on_cpu_ns(server)
            for number in range(n):
                call(number)
            return [(time.process_time_ns() + _on_cpu_ns(server) - before) / n / 1000]

        return run

    def calls(self, n: int) -> float:
        """Return how many functions, of Python and of C, one `point` calls: work that no other process disturbs."""
        seen = 0

        def look(_frame: Any, happened: str, _argument: Any) -> None:
            nonlocal seen
            seen += happened in ("call", "c_call")

        sys.setprofile(look)
        try:
            for number in range(n):
                self.point(number)
        finally:
            sys.setprofile(None)
        return seen / n


def _on_cpu_ns(schedstat: Path) -> int:
    return int(schedstat.read_text().split()[0])


ACTIONS = ("point", "list_10", "list_1000", "get", "insert", "bulk_insert", "update", "unit_of_work")


def actions_of(contender: Contender, question: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """Return everything that can be asked of a contender. question: the tenants, and the ways to the server."""
    tenants = [(UUID(tenant), [UUID(person) for person in people]) for tenant, people in question["tenants"]]
    options = question.get("options", {})
    found: dict[str, Callable[..., Any]] = {}
    for way, url in question["urls"].items():
        workload = Workload(contender, contender.engine(url, **options), tenants)
        for name in ACTIONS:
            found[f"{name}:{way}"] = timed(getattr(workload, name))
            found[f"cpu of {name}:{way}"] = workload.cpu(name)
        found[f"cache_hits:{way}"] = workload.cache_hits
        found[f"calls:{way}"] = workload.calls
    pooled = contender.engine(question["urls"]["socket"], pool_size=8, max_overflow=0, **options)
    found["throughput"] = Workload(contender, pooled, tenants).throughput
    return found
