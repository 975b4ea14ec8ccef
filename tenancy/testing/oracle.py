"""The oracle of the fuzzer: whom the code acts for and which rows each tenant has, told without a database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

# rows: exactly those of the tenant. refused: an error of the library, before any SQL. unbound: the server's 42501.
# full: no connection is free. error: some error. either: the rows, or some error.
Outcome = Literal["rows", "refused", "unbound", "full", "error", "either"]
Health = Literal["sound", "failed", "cut", "unsure"]
Kind = Literal["session", "connection", "raw"]


class LeakError(AssertionError):
    """A foreign row was read, or any row at all outside a scope."""


class OracleError(AssertionError):
    """What came is no leak, but not what must come either: a lost row, or an error without a cause."""


class StallError(AssertionError):
    """Something waited for what would never come: a lock, an answer, or the end of another transaction."""


@dataclass(eq=False)
class Block:
    """One `with tenant_scope(tenant)` block, entered inside another or in none."""

    tenant: UUID
    outer: Block | None
    is_open: bool = True


class Scopes:
    """Which block the code is in. Blocks may be left in any order, which the library must survive."""

    def __init__(self) -> None:
        self.inner: Block | None = None

    def enter(self, tenant: UUID) -> Block:
        self.inner = Block(tenant, self.inner)
        return self.inner

    def leave(self, block: Block) -> bool:
        """Leave a block; False when another one, entered later, is still the innermost."""
        block.is_open = False
        if self.inner is not block:
            return False
        self.inner = block.outer
        return True

    @property
    def tenant(self) -> UUID | None:
        return tenant_of(self.inner)


def tenant_of(block: Block | None) -> UUID | None:
    """Return whose block it is, as long as it has not been left."""
    return block.tenant if block is not None and block.is_open else None


@dataclass
class Work:
    """One transaction: the tenant it was begun for, and what it has changed so far."""

    tenant: UUID | None
    added: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    savepoints: list[tuple[Any, frozenset[str], frozenset[str]]] = field(default_factory=list)

    def add(self, row: str) -> None:
        self.added.add(row)

    def remove(self, row: str) -> None:
        if row in self.added:
            self.added.remove(row)
        else:
            self.removed.add(row)

    def save(self, handle: Any) -> None:
        self.savepoints.append((handle, frozenset(self.added), frozenset(self.removed)))

    def restore(self) -> Any:
        """Go back to the last savepoint, and forget it; return its handle."""
        handle, added, removed = self.savepoints.pop()
        self.added, self.removed = set(added), set(removed)
        return handle

    def release(self) -> Any:
        return self.savepoints.pop()[0]


@dataclass(eq=False)
class HalfRead:
    """A server-side cursor of which something has been read, and what was there when it was opened."""

    result: Any
    rows: frozenset[str]


@dataclass(eq=False)
class Flow:
    """One open session or connection.

    home: the tenant of a session, for life. pid: of the server's process, once it is known.
    """

    kind: Kind
    handle: Any
    home: UUID | None = None
    pid: int | None = None
    work: Work | None = None
    health: Health = "sound"
    cursors: list[HalfRead] = field(default_factory=list)

    @property
    def holds_a_connection(self) -> bool:
        return self.kind != "session" or self.work is not None

    @property
    def is_spent(self) -> bool:
        """Whether nothing can be done with it but to close it."""
        return self.kind != "session" and self.health == "cut"

    def end(self) -> None:
        """Forget the transaction, however it ended."""
        self.work = None
        self.cursors.clear()
        if not self.is_spent:
            self.health = "sound"


class Book:
    """The rows that are committed, by tenant; each is known by its text, which names its tenant."""

    def __init__(self, tenants: list[UUID]) -> None:
        self.rows: dict[UUID, set[str]] = {tenant: set() for tenant in tenants}

    def seen_by(self, work: Work) -> frozenset[str]:
        """Return what a transaction reads, at READ COMMITTED: what is committed by now, and its own changes."""
        committed = self.rows[work.tenant] if work.tenant is not None else set()
        return frozenset(committed - work.removed | work.added)

    def commit(self, work: Work) -> None:
        if work.tenant is not None:
            self.rows[work.tenant] = set(self.seen_by(work))


def expected(flow: Flow, scope: UUID | None, *, killed: set[int], free: int, may_be_cut: bool) -> Outcome:
    """Foretell what a statement on a table comes to, sent by this flow in the scope of this tenant.

    free: connections that the pool can still give. may_be_cut: an idle connection in it was killed.
    """
    # Of a dead connection SQLAlchemy may say that it is dead, before anybody asks for the scope.
    refused: Outcome = "refused" if flow.health == "sound" and flow.pid not in killed else "error"
    if flow.is_spent:
        return "error"
    if flow.kind == "session" and scope != flow.home:
        return refused
    if flow.work is None:
        if not flow.holds_a_connection and free <= 0:
            return "full"
        if flow.pid in killed:
            return "error"
        if flow.kind == "session" and may_be_cut:
            return "either"
        return "unbound" if scope is None else "rows"
    if flow.work.tenant != scope:
        return refused
    if flow.pid in killed or flow.health in ("failed", "cut"):
        return "error"
    return "either" if flow.health == "unsure" else "rows"
