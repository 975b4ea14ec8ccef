"""Work budgets: how long a tenant's statements may take, and how many transactions it may have open at once."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple
from uuid import UUID
from weakref import WeakSet, WeakValueDictionary

from tenancy.errors import ConfigurationError, TenantBusyError

_LONGEST_TIMEOUT_MS = 2**31 - 1  # the server keeps a timeout in 31 bits, and 0 would switch it off
_LONGEST_WAIT_S = 60.0
_LONGEST_REST_S = 1.0


@dataclass(frozen=True, kw_only=True)
class WorkBudget:
    """What one tenant may ask of the server in a transaction, and of one process at a time.

    statement_timeout_s, lock_timeout_s: set for each transaction; None leaves what the role has.
    concurrency: transactions open at once on one engine; None sets no bound.
    wait_s: how long another waits for one of these to end, at most 60; 0 refuses at once.
    waiting: how many may wait at once, each holding its thread or task; None for as many as may work.
    share: of the time, how much each place may be in use, above 0. A transaction of 10 ms at a share of 0.5 is
        followed by 10 ms, and never more than a second, in which its place stays taken. 1 rests never.
    Raises: ConfigurationError - a value that is no bound.
    """

    statement_timeout_s: float | None = None
    lock_timeout_s: float | None = None
    concurrency: int | None = None
    wait_s: float = 0.25
    waiting: int | None = None
    share: float = 1.0
    settings: tuple[tuple[bytes, None], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.concurrency is not None and (type(self.concurrency) is not int or self.concurrency < 1):
            raise ConfigurationError(
                f"a concurrency of {self.concurrency!r} lets no transaction begin",
                hint="pass a whole number above 0, or None for no bound",
            )
        if not 0 <= self.wait_s <= _LONGEST_WAIT_S:
            raise ConfigurationError(
                f"a wait_s of {self.wait_s!r} is not between 0 and {_LONGEST_WAIT_S:g}",
                hint="pass a short time: who waits holds a thread, or memory",
            )
        if self.waiting is not None and (type(self.waiting) is not int or self.waiting < 0):
            raise ConfigurationError(
                f"{self.waiting!r} is not a number of those who wait", hint="pass a whole number, or None"
            )
        if not 0 < self.share <= 1:
            raise ConfigurationError(
                f"a share of {self.share!r} is no part of the time",
                hint="pass a number above 0 and up to 1, such as 0.5 for half of the time",
            )
        if self.share < 1 and self.concurrency is None:
            raise ConfigurationError(
                f"a share of {self.share!r} without a concurrency bounds nothing",
                hint="say of how many places it is a share: pass a concurrency",
            )
        timeouts = {"statement_timeout": self.statement_timeout_s, "lock_timeout": self.lock_timeout_s}
        given = {name: _milliseconds(name, seconds) for name, seconds in timeouts.items() if seconds is not None}
        settings = tuple((f"SET LOCAL {name} = {value}".encode(), None) for name, value in given.items())
        object.__setattr__(self, "settings", settings)


def _milliseconds(name: str, seconds: float) -> int:
    if not math.isfinite(seconds) or not 1 <= round(seconds * 1000) <= _LONGEST_TIMEOUT_MS:
        raise ConfigurationError(
            f"a {name}_s of {seconds!r} sets no timeout",
            hint="pass 0.001 seconds or more, or None for what the role has",
        )
    return round(seconds * 1000)


BudgetOf = Callable[[UUID], WorkBudget | None]


class _Room:
    """The transactions of one tenant: those that are open, and those that wait until one ends.

    rests: when each place that was left, and is not free yet, will be; a heap.
    """

    __slots__ = ("__weakref__", "is_handing", "rests", "taken", "waiting")

    def __init__(self) -> None:
        # Weakly, so that a connection which nobody closed gives its slot back when it is collected.
        self.taken: WeakSet[Slot] = WeakSet()
        self.waiting: deque[Waiter] = deque()
        self.rests: list[float] = []
        self.is_handing = False

    def next_end(self) -> float:
        """Return when the next place at rest is free; infinity when none rests."""
        return self.rests[0] if self.rests else math.inf


class Slot:
    """The place of one transaction among its tenant's, and the budget it runs under. Whoever holds it occupies it."""

    __slots__ = ("__weakref__", "budget", "room", "taken_at", "tenant")

    def __init__(self, tenant: UUID, budget: WorkBudget, room: _Room | None) -> None:
        self.tenant = tenant
        self.budget = budget
        self.room = room  # None where concurrency has no bound
        self.taken_at = 0.0


class Pause(NamedTuple):
    """How long to wait, unless stirred before."""

    stir: Future[None]
    seconds: float


class Waiter:
    """Somebody who waits for a slot. Stirred when it has it, and when there is something new to wait for."""

    __slots__ = ("_stirred", "slot")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self._stirred: Future[None] = Future()

    def stir(self) -> None:
        if not self._stirred.done():
            self._stirred.set_result(None)

    def next_stir(self) -> Future[None]:
        """Return what is done at the next stir."""
        if self._stirred.done():
            self._stirred = Future()
        return self._stirred


class Budgets:
    """The slots of one engine in one process.

    budget_of: asked before every transaction of a tenant, so it answers from memory.
    """

    def __init__(self, budget_of: BudgetOf) -> None:
        self._budget_of = budget_of
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        # Reentrant: the garbage collector may close a forgotten connection while this thread holds it.
        self._lock = threading.RLock()
        self._rooms: WeakValueDictionary[UUID, _Room] = WeakValueDictionary()
        # Rooms that nobody holds, but that have a place at rest; the number breaks ties.
        self._resting: list[tuple[float, int, _Room]] = []
        self._numbers = itertools.count()

    def open_of(self, tenant: UUID) -> int:
        """Return how many slots the tenant has taken in this process."""
        with self._lock:
            room = self._rooms.get(tenant)
            return 0 if room is None else len(room.taken)

    def waiting(self) -> int:
        """Return how many transactions wait for a slot in this process."""
        with self._lock:
            return sum(len(room.waiting) for room in self._rooms.values())

    def enter_at_once(self, tenant: UUID) -> Slot | None:
        """Return a slot for a transaction that cannot wait; None when the tenant has no budget.

        Raises: TenantBusyError - the tenant has no slot left.
        """
        slot = self._slot_for(tenant)
        if slot is not None and not self._take(slot):
            raise _busy(slot)
        return slot

    def enter(self, tenant: UUID) -> Slot | None:
        """Return a slot; None when the tenant has no budget. Blocks the thread for `wait_s` at most.

        Raises: TenantBusyError - no slot became free, or too many wait already.
        """
        slot = self._slot_for(tenant)
        if slot is None or (waiter := self._take_or_wait(slot)) is None:
            return slot
        deadline = monotonic() + slot.budget.wait_s
        try:
            while (left := self._time_to_wait(waiter, deadline)) is not None:
                with suppress(TimeoutError):
                    left.stir.result(timeout=left.seconds)
        except BaseException:
            self._withdraw(slot)
            raise
        return self._settle(slot)

    async def enter_async(self, tenant: UUID) -> Slot | None:
        """Do what `enter` does, without blocking the event loop."""
        slot = self._slot_for(tenant)
        if slot is None or (waiter := self._take_or_wait(slot)) is None:
            return slot
        deadline = monotonic() + slot.budget.wait_s
        try:
            while (left := self._time_to_wait(waiter, deadline)) is not None:
                await asyncio.wait([asyncio.wrap_future(left.stir)], timeout=left.seconds)
        except BaseException:
            self._withdraw(slot)
            raise
        return self._settle(slot)

    def leave(self, slot: Slot) -> None:
        """Give the slot back, to whoever has waited longest. Harmless when it was given back before."""
        room = slot.room
        if room is not None and self._pid == os.getpid():  # a parent's lock may be held by a thread that is not here
            with self._lock:
                if slot.budget.share < 1 and slot in room.taken:
                    self._rest(room, slot)
                room.taken.discard(slot)
                _hand_over(room)

    def _rest(self, room: _Room, slot: Slot) -> None:
        now, share = monotonic(), slot.budget.share
        end = now + min((now - slot.taken_at) * (1 - share) / share, _LONGEST_REST_S)
        heapq.heappush(room.rests, end)
        while self._resting and self._resting[0][0] <= now:
            heapq.heappop(self._resting)
        heapq.heappush(self._resting, (end, next(self._numbers), room))
        _stir_first(room)

    def _time_to_wait(self, waiter: Waiter, deadline: float) -> Pause | None:
        """Return how long to wait before looking again; None when there is nothing to wait for any longer.

        Nobody announces the end of a rest: who waits looks then, and hands the place to who has waited longest.
        """
        room = waiter.slot.room
        assert room is not None  # noqa: S101 - who waits, waits for a room
        with self._lock:
            _hand_over(room)
            now = monotonic()
            if waiter.slot in room.taken or deadline <= now:
                return None
            return Pause(waiter.next_stir(), max(0.0, min(deadline, room.next_end()) - now))

    def _slot_for(self, tenant: UUID) -> Slot | None:
        if self._pid != os.getpid():  # the slots of the parent process, whose transactions are not ours
            self._start()
        budget = self._budget_of(tenant)
        if budget is None or budget.concurrency is None:
            return Slot(tenant, budget, None) if budget is not None else None
        with self._lock:
            room = self._rooms.get(tenant)
            if room is None:
                room = self._rooms[tenant] = _Room()
        return Slot(tenant, budget, room)

    def _take(self, slot: Slot) -> bool:
        if slot.room is None:
            return True
        with self._lock:
            return _is_next(slot.room, slot)

    def _take_or_wait(self, slot: Slot) -> Waiter | None:
        """Return None when the slot is taken, else what to wait for."""
        room = slot.room
        if room is None:
            return None
        with self._lock:
            if _is_next(room, slot):
                return None
            waiting = slot.budget.waiting
            if slot.budget.wait_s == 0 or len(room.waiting) >= (_concurrency(slot) if waiting is None else waiting):
                raise _busy(slot)
            room.waiting.append(waiter := Waiter(slot))
            return waiter

    def _settle(self, slot: Slot) -> Slot:
        """Return the slot if it was handed over, or is free now."""
        room = slot.room
        assert room is not None  # noqa: S101 - who waits, waits for a room
        with self._lock:
            if slot in room.taken:
                return slot
            _forget(room, slot)
            if _is_taken(room, slot):  # of a transaction that was collected, which nobody announced
                return slot
        raise _busy(slot)

    def _withdraw(self, slot: Slot) -> None:
        with self._lock:
            if slot.room is not None:
                _forget(slot.room, slot)
            self.leave(slot)


def _concurrency(slot: Slot) -> int:
    return slot.budget.concurrency or 0


def _is_taken(room: _Room, slot: Slot) -> bool:
    if room.rests or slot.budget.share < 1:
        slot.taken_at = monotonic()
        while room.rests and room.rests[0] <= slot.taken_at:
            heapq.heappop(room.rests)
    # Counted after it was added: a collection in between can only make room.
    room.taken.add(slot)
    if len(room.taken) + len(room.rests) <= _concurrency(slot):
        return True
    room.taken.discard(slot)
    return False


def _is_next(room: _Room, slot: Slot) -> bool:
    """Take a place for who comes now; one whose rest has ended unseen is for who has waited longest."""
    if room.waiting:
        _hand_over(room)
    return not room.waiting and _is_taken(room, slot)


def _hand_over(room: _Room) -> None:
    if room.is_handing:  # called by the garbage collector, in the loop below
        return
    room.is_handing = True
    try:
        while room.waiting and _is_taken(room, room.waiting[0].slot):
            room.waiting.popleft().stir()
    finally:
        room.is_handing = False


def _stir_first(room: _Room) -> None:
    """Let who is next look again: it may sleep until its own end, not knowing of a rest that ends before."""
    if room.waiting:
        room.waiting[0].stir()


def _forget(room: _Room, slot: Slot) -> None:
    for waiter in room.waiting:
        if waiter.slot is slot:
            room.waiting.remove(waiter)
            _stir_first(room)
            return


def _busy(slot: Slot) -> TenantBusyError:
    return TenantBusyError(
        f"tenant {slot.tenant!r} has {slot.budget.concurrency} transactions open here, as many as its budget allows",
        hint="try again shortly, hold transactions for less time, or raise the concurrency or share of its budget",
    )
