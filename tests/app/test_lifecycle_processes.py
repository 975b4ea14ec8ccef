"""T112: what is closed in one process is closed in every other within a second, and open again likewise."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from pydantic import SecretStr

from app.auth.access import signed_in
from app.config import Settings
from app.tenants.operations import archive, resume, suspend
from app.tenants.registrar import Registrar
from tests.app.conftest import PASSWORD, Visitor
from tests.app.lives import WHY, as_staff, registrar_of, within_a_second

SECRET = "s" * 48


class Elsewhere:
    """The other process, asked over its standard input."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def get(self, host: str, **evidence: str) -> tuple[int, str | None]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"host": host, **evidence}) + "\n")
        self._process.stdin.flush()
        status, code = json.loads(self._process.stdout.readline())
        return status, code


def plain(settings: Settings) -> dict[str, Any]:
    def open_up(value: Any) -> Any:
        if isinstance(value, SecretStr):
            return value.get_secret_value()
        return {name: open_up(one) for name, one in value.items()} if isinstance(value, dict) else value

    return {name: open_up(value) for name, value in settings.model_dump().items() if value is not None}


@pytest.fixture(scope="module")
def shared(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(secret_key=SECRET)


@pytest.fixture(scope="module")
def elsewhere(shared: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    told = tmp_path_factory.mktemp("other") / "settings.json"
    told.write_text(json.dumps(plain(shared), default=str))
    command = [sys.executable, "-m", "tests.app.serving_process", str(told)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        yield Elsewhere(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=10)


@pytest.fixture
def registrar(app: Flask) -> Registrar:
    return registrar_of(app)


@pytest.mark.parametrize(("change", "told"), [(suspend, (403, "tenant_suspended")), (archive, (404, "not_found"))])
def test_live_token_is_refused_in_another_process_within_a_second(
    registrar: Registrar, acme: Visitor, elsewhere: Elsewhere, change: Callable[..., object], told: tuple[int, str]
) -> None:
    """T112"""
    host = f"http://{acme.slug}.localhost"
    assert within_a_second(lambda: elsewhere.get(host, token=acme.access_token) == (200, None))

    with as_staff():
        change(registrar, acme.tenant_id, reason=WHY)

    assert within_a_second(lambda: elsewhere.get(host, token=acme.access_token)[0] == told[0])
    member, stranger = elsewhere.get(host, token=acme.access_token), elsewhere.get(host)
    assert (member[1] == "tenant_suspended", stranger[0]) == (told[0] == 403, 404)
    with as_staff():
        resume(registrar, acme.tenant_id, reason=WHY)
    assert within_a_second(lambda: elsewhere.get(host, token=acme.access_token) == (200, None))


def test_open_session_of_a_browser_is_refused_in_another_process_within_a_second(
    registrar: Registrar, acme: Visitor, elsewhere: Elsewhere, make_app: Callable[..., Flask]
) -> None:
    """T112"""
    host = f"http://{acme.slug}.localhost"
    browser = make_app(secret_key=SECRET).test_client()
    page = browser.get("/sign-in", base_url=host).get_data(as_text=True)
    token = page.split('name="csrf_token"')[1].split('value="')[1].split('"')[0]
    answer = browser.post(
        "/sign-in", base_url=host, data={"csrf_token": token, "email": acme.email, "password": PASSWORD}
    )
    assert answer.status_code in (302, 303), answer.get_data(as_text=True)
    cookie = browser.get_cookie("session", domain=f"{acme.slug}.localhost")
    assert cookie is not None
    sent = f"session={cookie.value}"
    assert within_a_second(lambda: elsewhere.get(host, cookie=sent, path="/people")[0] == 200)

    with as_staff():
        suspend(registrar, acme.tenant_id, reason=WHY)

    assert within_a_second(lambda: elsewhere.get(host, cookie=sent, path="/people") == (403, "tenant_suspended"))


def test_streamed_answer_that_has_begun_ends_and_the_next_is_refused(
    registrar: Registrar, acme: Visitor, make_app: Callable[..., Flask]
) -> None:
    """Cut off, it would look whole to many a client, and could not say why it is not."""
    app = make_app()

    @app.get("/api/v1/numbers")
    @signed_in
    def numbers() -> Response:
        return Response(f"{number} " for number in range(3))

    client, host = app.test_client(use_cookies=False), f"http://{acme.slug}.localhost"
    headers = {"Authorization": f"Bearer {acme.access_token}"}
    answer = client.get("/api/v1/numbers", base_url=host, headers=headers, buffered=False)
    parts = iter(answer.response)
    begun = next(parts)

    with as_staff():
        suspend(registrar, acme.tenant_id, reason=WHY)

    assert within_a_second(lambda: client.get("/api/v1/numbers", base_url=host, headers=headers).status_code == 403)
    assert [begun, *parts] == [b"0 ", b"1 ", b"2 "]
    answer.close()
