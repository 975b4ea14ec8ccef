"""The chain: each entry's hash covers the one before, so that whoever changes the past is found out.

The database links an entry when its transaction commits (migration 0003). Checked here with hashes of our own, over
the text that the database gives of each entry: nothing that it has computed is taken on trust.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, Text, and_, literal, literal_column, select, true
from sqlalchemy.orm import Session

from app.db import Base
from tenancy.context import require_tenant
from tenancy.tables import TENANT_KEY

_PLATFORM = UUID(int=0)
_BATCH = 1_000
_MISSING = "the entry is missing"


@dataclass(frozen=True)
class Fault:
    """The first entry at which a chain is broken. entry_id: None where no entry is there to name."""

    number: int
    entry_id: UUID | None
    what: str


@dataclass(frozen=True)
class Verdict:
    """What a check of a chain found.

    checked: links that hold. number, hash: the head; compare them with those of an earlier export.
    pruned: entries that retention has removed from the beginning.
    """

    checked: int
    pruned: int
    number: int
    hash: str
    fault: Fault | None

    @property
    def is_intact(self) -> bool:
        return self.fault is None


@dataclass(frozen=True)
class Head:
    """Where a chain ends, and after which link it begins."""

    number: int
    hash: bytes
    pruned_number: int
    pruned_hash: bytes


@dataclass(frozen=True)
class Link:
    """One link, with the text of its entry; None when the entry is gone."""

    number: int
    entry_id: UUID
    at: datetime
    previous_hash: bytes
    hash: bytes
    text: str | None

    @property
    def seal(self) -> bytes:
        """What its hash has to be."""
        return sha256(self.previous_hash + f"{self.number} {self.written_at} {self.text}".encode()).digest()

    @property
    def written_at(self) -> str:
        """Its time as it is hashed."""
        return self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class Chain:
    """The tables of one chain, and whose it is."""

    entries: Table
    links: Table
    heads: Table
    owner: UUID

    @property
    def genesis(self) -> bytes:
        """What stands where the first entry has the hash of its predecessor: no chain continues another's."""
        return sha256(str(self.owner).encode()).digest()

    def text(self) -> ColumnElement[str]:
        """The column of each entry's text, as the database hashed it."""
        name = self.entries.name
        return literal_column(f"{name.removesuffix('_entries')}_text({name})", Text)

    def own(self, table: Table) -> ColumnElement[bool]:
        """The condition that a row is of this chain's tenant: it serves plans, the policies are the wall."""
        return table.c[TENANT_KEY] == self.owner if TENANT_KEY in table.c else true()

    def statement(self) -> Select[Any]:
        """Return what selects the head, every link and each entry's text: one statement, so one moment."""
        one, links, heads, entries = select(literal(1)).subquery(), self.links, self.heads, self.entries
        here = one.outerjoin(heads, and_(heads.c.id == self.owner, self.own(heads)))
        # Tables, not models: the predicate that a session adds for a model would drop the links of lost entries.
        joined = here.outerjoin(links, self.own(links)).outerjoin(
            entries, and_(entries.c.id == links.c.id, self.own(entries))
        )
        found: Select[Any] = select(
            *(column.label(f"link_{column.name}") for column in links.c),
            *(column.label(f"head_{column.name}") for column in heads.c),
            entries.c.id.label("entry_id"),
            self.text().label("entry"),
        )
        return found.select_from(joined).order_by(links.c.number)

    def read(self, session: Session) -> Generator[tuple[Head | None, Link | None], None, None]:
        """Yield the head, None where there is none, with each link in order; with no link once."""
        with session.execute(self.statement(), execution_options={"yield_per": _BATCH}) as found:
            for row in found:
                head = None if row.head_id is None else _head_of(row)
                yield head, None if row.link_id is None else _link_of(row)


def _head_of(row: Any) -> Head:
    return Head(row.head_number, row.head_hash, row.head_pruned_number, row.head_pruned_hash)


def _link_of(row: Any) -> Link:
    text = row.entry if row.entry_id is not None else None
    return Link(row.link_number, row.link_id, row.link_at, row.link_previous_hash, row.link_hash, text)


def chain_of_tenant() -> Chain:
    """Return the chain of the tenant in scope."""
    return _chain("audit", require_tenant())


def chain_of_platform() -> Chain:
    """Return the platform's own chain."""
    return _chain("platform", _PLATFORM)


def _chain(name: str, owner: UUID) -> Chain:
    tables = Base.metadata.tables
    return Chain(tables[f"{name}_entries"], tables[f"{name}_links"], tables[f"{name}_heads"], owner)


def verify(session: Session, chain: Chain | None = None) -> Verdict:
    """Check a chain from the first entry it keeps to its head, and name the first that was tampered with.

    session: of the chain's tenant; whoever writes meanwhile is not waited for, and disturbs nothing.
    chain: None for that of the tenant in scope.
    """
    chain = chain or chain_of_tenant()
    walk = Walk(chain.genesis)
    with closing(chain.read(session)) as read:
        for head, link in read:
            walk.begin(head)
            if link is not None and not walk.follow(link):
                break
    return walk.verdict(walk.fault or walk.end() or _loose(session, chain, walk.number + 1))


class Walk:
    """A walk along one chain, from where it begins to its head."""

    def __init__(self, genesis: bytes) -> None:
        self.checked = self.pruned = self.number = self.head_number = 0
        self.hash = self.head_hash = genesis
        self.fault: Fault | None = None
        self._has_begun = False

    def begin(self, head: Head | None) -> None:
        if self._has_begun or head is None:
            return
        self._has_begun = True
        self.number = self.pruned = head.pruned_number
        self.hash, self.head_number, self.head_hash = head.pruned_hash, head.number, head.hash

    def verdict(self, fault: Fault | None) -> Verdict:
        return Verdict(self.checked, self.pruned, self.head_number, self.head_hash.hex(), fault)

    def follow(self, link: Link) -> bool:
        """Take the next link; False when it is none."""
        what = self._fault_of(link)
        if what is not None:
            is_there = what is not _MISSING
            number = link.number if is_there else self.number + 1
            self.fault = Fault(number, link.entry_id if is_there else None, what)
            return False
        self.number, self.hash, self.checked = link.number, link.hash, self.checked + 1
        return True

    def _fault_of(self, link: Link) -> str | None:
        if link.number <= self.number:
            return "the entry stands before the beginning of the chain"
        if link.number > self.head_number:
            return "the entry was added behind the head of the chain"
        if link.number != self.number + 1:
            return _MISSING
        if link.text is None:
            return "the entry was removed"
        if link.previous_hash != self.hash:
            return "the entry does not continue the one before it"
        return None if link.seal == link.hash else "the entry was changed"

    def end(self) -> Fault | None:
        """Say what is wrong with where the last link leads."""
        if self.number < self.head_number:
            return Fault(self.number + 1, None, _MISSING)
        return None if self.hash == self.head_hash else Fault(self.number, None, "the head has another hash")


def _loose(session: Session, chain: Chain, number: int) -> Fault | None:
    """Look for an entry that no link holds: one that was put in past the trigger."""
    entries, links = chain.entries, chain.links
    linked = select(links.c.id).where(links.c.id == entries.c.id, chain.own(links)).exists()
    loose = select(entries.c.id).where(chain.own(entries), ~linked)
    found = session.scalar(loose.order_by(entries.c.at).limit(1))
    return None if found is None else Fault(number, found, "the entry was inserted past the chain")
