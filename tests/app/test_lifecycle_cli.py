"""The command line of tenants: each command does what it says, in the operator's name, and failures are a sentence."""

from __future__ import annotations

import re

import pytest
from click.testing import Result
from flask import Flask

from app.tenants.states import Status
from tests.app.conftest import Truth
from tests.app.lives import new_slug


@pytest.fixture
def run(app: Flask) -> object:
    def run_it(*words: str) -> Result:
        return app.test_cli_runner().invoke(args=["tenants", *words])

    return run_it


def status_of(truth: Truth, slug: str) -> str | None:
    row = truth.execute("SELECT status FROM tenants WHERE slug = %s", [slug]).fetchone()
    return None if row is None else str(row[0])


def test_tenant_goes_through_its_life(run, truth: Truth) -> None:  # type: ignore[no-untyped-def]
    slug = new_slug()
    made = run("create", "Initech", "--slug", slug, "--reason", "a customer called")
    assert made.exit_code == 0, made.output

    seen = [status_of(truth, slug)]
    for command in ("suspend", "resume", "archive", "delete", "keep"):
        answer = run(command, slug, "--reason", "night shift")
        assert answer.exit_code == 0, answer.output
        seen.append(status_of(truth, slug))

    history = run("history", slug)
    assert seen == ["active", "suspended", "active", "archived", "deleting", "archived"]
    assert history.output.count("night") >= 5


def test_due_tenant_is_erased_from_the_command_line(run, truth: Truth) -> None:  # type: ignore[no-untyped-def]
    slug = new_slug()
    run("create", "Initech", "--slug", slug, "--reason", "a customer called")
    run("delete", slug, "--grace-days", "0", "--reason", "asked for")

    answer = run("erase-due")

    assert answer.exit_code == 0, answer.output
    assert status_of(truth, slug) == "deleted"


def test_many_change_after_a_dry_run_only(run, truth: Truth) -> None:  # type: ignore[no-untyped-def]
    slugs = [new_slug() for _ in range(2)]
    ids = []
    for slug in slugs:
        made = run("create", "Initech", "--slug", slug, "--reason", "a customer called")
        ids += ["--id", re.findall(r"the id ([0-9a-f-]{36})", made.output)[0]]

    dry = run("change-many", "--to", "suspended", *ids)
    between = [status_of(truth, slug) for slug in slugs]
    token = re.findall(r"--token (\w+)", dry.output)[0]
    done = run("change-many", "--to", "suspended", *ids, "--token", token, "--reason", "unpaid")

    assert dry.output.count("2 would change; 0 match and cannot") == 1
    assert between == ["active", "active"]
    assert done.exit_code == 0, done.output
    assert "2 changed, 0 failed." in done.output
    assert [status_of(truth, slug) for slug in slugs] == ["suspended", "suspended"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("suspend", "nobody-has-this-one", "--reason", "x"), "No tenant has the slug or the id"),
        (("create", "Initech", "--slug", "admin", "--reason", "x"), "this slug is reserved"),
        (("change-many", "--to", "suspended"), "names nothing"),
        (("change-many", "--to", "suspended", "--plan", "basic", "--token", "x"), "--reason is missing"),
    ],
)
def test_failure_is_a_sentence_and_a_code(run, words: tuple[str, ...], told: str) -> None:  # type: ignore[no-untyped-def]
    answer = run(*words)

    assert answer.exit_code != 0
    assert told in answer.output
    assert "Traceback" not in answer.output


def test_step_that_fails_leaves_the_tenant_closed_and_says_how_to_go_on(run, truth: Truth) -> None:  # type: ignore[no-untyped-def]
    slug, domain = new_slug(), f"{new_slug('crm')}.example"
    holder = new_slug()
    run("create", "Globex", "--slug", holder, "--reason", "x")
    truth.execute(
        "INSERT INTO domains (tenant_id, id, domain, verified_at) SELECT tenant_id, uuidv7(), %s, now() FROM tenants"
        " WHERE slug = %s",
        [domain, holder],
    )

    answer = run("create", "Initech", "--slug", slug, "--domain", domain, "--reason", "x")

    assert answer.exit_code == 1
    assert "It stays closed" in answer.output
    assert status_of(truth, slug) == Status.PENDING
