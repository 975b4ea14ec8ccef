"""The command line: an operator's night, command by command, in her name, and a refusal is a sentence and a code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result
from flask import Flask
from pydantic import SecretStr

from app import close_app, create_app
from app.cli.commands import COMMANDS
from app.config import Settings
from tests.app.conftest import Truth, Visitor, new_email
from tests.app.staffing import add_staff

Run = Callable[..., Result]
BECAUSE = ("--reason", "night shift")


@pytest.fixture
def run(app: Flask) -> Run:
    return lambda *words: app.test_cli_runner().invoke(args=[*map(str, words)])


@pytest.fixture
def said(run: Run) -> Callable[..., Any]:
    """Run a command that does well, and return what it says as JSON."""

    def ask(*words: object) -> Any:
        answer = run(*words, "--json")
        assert answer.exit_code == 0, answer.output
        return json.loads(answer.stdout)

    return ask


def commands_of(group: click.Group, *above: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_of(command, *above, name)
        else:
            yield (*above, name), command


def audited(truth: Truth, tenant: Visitor, action: str) -> tuple[str, str, str]:
    """Who did it last, as what, and why."""
    row = truth.execute(
        "SELECT actor_kind, actor_label, reason FROM audit_entries WHERE tenant_id = %s AND action = %s"
        " ORDER BY id DESC LIMIT 1",
        [tenant.tenant_id, action],
    ).fetchone()
    assert row is not None, f"nothing says {action}"
    return row


# Tenants ----------------------------------------------------------------------------------------------


def test_tenants_are_listed_and_shown(said: Callable[..., Any], run: Run, acme: Visitor) -> None:
    page = said("tenants", "list", "--search", acme.slug)
    one = said("tenants", "show", acme.slug)

    assert [(item["id"], item["slug"], item["status"]) for item in page["items"]] == [
        (str(acme.tenant_id), acme.slug, "active")
    ]
    assert one["allowed"] == said("tenants", "show", acme.tenant_id)["allowed"]
    lines = run("tenants", "list", "--search", acme.slug).output.splitlines()
    assert any(acme.slug in line and str(acme.tenant_id) in line for line in lines)
    assert "may become" in run("tenants", "show", acme.slug).output


def test_tenants_of_another_state_are_not_listed(said: Callable[..., Any], acme: Visitor) -> None:
    assert said("tenants", "list", "--search", acme.slug, "--status", "suspended")["items"] == []


# Plans ------------------------------------------------------------------------------------------------


def test_plan_changes_only_when_told_to_do_it(said: Callable[..., Any], acme: Visitor, truth: Truth) -> None:
    rehearsed = said("plans", "change", acme.slug, "premium")
    before = said("plans", "show", acme.slug)["plan"]
    said("plans", "change", acme.slug, "premium", "--do-it", *BECAUSE)

    assert (rehearsed["direction"], rehearsed["is_blocked"]) == ("upgrade", False)
    assert (before, said("plans", "show", acme.slug)["plan"]) == ("basic", "premium")
    assert audited(truth, acme, "plan.changed")[2] == "night shift"


def test_override_counts_is_explained_and_taken_back(said: Callable[..., Any], acme: Visitor) -> None:
    said("plans", "override", "add", acme.slug, "limit", "cards", "7", "--until", "2099-01-01", *BECAUSE)
    limits = {one["quota"]: one["limit"] for one in said("usage", "limits", acme.slug)["items"]}
    why = said("plans", "explain", acme.slug, "cards")["steps"][-1]
    listed = said("plans", "override", "list", acme.slug)["items"]
    left = said("plans", "override", "remove", acme.slug, "limit", "cards", *BECAUSE)["items"]

    assert limits["cards"] == 7
    assert (why["source"], why["value"]) == ("override", 7)
    assert [(one["name"], one["value"], one["is_over"]) for one in listed] == [("cards", 7, False)]
    assert left == []


def test_limits_show_what_is_used(said: Callable[..., Any], acme: Visitor) -> None:
    used = {one["quota"]: one["used"] for one in said("usage", "limits", acme.slug)["items"]}

    assert used["users"] == 1


def test_usage_is_shown_and_drift_set_right(said: Callable[..., Any], run: Run, acme: Visitor, truth: Truth) -> None:
    said("invitations", "owner", acme.slug, new_email(), *BECAUSE)
    truth.execute("UPDATE quota_counters SET used = 9 WHERE tenant_id = %s AND quota = 'users'", [acme.tenant_id])

    off = said("usage", "recount", acme.slug, *BECAUSE)["off"]
    shown = said("usage", "show", acme.slug, "--range", "24h", "--bucket", "hour")

    assert off == {"users": -7}
    assert said("usage", "recount", acme.slug, *BECAUSE)["off"] == {}
    assert shown["bucket"] == "hour"
    assert "requests" in run("usage", "show", acme.slug).output
    assert run("usage", "show", acme.slug, "--range", "many").exit_code == 1


# Configuration ----------------------------------------------------------------------------------------


def test_configuration_is_set_remembered_and_restored(said: Callable[..., Any], acme: Visitor, truth: Truth) -> None:
    before = said("config", "get", acme.slug, "session.timeout")["items"][0]["value"]
    said("config", "set", acme.slug, "session.timeout", "900", *BECAUSE)
    change = said("config", "history", acme.slug)["items"][0]
    during = said("config", "get", acme.slug, "session.timeout")["items"][0]["value"]
    after = said("config", "restore", acme.slug, change["id"], *BECAUSE)["value"]

    assert (during, after) == (900, before)
    assert change["actor_label"].endswith("at the command line")
    assert audited(truth, acme, "configuration.changed")[2] == "night shift"


# Jobs -------------------------------------------------------------------------------------------------


def add_job(truth: Truth, tenant: Visitor, status: str, queue: str = "default") -> int:
    row = truth.execute(
        "INSERT INTO jobs.procrastinate_jobs (tenant, queue_name, task_name, args, status, scheduled_at)"
        " VALUES (%s, %s, 'files.tidy', '{}', %s, now() + interval '1 day') RETURNING id",
        [tenant.tenant_id, queue, status],
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_jobs_are_listed_retried_cancelled_and_resumed(said: Callable[..., Any], acme: Visitor, truth: Truth) -> None:
    failed, waiting = add_job(truth, acme, "failed"), add_job(truth, acme, "todo")
    add_job(truth, acme, "todo", "parked")

    listed = [(one["id"], one["state"]) for one in said("jobs", "list", "--tenant", acme.slug)["items"]]
    counts = said("jobs", "counts", "--tenant", acme.slug)
    said("jobs", "retry", failed, *BECAUSE)
    said("jobs", "cancel", failed, waiting, *BECAUSE)
    resumed = said("jobs", "resume-parked", acme.slug, *BECAUSE)
    after = said("jobs", "counts", "--tenant", acme.slug)["by_state"]

    assert (failed, "failed") in listed
    assert counts["total"] == 3
    assert resumed == {"resumed": 1}
    assert (after["cancelled"], after["failed"], after["parked"], after["waiting"]) == (2, 0, 0, 1)
    assert audited(truth, acme, "job.cancelled")[2] == "night shift"
    truth.execute("DELETE FROM jobs.procrastinate_jobs WHERE tenant = %s", [acme.tenant_id])


def test_job_that_cannot_be_retried_is_named(run: Run, acme: Visitor, truth: Truth) -> None:
    job_id = add_job(truth, acme, "succeeded")

    answer = run("jobs", "retry", job_id, *BECAUSE)

    assert answer.exit_code == 1
    assert f"Job {job_id}: Only a job that failed or was cancelled" in answer.output


# Domains and invitations ------------------------------------------------------------------------------


def test_domains_are_listed_with_the_record_they_need(said: Callable[..., Any], acme: Visitor) -> None:
    claimed = acme.post("/api/v1/domains", json={"domain": f"crm.{acme.slug}.example"})
    assert claimed.status_code == 201

    (one,) = said("domains", "list", acme.slug)["items"]

    assert (one["domain"], one["state"]) == (f"crm.{acme.slug}.example", "waiting")
    assert one["expected"]["value"].startswith("tenancy-verification=")


def test_owner_is_invited_and_the_invitation_revoked(
    said: Callable[..., Any], run: Run, acme: Visitor, truth: Truth
) -> None:
    email = new_email()

    invited = said("invitations", "owner", acme.slug, email, *BECAUSE)["items"]
    again = run("invitations", "owner", acme.slug, email, *BECAUSE)
    revoked = said("invitations", "revoke", acme.slug, email, *BECAUSE)["items"]

    assert [(one["email"], one["role"], one["revoked_at"]) for one in invited] == [(email, "owner", None)]
    assert (again.exit_code, "is invited already" in again.output) == (1, True)
    assert revoked[0]["revoked_at"] is not None
    assert said("invitations", "list", acme.slug)["items"] == revoked
    assert audited(truth, acme, "invitation.revoked")[0] == "system"


# Health -----------------------------------------------------------------------------------------------


def test_health_of_the_installation_and_of_a_tenant(said: Callable[..., Any], run: Run, acme: Visitor) -> None:
    assert [one["name"] for one in said("health")["checks"]] == ["database", "platform", "migrations", "listener"]
    assert [one["name"] for one in said("health", acme.slug)["checks"]][:3] == ["database", "cache", "storage"]
    assert "what to do" in run("health").output


def test_health_of_an_installation_that_is_down_is_an_exit_code(make_settings: Callable[..., Settings]) -> None:
    nowhere = SecretStr("postgresql+psycopg://x@127.0.0.1:1/x")
    app = create_app(make_settings().model_copy(update={"platform_database_url": nowhere}))

    answer = app.test_cli_runner().invoke(args=["health", "--json"])

    close_app(app)
    assert answer.exit_code == 1
    assert json.loads(answer.stdout)["state"] == "down"


# Who acts, and what is refused ------------------------------------------------------------------------


def test_command_is_audited_in_the_name_of_the_staff_who_act(
    app: Flask, said: Callable[..., Any], acme: Visitor, truth: Truth
) -> None:
    _, email = add_staff(app)

    said("config", "set", acme.slug, "session.timeout", "900", "--as", email, *BECAUSE)

    kind, label, _ = audited(truth, acme, "configuration.changed")
    assert kind == "staff"
    assert label.startswith(f"{email} (")


def test_every_command_takes_whoever_acts(app: Flask, said: Callable[..., Any], acme: Visitor, truth: Truth) -> None:
    _, email = add_staff(app)

    now = said("tenants", "suspend", acme.slug, "--as", email, *BECAUSE)

    assert now == {"id": str(acme.tenant_id), "slug": acme.slug, "status": "suspended"}
    turn = said("tenants", "history", acme.slug)["items"][-1]
    assert (turn["to_status"], turn["reason"]) == ("suspended", "night shift")
    assert turn["actor_label"].startswith(f"{email} (")
    without = [
        " ".join(path)
        for path, command in commands_of(app.cli)
        if path[0] in {one.name for one in COMMANDS} and "--as" not in {name for p in command.params for name in p.opts}
    ]
    assert without == []


def test_nobody_acts_as_staff_who_are_disabled(app: Flask, run: Run, acme: Visitor) -> None:
    _, email = add_staff(app)
    assert run("staff", "disable", email, *BECAUSE).exit_code == 0

    answer = run("tenants", "suspend", acme.slug, "--as", email, *BECAUSE)

    assert answer.exit_code == 1
    assert "or she is disabled" in answer.output


def test_nobody_acts_as_staff_who_are_none(run: Run, acme: Visitor) -> None:
    answer = run("config", "set", acme.slug, "session.timeout", "900", "--as", "nobody@example.com", *BECAUSE)

    assert answer.exit_code == 1
    assert "Nobody of the staff has the address" in answer.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tenants", "show", "nobody-has-this"], "No tenant has the slug or the id"),
        (["plans", "change", "ACME", "golden"], "plan"),
        (["plans", "change", "ACME", "premium", "--do-it"], "--reason is missing"),
        (["plans", "override", "add", "ACME", "limit", "cards", "many", *BECAUSE], "is no JSON"),
        (["plans", "override", "add", "ACME", "limit", "cakes", "7", *BECAUSE], "unknown"),
        (["plans", "override", "add", "ACME", "limit", "cards", "7", "--until", "2001-01-01", *BECAUSE], "is over"),
        (["plans", "override", "remove", "ACME", "limit", "cards", *BECAUSE], "Nothing is here"),
        (["plans", "explain", "ACME", "cakes"], "unknown: use one of"),
        (["config", "get", "ACME", "cakes"], "no key is named"),
        (["config", "set", "ACME", "session.timeout", "7", *BECAUSE], "session.timeout"),
        (["config", "set", "ACME", "webhooks.signing_secret", '"s"', *BECAUSE], "is a secret"),
        (["config", "set", "ACME", "session.timeout", "900"], "--reason"),
        (["jobs", "retry", "9223372036854775807", *BECAUSE], "Nothing is here"),
        (["jobs", "cancel", "99999999999999999999", *BECAUSE], "Nothing is here"),
        (["domains", "check", "ACME", "none.example", *BECAUSE], "Nothing is here"),
        (["invitations", "owner", "ACME", "no address", *BECAUSE], "is no e-mail address"),
        (["invitations", "revoke", "ACME", "a@b.example", *BECAUSE], "Nothing is here"),
    ],
)
def test_refusal_is_a_sentence_and_a_code(run: Run, acme: Visitor, words: list[str], told: str) -> None:
    answer = run(*(acme.slug if word == "ACME" else word for word in words))

    assert answer.exit_code != 0
    assert told in answer.output
    assert "Traceback" not in answer.output
    assert answer.stdout == ""


# The program ------------------------------------------------------------------------------------------


def program(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
    return subprocess.run(
        [sys.executable, "-m", "app", *words], env=kept | variables, capture_output=True, text=True, timeout=120
    )


def test_program_refuses_an_installation_that_is_not_described_and_names_what_is_missing() -> None:
    done = program("tenants", "list")

    assert done.returncode == 1
    for name in ("APP_DATABASE_URL", "APP_PLATFORM_DATABASE_URL", "APP_SECRET_KEY", "APP_STORAGE_URL", "--folder"):
        assert name in done.stderr
    assert done.stdout == ""


def test_program_works_on_the_development_database_of_a_folder(tmp_path: Path) -> None:
    folder = str(tmp_path / "instance")

    listed = program("--folder", folder, "tenants", "list", "--json")
    suspended = program("--folder", folder, "tenants", "suspend", "acme", *BECAUSE)
    after = program("--folder", folder, "tenants", "show", "acme", "--json")
    unknown = program("--folder", folder, "tenants", "show", "nobody")

    assert sorted(one["slug"] for one in json.loads(listed.stdout)["items"]) == ["acme", "globex"]
    assert (suspended.returncode, suspended.stdout) == (0, "acme is suspended.\n")
    assert json.loads(after.stdout)["status"] == "suspended"
    assert (unknown.returncode, unknown.stderr) == (1, "No tenant has the slug or the id 'nobody'.\n")
