"""The directory across processes: a change reaches all of them, and a fork shares nothing."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.conftest import ROLES, Database, SomeTenant


@pytest.fixture
def start(database: Database, acme: SomeTenant) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def start(task: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-m", "tests.tenancy.directory_process", task]
        process = subprocess.Popen([*command, database.url(ROLES.app), acme.slug], stdout=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def heard(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said


def test_suspension_is_effective_in_every_process_within_a_second(
    start: Callable[[str], subprocess.Popen[str]], acme: SomeTenant, truth: psycopg.Connection[Any]
) -> None:
    """T112"""
    processes = [start("watch"), start("watch")]
    before = [heard(process) for process in processes]

    truth.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = %s", [acme.id])
    suspended_at = time.time()
    after = [heard(process) for process in processes]

    assert [(said["listening"], said["status"]) for said in before] == [(True, "active")] * 2
    assert [said["status"] for said in after] == ["suspended"] * 2
    assert max(said["at"] for said in after) - suspended_at < 1.0


def test_forked_child_starts_anew_and_leaves_the_parents_connections_alone(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = start("fork")

    child, parent = heard(process), heard(process)

    assert child == {
        "pid": child["pid"], "who": "child", "remembered": False, "status": "active", "listening": True, "talks_on": 0,
    }  # fmt: skip
    assert parent == {"pid": parent["pid"], "who": "parent", "listening": True, "status": "active"}
    assert child["pid"] != parent["pid"]
    assert process.wait(10) == 0
