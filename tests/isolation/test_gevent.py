"""T090 on gevent: whom a greenlet acts for."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import ROLES, Database, SomeTenant

ROOT = Path(__file__).parents[2]


@pytest.fixture
def found(database: Database, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]) -> dict[str, Any]:
    if importlib.util.find_spec("gevent") is None:
        missing = "T090 IS NOT PROVEN FOR GEVENT HERE: pip install gevent"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    person_of(acme, "Ada")
    person_of(globex, "Eve")
    done = subprocess.run(
        [sys.executable, "-m", "tests.isolation.greenlets", database.url(ROLES.app), str(acme.id), str(globex.id)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def test_greenlet_acts_for_the_tenant_it_was_handed_and_otherwise_for_nobody(found: dict[str, Any]) -> None:
    """T090: gevent hands nothing on by itself; `copy_context().run` does, as long as the scope is open."""
    assert found == {
        "here": ["Ada"],
        "greenlet": "NoTenantError",
        "greenlet, handed the context": ["Ada"],
        "greenlet, handed a scope that has ended": "NoTenantError",
        "thread": "NoTenantError",
        "thread, handed the context": ["Ada"],
        "thread, afterwards": "NoTenantError",
        "thread, afterwards, without a session": "InsufficientPrivilege",
        "pool, handed A": ["Ada"],
        "pool, handed B": ["Eve"],
        "pool, afterwards": "InsufficientPrivilege",
        "both at once": [[["Ada"]], [["Eve"]]],
    }
