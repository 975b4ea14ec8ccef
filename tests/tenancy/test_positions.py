"""Positions in the write-ahead log: noted for whom a write concerns, and never forgotten in the unsafe direction."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest

from tenancy.context import LAST_POSITION, Scope, current_scope, tenant_scope
from tenancy.positions import Positions, Write, parse_position

ACME, GLOBEX, ANA, BEN = (UUID(int=n) for n in range(1, 5))


def scope(tenant: UUID | None = None, account: UUID | None = None) -> Scope:
    return Scope(tenant=tenant, account=account, platform=None)


@pytest.mark.parametrize(
    ("lsn", "position"),
    [
        ("0/0", 0),
        ("0/3000060", 0x3000060),
        ("16/B374D848", 0x16_B374_D848),
        ("FFFFFFFF/FFFFFFFF", LAST_POSITION),
        ("0/3002018", 0x3002000),  # past the header of a page on which nothing is written yet
        ("0/3002020", 0x3002020),
    ],
)
def test_position_is_read(lsn: str, position: int) -> None:
    assert parse_position(lsn) == position


@pytest.mark.parametrize(
    ("written", "read", "needed"),
    [
        (scope(ACME), scope(ACME), 7),
        (scope(ACME), scope(ACME, ANA), 7),
        (scope(ACME), scope(GLOBEX), 0),
        (scope(ACME, ANA), scope(GLOBEX, ANA), 7),
        (scope(ACME, ANA), scope(ACME, BEN), 7),
        (scope(None, ANA), scope(ACME, ANA), 7),
        (scope(None, ANA), scope(ACME, BEN), 0),
        (scope(), scope(ACME), 7),
        (None, scope(ACME, ANA), 7),
    ],
)
def test_write_concerns_its_tenant_and_account_and_everybody_if_it_has_neither(
    written: Scope | None, read: Scope, needed: int
) -> None:
    positions = Positions()

    positions.note(written, 7)

    assert positions.needed(read) == needed


def test_tenant_and_account_of_the_same_id_are_two() -> None:
    positions = Positions()

    positions.note(scope(ACME), 7)

    assert positions.needed(scope(GLOBEX, ACME)) == 0


def test_position_noted_late_does_not_hide_a_later_one() -> None:
    positions = Positions()

    positions.note(scope(ACME), 9)
    positions.note(scope(ACME), 7)

    assert positions.needed(scope(ACME)) == 9


def test_what_is_dropped_to_make_room_counts_for_everybody() -> None:
    positions = Positions()

    for n in range(5000):
        positions.note(scope(UUID(int=100 + n)), 10_000 - n)

    assert positions.needed(scope(GLOBEX)) == 10_000
    assert positions.needed(scope(UUID(int=100))) == 10_000


def test_position_is_forgotten_after_ten_minutes() -> None:
    times = iter([1000.0, 1600.0, 1600.1])
    positions = Positions(clock=lambda: next(times))
    positions.note(scope(ACME), 7)

    found = [positions.needed(scope(ACME)) for _ in range(2)]

    assert found == [7, 0]


@pytest.mark.parametrize(
    ("error", "needed"),
    [
        (psycopg.OperationalError("the connection is lost"), LAST_POSITION),
        (psycopg.errors.AdminShutdown("terminating connection"), LAST_POSITION),
        (KeyboardInterrupt(), LAST_POSITION),
        (psycopg.errors.SerializationFailure("could not serialize"), 0),
        (psycopg.errors.ForeignKeyViolation("no such company"), 0),
    ],
)
def test_commit_without_an_answer_is_noted_at_the_end_of_the_log(error: BaseException, needed: int) -> None:
    positions = Positions()

    with pytest.raises(type(error)), Write(positions, scope(ACME)):
        raise error

    assert positions.needed(scope(ACME)) == needed


def test_next_commit_ends_the_doubt() -> None:
    positions = Positions()
    positions.note(scope(ACME), LAST_POSITION)

    with Write(positions, scope(ACME)) as write:
        write.ended_at("0/3000060")

    assert positions.needed(scope(ACME)) == 0x3000060


@pytest.mark.parametrize("after", [-1, LAST_POSITION + 1])
def test_scope_refuses_what_is_no_position(after: int) -> None:
    with pytest.raises(ValueError, match="position in the write-ahead log"):
        tenant_scope(ACME, reads_only=True, after=after)


def test_scope_within_another_keeps_what_it_reads_after() -> None:
    found = []

    with tenant_scope(ACME, reads_only=True, after=9):
        for after in (None, 7, 11):
            with tenant_scope(ACME, after=after):
                inner = current_scope()
                found.append((inner.reads_only, inner.after) if inner is not None else None)

    assert found == [(True, 9), (True, 9), (True, 11)]
