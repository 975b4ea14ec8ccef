"""The audit's command line, its nightly retention, and what an entry costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from flask import Flask

from app.audit.jobs import retain, run_retention
from app.auth.desk import Desk
from app.db import Database
from tests.app.conftest import Truth, Visitor
from tests.app.test_audit import old as old
from tests.app.test_audit_chain import desk as desk
from tests.app.test_audit_chain import intruder as intruder


def run(app: Flask, *arguments: str) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(args=["audit", *arguments])
    return result.exit_code, result.output


def test_intact_chain_of_a_tenant_is_told_with_its_head(app: Flask, acme: Visitor) -> None:
    head = acme.get("/api/v1/audit/verify").get_json()

    code, told = run(app, "verify", "--tenant", acme.slug)

    assert code == 0
    assert "intact" in told
    assert head["hash"] in told


def test_broken_chain_is_named_with_exit_code_1(app: Flask, acme: Visitor, intruder: Truth) -> None:
    intruder.execute("UPDATE audit_entries SET reason = 'x' WHERE tenant_id = %s", [acme.tenant_id])

    code, told = run(app, "verify", "--tenant", str(acme.tenant_id))

    assert code == 1
    assert "entry 1" in told
    assert "the entry was changed" in told
    intruder.execute("UPDATE audit_entries SET reason = NULL WHERE tenant_id = %s", [acme.tenant_id])


def test_all_chains_are_checked_and_the_broken_one_is_told(app: Flask, acme: Visitor, intruder: Truth) -> None:
    intruder.execute("DELETE FROM audit_heads WHERE tenant_id = %s", [acme.tenant_id])

    code, told = run(app, "verify")

    assert code == 1
    assert f"BROKEN {acme.tenant_id}" in told
    assert "the platform" in told


def test_unknown_tenant_is_one_sentence(app: Flask) -> None:
    code, told = run(app, "verify", "--tenant", "nobody-here")

    assert code == 1
    assert "No tenant is called 'nobody-here'." in told


def test_export_of_a_tenant_is_checked_from_its_file(app: Flask, acme: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "audit.ndjson"
    assert run(app, "export", "--tenant", acme.slug, "--to", str(file))[0] == 0

    assert run(app, "verify-file", str(file))[0] == 0

    file.write_text(file.read_text().replace("member.signed_in", "member.signed_up"))
    code, told = run(app, "verify-file", str(file))
    assert code == 1
    assert "the entry was changed" in told


def test_file_that_is_no_export_is_one_sentence(app: Flask, tmp_path: Path) -> None:
    file = tmp_path / "audit.ndjson"
    file.write_text("[]\n")

    code, told = run(app, "verify-file", str(file))

    assert code == 1
    assert "line 1 is no line of an audit's export" in told


def test_retention_removes_what_is_old_in_every_tenant(desk: Desk, old: UUID, truth: Truth) -> None:
    assert run_retention(desk.database, keep_days=30) >= 3

    left = truth.execute("SELECT count(*) FROM audit_entries WHERE tenant_id = %s", [old]).fetchone()
    assert left == (3,)  # two that are young, and that of the removal


@dataclass(frozen=True)
class Night:
    """What the task asks of a job."""

    database: Database


def test_how_long_entries_are_kept_is_a_setting(
    make_app: Callable[..., Flask], desk: Desk, old: UUID, truth: Truth
) -> None:
    count = "SELECT count(*) FROM audit_entries WHERE tenant_id = %s"

    with make_app().app_context():
        retain.function(Night(desk.database))
    kept = truth.execute(count, [old]).fetchone()
    with make_app(audit_keep_days=30).app_context():
        retain.function(Night(desk.database))

    assert kept == (5,)
    assert truth.execute(count, [old]).fetchone() == (3,)
