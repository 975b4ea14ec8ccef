"""Quotas: what is counted is what is there, never one more than allowed, and refused without a trace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from app.audit.actors import Actor, ActorKind, acting_as
from app.auth.desk import EXTENSION as DESK
from app.cards.models import Card
from app.config import Settings
from app.plans.terms import TermKind
from app.usage.models import QuotaCounter, QuotaEvent
from app.usage.quotas import Quota, QuotaExceededError, consume, held, recount, release
from tenancy.context import tenant_scope
from tests.app.conftest import Truth, Visitor, codes
from tests.app.entitled import give
from tests.app.test_lifecycle_processes import plain

ANA = Actor(ActorKind.ACCOUNT, "ana", "ana@acme.test")


def in_tenant(app: Flask, visitor: Visitor, do: Callable[[Any], Any]) -> Any:
    """Do something in a transaction of the visitor's tenant, and commit."""
    sessions = app.extensions[DESK].database.sessions
    with app.app_context(), acting_as(ANA), tenant_scope(visitor.tenant_id), sessions.begin() as session:
        return do(session)


def used(app: Flask, visitor: Visitor, quota: Quota) -> int:
    found: int = in_tenant(app, visitor, lambda session: held(session, quota)).used
    return found


def card(number: int | str) -> dict[str, Any]:
    return {"number": str(number), "year": 1990, "condition": "mint"}


# Consuming --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quota", [Quota.CARDS, Quota.API_CALLS_HOUR, Quota.API_CALLS_DAY])
def test_what_fits_is_counted_and_what_does_not_is_refused_and_not_counted(
    app: Flask, acme: Visitor, quota: Quota
) -> None:
    give(app, acme, TermKind.LIMIT, quota, 5)

    in_tenant(app, acme, lambda session: consume(session, quota, 4))
    with pytest.raises(QuotaExceededError) as refusal:
        in_tenant(app, acme, lambda session: consume(session, quota, 2))

    assert used(app, acme, quota) == 4
    assert {**refusal.value.members} == {
        "quota": quota,
        "limit": 5,
        "used": 4,
        "asked": 2,
        "plans": ["basic", "premium", "enterprise", "custom"],
    }


def test_amount_over_the_whole_limit_is_refused_at_once(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.API_CALLS_DAY, 5)

    with pytest.raises(QuotaExceededError):
        in_tenant(app, acme, lambda session: consume(session, Quota.API_CALLS_DAY, 6))

    assert used(app, acme, Quota.API_CALLS_DAY) == 0


def test_refusal_leaves_the_transaction_to_go_on(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.CARDS, 1)

    def go_on(session: Any) -> int:
        with pytest.raises(QuotaExceededError):
            consume(session, Quota.CARDS, 2)
        return consume(session, Quota.CARDS).used

    assert in_tenant(app, acme, go_on) == 1


def test_what_is_rolled_back_is_not_counted(app: Flask, acme: Visitor) -> None:
    in_tenant(app, acme, lambda session: consume(session, Quota.CARDS))

    def fail(session: Any) -> None:
        consume(session, Quota.CARDS, 10)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_tenant(app, acme, fail)

    assert used(app, acme, Quota.CARDS) == 1


def test_unlimited_quota_is_counted_all_the_same(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.CARDS, None)

    found = in_tenant(app, acme, lambda session: consume(session, Quota.CARDS, 5_000))

    assert (found.used, found.most) == (5_000, None)


def test_nothing_negative_is_consumed(app: Flask, acme: Visitor) -> None:
    with pytest.raises(ValueError, match="release"):
        in_tenant(app, acme, lambda session: consume(session, Quota.CARDS, -1))


def test_what_is_released_can_be_had_again_and_never_falls_below_nothing(app: Flask, acme: Visitor) -> None:
    in_tenant(app, acme, lambda session: consume(session, Quota.CARDS, 3))

    in_tenant(app, acme, lambda session: release(session, Quota.CARDS, 2))
    assert used(app, acme, Quota.CARDS) == 1

    in_tenant(app, acme, lambda session: release(session, Quota.CARDS, 9))
    assert used(app, acme, Quota.CARDS) == 0


def test_first_count_begins_with_what_is_there_already(app: Flask, acme: Visitor) -> None:
    in_tenant(app, acme, lambda session: session.add_all([Card(**card(number)) for number in range(3)]))

    found = in_tenant(app, acme, lambda session: consume(session, Quota.CARDS))

    assert found.used == 4


def test_window_that_has_ended_counts_for_nothing(app: Flask, acme: Visitor, truth: Truth) -> None:
    in_tenant(app, acme, lambda session: consume(session, Quota.API_CALLS_HOUR, 900))
    truth.execute(
        "UPDATE quota_counters SET window_at = window_at - interval '1 hour' WHERE tenant_id = %s", [acme.tenant_id]
    )

    found = in_tenant(app, acme, lambda session: consume(session, Quota.API_CALLS_HOUR, 200))

    assert found.used == 200
    assert 0 <= found.resets_in_s <= 3_600


def test_counter_of_one_tenant_is_none_of_anothers(app: Flask, acme: Visitor, globex: Visitor) -> None:
    in_tenant(app, acme, lambda session: consume(session, Quota.CARDS, 7))

    theirs = in_tenant(app, globex, lambda session: session.scalars(select(QuotaCounter)).all())

    assert used(app, acme, Quota.CARDS) == 7
    assert theirs == []


# Many at once -----------------------------------------------------------------------------------------


def test_thirty_two_threads_at_the_limit_get_exactly_what_it_allows(
    make_app: Callable[..., Flask], acme: Visitor
) -> None:
    app = make_app(database_pool_size=32, tenant_concurrency=0)
    give(app, acme, TermKind.LIMIT, Quota.CARDS, 100)
    barrier = Barrier(32)

    def write(thread: int) -> int:
        barrier.wait()
        done = 0
        for number in range(6):
            try:
                in_tenant(app, acme, partial(take_one, number=f"{thread}-{number}"))
                done += 1
            except QuotaExceededError:
                pass
        return done

    with ThreadPoolExecutor(32) as pool:
        done = sum(pool.map(write, range(32)))

    assert done == 100
    assert used(app, acme, Quota.CARDS) == 100
    assert in_tenant(app, acme, lambda session: len(session.scalars(select(Card)).all())) == 100


def take_one(session: Any, number: str) -> None:
    consume(session, Quota.CARDS)
    session.add(Card(**card(number)))


def test_processes_at_the_limit_get_exactly_what_it_allows(
    app: Flask, acme: Visitor, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    give(app, acme, TermKind.LIMIT, Quota.CARDS, 50)
    told = tmp_path / "settings.json"
    told.write_text(json.dumps(plain(make_settings()), default=str))
    command = [sys.executable, "-m", "tests.app.consuming_process", str(told), str(acme.tenant_id), "20", "8"]

    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    done = sum(int(process.communicate("go\n", timeout=60)[0]) for process in started)

    assert done == 50
    assert used(app, acme, Quota.CARDS) == 50


# Nearing the limit ------------------------------------------------------------------------------------


def events(app: Flask, visitor: Visitor) -> list[tuple[str, int, int]]:
    rows = in_tenant(app, visitor, lambda session: session.scalars(select(QuotaEvent).order_by(QuotaEvent.at)).all())
    return [(row.quota, row.percent, row.used) for row in rows]


def test_each_threshold_is_told_of_once_and_audited(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.CARDS, 10)

    for _ in range(10):
        in_tenant(app, acme, lambda session: consume(session, Quota.CARDS))

    assert events(app, acme) == [("cards", 80, 8), ("cards", 100, 10)]
    audited = acme.get("/api/v1/audit?action=quota.reached").get_json()["items"]
    assert [entry["after"] for entry in audited] == [
        {"quota": "cards", "percent": 100, "used": 10, "limit": 10},
        {"quota": "cards", "percent": 80, "used": 8, "limit": 10},
    ]


def test_one_step_over_both_thresholds_is_two_events(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.API_CALLS_DAY, 10)

    in_tenant(app, acme, lambda session: consume(session, Quota.API_CALLS_DAY, 10))

    assert events(app, acme) == [("api_calls_day", 80, 10), ("api_calls_day", 100, 10)]


def test_each_window_is_told_of_anew(app: Flask, acme: Visitor, truth: Truth) -> None:
    give(app, acme, TermKind.LIMIT, Quota.API_CALLS_HOUR, 10)
    in_tenant(app, acme, lambda session: consume(session, Quota.API_CALLS_HOUR, 9))
    truth.execute(
        "UPDATE quota_counters SET window_at = window_at - interval '1 hour' WHERE tenant_id = %s", [acme.tenant_id]
    )

    in_tenant(app, acme, lambda session: consume(session, Quota.API_CALLS_HOUR, 8))

    assert [percent for _quota, percent, _used in events(app, acme)] == [80, 80]


# Counting again ---------------------------------------------------------------------------------------


def test_counter_that_drifted_is_set_right_and_the_difference_audited(app: Flask, acme: Visitor, truth: Truth) -> None:
    for number in range(3):
        assert acme.post("/api/v1/cards", json=card(number)).status_code == 201
    truth.execute("UPDATE quota_counters SET used = 9 WHERE tenant_id = %s AND quota = 'cards'", [acme.tenant_id])

    off = in_tenant(app, acme, lambda session: recount(session, Quota.CARDS))

    assert off == -6
    assert used(app, acme, Quota.CARDS) == 3
    [entry] = acme.get("/api/v1/audit?action=quota.recounted").get_json()["items"]
    assert (entry["before"], entry["after"]) == ({"quota": "cards", "used": 9}, {"used": 3})


def test_counter_that_is_right_is_left_alone(app: Flask, acme: Visitor) -> None:
    assert acme.post("/api/v1/cards", json=card(1)).status_code == 201

    assert in_tenant(app, acme, lambda session: recount(session, Quota.CARDS)) == 0
    assert acme.get("/api/v1/audit?action=quota.recounted").get_json()["items"] == []


def test_what_was_done_in_an_hour_cannot_be_counted_again(app: Flask, acme: Visitor) -> None:
    with pytest.raises(ValueError, match="nothing is left"):
        in_tenant(app, acme, lambda session: recount(session, Quota.API_CALLS_HOUR))


# Where it is asked ------------------------------------------------------------------------------------


def test_card_over_the_limit_is_refused_by_the_api_and_a_deleted_one_makes_room(app: Flask, acme: Visitor) -> None:
    give(app, acme, TermKind.LIMIT, Quota.CARDS, 2)
    first, _second = (acme.post("/api/v1/cards", json=card(number)) for number in range(2))

    refused = acme.post("/api/v1/cards", json=card(2))
    assert codes(refused) == (403, "quota_exceeded")
    assert refused.get_json()["quota"] == "cards"

    assert acme.call("DELETE", f"/api/v1/cards/{first.get_json()['id']}").status_code == 204
    assert acme.post("/api/v1/cards", json=card(3)).status_code == 201


def test_card_that_cannot_be_stored_is_not_counted(app: Flask, acme: Visitor) -> None:
    assert acme.post("/api/v1/cards", json=card(1)).status_code == 201

    unknown = card(2) | {"team_id": "00000000-0000-7000-8000-000000000000"}
    assert acme.post("/api/v1/cards", json=unknown).status_code == 400

    assert used(app, acme, Quota.CARDS) == 1
