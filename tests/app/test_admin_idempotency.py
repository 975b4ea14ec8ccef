"""A POST that is sent again is answered again, and done once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask, g
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.staff.permissions import StaffPermission
from tests.app.conftest import Truth, codes, fields, new_email
from tests.app.staffing import Staffer, key_client, staff_client

REASON = "asked for by the customer"


@pytest.fixture
def ana(app: Flask) -> Staffer:
    return staff_client(app)


def create(staffer: Staffer, key: str | None, name: str, **more: Any) -> TestResponse:
    headers = {} if key is None else {"Idempotency-Key": key}
    return staffer.post("/tenants", json={"name": name, "plan": "basic", "reason": REASON, **more}, headers=headers)


def how_many(staffer: Staffer, name: str) -> int:
    return len(staffer.get("/tenants", query_string={"search": name}).get_json()["items"])


def test_repeated_request_gets_the_first_answer_and_is_done_once(ana: Staffer) -> None:
    key, name = uuid4().hex, uuid4().hex

    first, second = create(ana, key, name), create(ana, key, name)

    assert first.status_code == second.status_code == 201
    assert first.get_json() == second.get_json()
    assert first.headers["Location"] == second.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert how_many(ana, name) == 1


def test_without_a_key_each_request_is_done(ana: Staffer) -> None:
    name = uuid4().hex

    create(ana, None, name)
    create(ana, None, name)

    assert how_many(ana, name) == 2


def test_key_of_another_body_is_refused(ana: Staffer) -> None:
    key, name = uuid4().hex, uuid4().hex
    assert create(ana, key, name).status_code == 201

    answer = create(ana, key, name, with_examples=True)

    assert codes(answer) == (422, "idempotency_key_reused")
    assert how_many(ana, name) == 1


def test_key_of_another_route_is_refused(ana: Staffer) -> None:
    key = uuid4().hex
    made = create(ana, key, uuid4().hex).get_json()

    answer = ana.post(f"/tenants/{made['id']}/provision", json={"reason": REASON}, headers={"Idempotency-Key": key})

    assert codes(answer) == (422, "idempotency_key_reused")


def test_keys_of_two_actors_are_two(app: Flask, ana: Staffer) -> None:
    key, name = uuid4().hex, uuid4().hex
    bob = key_client(app, StaffPermission.TENANTS_READ, StaffPermission.TENANTS_WRITE)

    assert create(ana, key, name).status_code == 201
    assert create(bob, key, name).status_code == 201

    assert how_many(ana, name) == 2


def test_refusal_leaves_the_key_free(ana: Staffer) -> None:
    key, name = uuid4().hex, uuid4().hex
    assert codes(create(ana, key, name, slug="x" * 64)) == (400, "invalid_input")

    assert create(ana, key, name).status_code == 201


def test_key_counts_no_more_after_a_day(ana: Staffer, truth: Truth) -> None:
    key, name = uuid4().hex, uuid4().hex
    create(ana, key, name)
    until = truth.execute("SELECT expires_at FROM kept_answers WHERE key = %s", [key]).fetchone()
    assert until is not None
    assert timedelta(hours=23) < until[0] - datetime.now(UTC) <= timedelta(hours=24)

    truth.execute("UPDATE kept_answers SET expires_at = now() WHERE key = %s", [key])

    assert "Idempotency-Replayed" not in create(ana, key, name).headers
    assert how_many(ana, name) == 2


@pytest.mark.parametrize("key", ["", "x" * 201, "tab\tbed", "\N{SNOWMAN}".encode().decode("latin-1")])
def test_key_that_cannot_be_used_is_refused(ana: Staffer, key: str) -> None:
    answer = create(ana, key, uuid4().hex)

    assert codes(answer) == (400, "invalid_input")
    assert fields(answer) == ["Idempotency-Key"]


def test_secret_is_not_kept_and_the_repetition_is_told_so(ana: Staffer, truth: Truth) -> None:
    key = uuid4().hex
    body = {"email": new_email(), "role": "support", "reason": REASON}
    first = ana.post("/staff", json=body, headers={"Idempotency-Key": key})
    assert first.status_code == 201

    second = ana.post("/staff", json=body, headers={"Idempotency-Key": key})

    assert codes(second) == (409, "idempotency_done")
    kept = truth.execute("SELECT kept_answers::text FROM kept_answers WHERE key = %s", [key]).fetchone()
    assert kept is not None
    assert first.get_json()["link_token"] not in kept[0]


def held_up(make_app: Callable[..., Flask]) -> tuple[Flask, threading.Event, threading.Event]:
    """An application whose first creation of a tenant waits, after its key was claimed, until it is let go."""
    app = make_app()
    has_begun, may_go_on = threading.Event(), threading.Event()

    def wait() -> None:
        if g.get("kept_answer") is not None and not has_begun.is_set():
            has_begun.set()
            assert may_go_on.wait(10)

    app.before_request_funcs["admin"].append(wait)
    return app, has_begun, may_go_on


def test_of_two_at_once_one_is_done_and_the_other_told_to_wait(make_app: Callable[..., Flask]) -> None:
    key, name = uuid4().hex, uuid4().hex
    app, has_begun, may_go_on = held_up(make_app)
    ana = staff_client(app)
    answers: list[TestResponse] = []
    first = threading.Thread(target=lambda: answers.append(create(ana, key, name)))
    first.start()
    assert has_begun.wait(10)

    second = create(ana, key, name)
    may_go_on.set()
    first.join(10)

    assert codes(second) == (409, "idempotency_under_way")
    assert second.headers["Retry-After"] == "1"
    assert [answer.status_code for answer in answers] == [201]
    assert how_many(ana, name) == 1


def test_many_at_once_do_it_once(app: Flask, ana: Staffer) -> None:
    key, name = uuid4().hex, uuid4().hex
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(create(ana, key, name).status_code)) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(statuses) == 8
    assert set(statuses) <= {201, 409}
    assert how_many(ana, name) == 1


def test_request_that_was_killed_can_be_sent_again_after_a_while(ana: Staffer, truth: Truth) -> None:
    key, name = uuid4().hex, uuid4().hex
    create(ana, key, name)
    truth.execute("UPDATE kept_answers SET status = NULL, body = NULL WHERE key = %s", [key])
    assert codes(create(ana, key, name)) == (409, "idempotency_under_way")

    truth.execute("UPDATE kept_answers SET begun_at = now() - interval '6 minutes' WHERE key = %s", [key])

    assert create(ana, key, name).status_code == 201


def test_tenants_routes_know_nothing_of_the_header(client: FlaskClient, acme: Any) -> None:
    headers = {"Idempotency-Key": "the same"}

    for _ in range(2):
        answer = acme.post("/api/v1/people", json={"name": "Ada"}, headers=headers)
        assert answer.status_code == 201
        assert "Idempotency-Replayed" not in answer.headers
