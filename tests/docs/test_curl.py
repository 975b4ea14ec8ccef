"""The README's curl commands, typed as they stand against the development application on a real port."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from app.development import development_app, open_development
from tenancy.embedded.sources import URL_VARIABLE
from tests.docs.pages import Block, blocks_of, commands
from tests.docs.test_readme import README

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
SIGN_IN, SIX_WAYS, CONFLICT = 0, 1, 2


def curl_blocks() -> list[Block]:
    return [block for block in blocks_of(README) if block.language == "console" and "curl" in block.text]


class QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep the access log out of the tests' output."""


@contextmanager
def own_server() -> Iterator[None]:
    """Leave the server of TENANCY_DATABASE_URL alone: the development application sets passwords on it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(URL_VARIABLE, raising=False)
        yield


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Serve what `make run` serves, and type commands at a prompt that has signed in as the README says."""
    with (
        own_server(),
        open_development(tmp_path_factory.mktemp("instance")) as development,
        development_app(development) as app,
    ):
        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
        thread = Thread(target=server.serve_forever)
        thread.start()
        password = development.secrets.accounts["mara@acme.example"]
        signed_in = "\n".join(commands(curl_blocks()[SIGN_IN].text))
        token = run(f'{signed_in}\nprintf %s "$AUTH"', port=server.port, PASSWORD=password)
        try:
            yield lambda command: run(command, port=server.port, AUTH=token)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def run(command: str, *, port: int, **variables: str) -> str:
    done = subprocess.run(
        ["bash", "-euc", command.replace(":5000", f":{port}")],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def answer(shell: Callable[[str], str], command: str) -> Any:
    return json.loads(shell(command))


def test_each_of_six_ways_leads_to_acme(shell: Callable[[str], str]) -> None:
    ways = commands(curl_blocks()[SIX_WAYS].text)

    slugs = [answer(shell, way)["tenant"]["slug"] for way in ways]

    assert slugs == ["acme"] * 6


def test_each_way_is_evidence_that_must_agree(shell: Callable[[str], str]) -> None:
    _token_alone, *ways = commands(curl_blocks()[SIX_WAYS].text)

    codes = [answer(shell, way.replace("acme", "globex"))["code"] for way in ways]

    assert codes == ["conflicting_references"] * 5


def test_conflict_is_answered_as_shown(shell: Callable[[str], str]) -> None:
    (command,) = commands(curl_blocks()[CONFLICT].text)
    (shown,) = (block for block in blocks_of(README) if block.language == "json")

    given = answer(shell, command)

    assert json.loads(shown.text).items() <= given.items()
