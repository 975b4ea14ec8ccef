"""Two at one moment: the second finds what the first has done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from flask import Flask
from werkzeug.test import TestResponse

from tests.app.conftest import PASSWORD, Truth, Visitor, codes, new_email


def at_once(app: Flask, requests: Sequence[tuple[str, dict[str, str]]]) -> list[TestResponse]:
    barrier = Barrier(len(requests))

    def send(path: str, body: dict[str, str]) -> TestResponse:
        barrier.wait()
        return app.test_client(use_cookies=False).post(path, json=body)

    with ThreadPoolExecutor(len(requests)) as pool:
        return [future.result() for future in [pool.submit(send, path, body) for path, body in requests]]


def test_refresh_token_used_at_once_by_many_renews_for_one_and_ends_the_sign_in(app: Flask, acme: Visitor) -> None:
    """T104"""
    body = {"refresh_token": acme.refresh_token}

    answers = at_once(app, [("/api/v1/auth/refresh", body)] * 4)

    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
    assert codes(acme.get("/api/v1/me")) == (401, "not_signed_in")


def test_organizations_of_one_name_registered_at_once_get_addresses_of_their_own(app: Flask) -> None:
    def registration() -> dict[str, str]:
        return {"organization_name": "Rush Hour", "admin_email": new_email(), "admin_password": PASSWORD}

    answers = at_once(app, [("/api/v1/auth/register-organization", registration()) for _ in range(4)])

    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.get_json()["slug"] for answer in answers}) == 4


def test_address_registered_at_once_by_many_is_one_account(app: Flask, truth: Truth) -> None:
    email = new_email()
    body = {"organization_name": "Twins", "admin_email": email, "admin_password": PASSWORD}

    answers = at_once(app, [("/api/v1/auth/register-organization", body)] * 4)

    assert {answer.status_code for answer in answers} <= {201, 409}
    assert 201 in {answer.status_code for answer in answers}
    assert truth.execute("SELECT count(*) FROM accounts WHERE email = %s", [email]).fetchone() == (1,)


def test_rows_of_tenants_written_at_once_stay_apart(app: Flask, register: Callable[..., Visitor]) -> None:
    visitors = [register(f"Crowd {number}") for number in range(3)]

    def write(visitor: Visitor) -> list[str]:
        for number in range(10):
            visitor.post("/api/v1/people", json={"name": f"{visitor.slug} {number}"})
        return [item["name"] for item in visitor.get("/api/v1/people").get_json()["items"]]

    with ThreadPoolExecutor(len(visitors)) as pool:
        found = list(pool.map(write, visitors))

    for visitor, names in zip(visitors, found, strict=True):
        assert len(names) == 10
        assert all(name.startswith(visitor.slug) for name in names)
