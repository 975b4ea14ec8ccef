"""The operator's page, typed from top to bottom at a shell, against the development application on a real port."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from threading import Thread
from typing import Any

import pytest
from werkzeug.serving import make_server

from app.audit.actors import Actor, ActorKind, acting_as
from app.auth.desk import EXTENSION
from app.development import development_app, open_development
from app.staff.links import issue_first_owner_link
from tests.docs.pages import DOCS, blocks_of
from tests.docs.test_curl import QuietHandler, own_server, run

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
PAGE = DOCS / "howto" / "operate.md"
_MARK = "\x1e"


def typed_in(text: str) -> list[str]:
    """What follows each prompt, up to the next: a quoted text may go over several lines."""
    return [command.rstrip() for command in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]


def session_of(page_commands: list[str]) -> str:
    """The commands as one session; what each prints is set apart."""
    return f"\nprintf '{_MARK}'\n".join(page_commands)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What each command that begins with curl answered, by the command."""
    typed = [c for block in blocks_of(PAGE) if block.language == "console" for c in typed_in(block.text)]
    with (
        own_server(),
        open_development(tmp_path_factory.mktemp("instance")) as development,
        development_app(development) as app,
    ):
        with app.app_context(), acting_as(Actor(ActorKind.SYSTEM, "tests", "tests")):
            once = issue_first_owner_link(app.extensions[EXTENSION])
        assert once is not None
        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            printed = run(session_of(typed), port=server.port, ONCE=once, PASSWORD="Correct horse battery 1")
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
    found = dict(zip(typed, printed.split(_MARK), strict=True))
    return {command: json.loads(text) for command, text in found.items() if command.startswith("curl")}


def answer(answers: Mapping[str, Any], ending: str) -> Any:
    """The answer of the only command that has these words, its last ones if there are several."""
    found = [command for command in answers if ending in command]
    (chosen,) = found if len(found) == 1 else [command for command in found if command.endswith(ending)]
    return answers[chosen]


def test_no_command_of_the_page_is_refused(answers: Mapping[str, Any]) -> None:
    refused = {command: value for command, value in answers.items() if "status" in value and "detail" in value}

    assert refused == {}
    assert len(answers) >= 20


def test_tenant_goes_from_registration_to_scheduled_deletion(answers: Mapping[str, Any]) -> None:
    assert answer(answers, "search=initech")["items"][0]["status"] == "active"
    assert answer(answers, "/suspend")["status"] == "suspended"
    assert answer(answers, "/resume")["status"] == "active"
    assert answer(answers, "-X DELETE")["status"] == "deleting"


def test_plan_changes_as_rehearsed_and_the_exception_counts(answers: Mapping[str, Any]) -> None:
    rehearsed, done = answer(answers, "migrate?plan"), answer(answers, "/migrate --json")
    limits = {each["name"]: each for each in answer(answers, "$TENANT/limits")["items"]}

    assert rehearsed["gained"] == done["gained"] == ["biometric_auth", "custom_branding"]
    assert limits["users"]["limit"] == 1200
    assert [step["source"] for step in limits["users"]["steps"]] == ["default", "plan", "override"]


def test_audit_is_whole_afterwards_and_names_what_was_done(answers: Mapping[str, Any]) -> None:
    entries = answer(answers, "$TENANT/audit?")["items"]

    assert answer(answers, "$TENANT/audit/verify")["is_intact"] is True
    assert answer(answers, "admin/audit/verify")["is_intact"] is True
    assert {entry["action"] for entry in entries} >= {"tenant.status_changed", "impersonation.began"}
