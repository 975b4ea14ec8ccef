"""`python -m app`: what stays between runs, how it stops, and what it says when it cannot start."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests.conftest import ROLES, Database

Program = subprocess.Popen[str]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start the program in a folder of the test's own."""
    started: list[Program] = []

    def start(*arguments: str, folder: Path = tmp_path / "instance", **variables: str) -> Program:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("APP_", "TENANCY_"))}
        program = subprocess.Popen(
            [sys.executable, "-m", "app", "--folder", str(folder), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=kept | variables,
        )
        started.append(program)
        return program

    yield start
    for program in started:
        program.kill()
        program.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def sign_in_page(port: int) -> str:
    """Wait until the program serves, and return Acme's sign-in page."""
    asked = Request(f"http://127.0.0.1:{port}/sign-in", headers={"Host": f"acme.localhost:{port}"})
    deadline = time.monotonic() + 60
    while True:
        try:
            with urlopen(asked, timeout=60) as answer:
                return str(answer.read().decode())
        except URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_tells_what_to_open_and_stops_when_asked(run: Callable[..., Program], how: signal.Signals) -> None:
    port = free_port()
    program = run("--port", str(port))
    page = sign_in_page(port)

    program.send_signal(how)
    said, _ = program.communicate(timeout=30)

    assert "<title>Sign in · Acme</title>" in page
    assert program.returncode == 0
    assert f"http://acme.localhost:{port}" in said
    assert re.search(r"olivia@example\.com +\S{20} +owner of Acme, owner of Globex", said)
    assert said.endswith("Stopped. The data is kept for the next run.\n")
    assert "Traceback" not in said


def test_a_run_after_a_kill_keeps_data_and_secrets(run: Callable[..., Program], tmp_path: Path) -> None:
    kept = tmp_path / "instance" / "development.json"
    ports = free_port(), free_port()
    killed = run("--port", str(ports[0]))
    sign_in_page(ports[0])
    before = json.loads(kept.read_text())
    killed.kill()

    again = run("--port", str(ports[1]))
    page = sign_in_page(ports[1])
    again.terminate()
    said, _ = again.communicate(timeout=30)

    assert "Acme" in page
    assert json.loads(kept.read_text()) == before
    assert before["accounts"]["olivia@example.com"] in said
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_busy_port_is_said_before_anything_is_made(run: Callable[..., Program], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        program = run("--port", str(port))
        said, _ = program.communicate(timeout=30)

    assert program.returncode == 1
    assert said == f"Port {port} is in use. Stop what has it, or choose another: make run APP_PORT=5001.\n"
    assert not (tmp_path / "instance").exists()


def test_a_dead_database_is_said_without_a_traceback(run: Callable[..., Program]) -> None:
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"

    program = run("--port", "0", TENANCY_DATABASE_URL=url)
    said, _ = program.communicate(timeout=30)

    assert program.returncode == 1
    assert said.startswith("The server of TENANCY_DATABASE_URL refused: ")
    assert "Traceback" not in said


def test_a_folder_that_cannot_be_used_is_said(run: Callable[..., Program], tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")

    program = run("--port", "0", folder=in_the_way / "instance")
    said, _ = program.communicate(timeout=30)

    assert program.returncode == 1
    assert said == (
        f"{str(in_the_way / 'instance' / 'development.json')!r} cannot be used: Not a directory. "
        "Run as whoever owns it, or choose another with --folder.\n"
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"accounts": 7}'])
def test_a_damaged_file_of_secrets_is_said(run: Callable[..., Program], tmp_path: Path, content: str) -> None:
    (tmp_path / "instance").mkdir()
    (tmp_path / "instance" / "development.json").write_text(content)

    program = run("--port", "0")
    said, _ = program.communicate(timeout=30)

    assert program.returncode == 1
    assert said.endswith("is damaged. Remove it: new passwords are made, the data stays.\n")


def test_new_passwords_open_the_accounts_that_exist(run: Callable[..., Program], tmp_path: Path) -> None:
    """The file of secrets may be lost while the data stays: the next run must not lock everybody out."""
    kept = tmp_path / "instance" / "development.json"
    port = free_port()
    first = run("--port", str(port))
    sign_in_page(port)
    first.terminate()
    first.communicate(timeout=30)
    kept.unlink()

    second = run("--port", str(port))
    sign_in_page(port)
    password = json.loads(kept.read_text())["accounts"]["olivia@example.com"]
    body = json.dumps({"email": "olivia@example.com", "password": password, "tenant": "acme"}).encode()
    asked = Request(f"http://127.0.0.1:{port}/api/v1/auth/login", body, {"Content-Type": "application/json"})
    with urlopen(asked, timeout=30) as answer:
        status = answer.status
    second.terminate()
    second.communicate(timeout=30)

    assert status == 200


def test_a_database_given_by_urls_is_migrated_and_seeded(run: Callable[..., Program], empty_database: Database) -> None:
    variables = {
        "APP_MIGRATOR_DATABASE_URL": empty_database.url(ROLES.migrator),
        "APP_DATABASE_URL": empty_database.url(ROLES.app),
        "APP_PLATFORM_DATABASE_URL": empty_database.url(ROLES.platform),
        "APP_BASE_DOMAIN": "example.com",
        "APP_RESOLVERS": "subdomain",
        "APP_SECRET_KEY": "k" * 32,
        "APP_JWT_KEYS": json.dumps({"test": "k" * 32}),
        "APP_JWT_SIGNING_KID": "test",
        "APP_STORAGE_URL": "file:///var/lib/crm/files",
        "APP_SEED_PASSWORD": "Correct horse battery 1",
    }

    said = [run(command, **variables).communicate(timeout=60)[0] for command in ("migrate", "seed")]

    assert said == ["", ""]
    with empty_database.connect("postgres") as truth:
        assert truth.execute("SELECT slug FROM tenants ORDER BY slug").fetchall() == [("acme",), ("globex",)]
