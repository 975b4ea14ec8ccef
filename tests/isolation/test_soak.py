"""Many threads and tenants on one small pool, for long; and that the soak would have told of a leak."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from tenancy.errors import ModelError
from tenancy.testing.ledger import Ledger
from tenancy.testing.soak import Report, soak
from tests.conftest import ROLES, Database
from tests.models import Note, Person

ROOT = Path(__file__).parents[2]


def ledger_of(database: Database) -> Ledger:
    return Ledger(Person, "name", app_url=database.url(ROLES.app), admin_url=database.url("postgres"))


# psycopg warns of a server-side cursor that it could not close, as its connection had been killed.
@pytest.mark.filterwarnings("ignore:.*ServerCursor.*was deleted while still open")
def test_many_threads_with_errors_and_kills_never_read_a_foreign_row(
    fresh_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """T135"""
    report = soak(ledger_of(fresh_database), transactions=32_000, threads=16, tenants=20)

    with capsys.disabled():
        sys.stdout.write(f"\n{report.text()}\n")
    assert (report.foreign, report.unexpected, report.unused) == ([], [], [])
    assert report.transactions == 32_000
    assert report.rows_checked > 300_000
    assert report.kills > 100
    assert {"AdminShutdown", "UniqueViolation", "WrongTenantError", "NoTenantError"} <= report.errors.keys()
    assert report.is_clean


SABOTAGES = {
    "row security disabled": "ALTER TABLE people DISABLE ROW LEVEL SECURITY",
    "policies opened": (
        "ALTER POLICY tenancy_isolation ON people USING (true) WITH CHECK (true);"
        "ALTER POLICY tenancy_guard ON people USING (true) WITH CHECK (true)"
    ),
    "policies that let nobody pass": "; ".join(
        f"ALTER POLICY {policy} ON people USING"
        " (CASE current_setting('app.tenant_id', true) WHEN '' THEN true ELSE tenant_id = tenancy.current_tenant() END)"
        for policy in ("tenancy_isolation", "tenancy_guard")
    ),
}


@pytest.mark.parametrize("sabotage", SABOTAGES.values(), ids=SABOTAGES.keys())
def test_soak_on_an_opened_database_finds_foreign_rows(fresh_database: Database, sabotage: str) -> None:
    """T135: it can fail."""
    with fresh_database.connect("postgres") as truth:
        truth.execute(sabotage.encode())

    report = soak(ledger_of(fresh_database), transactions=400, threads=4, tenants=3, seed=7)

    assert report.foreign_rows > 0
    assert "was read by" in report.foreign[0]
    assert not report.is_clean


def test_soak_of_a_policy_that_lets_writes_through_finds_foreign_rows(fresh_database: Database) -> None:
    """T135: reading is as it was."""
    with fresh_database.connect("postgres") as truth:
        truth.execute("ALTER POLICY tenancy_isolation ON people WITH CHECK (true)")
        truth.execute("ALTER POLICY tenancy_guard ON people WITH CHECK (true)")

    report = soak(ledger_of(fresh_database), transactions=400, threads=4, tenants=3, seed=7)

    assert not report.is_clean
    assert "nothing raised one of ('InsufficientPrivilege',)" in report.unexpected[0]


def test_action_that_was_never_completed_is_not_clean() -> None:
    report = Report(seed=1, threads=1, tenants=2, transactions=1, rows_checked=1)

    assert "read_by_text" in report.unused
    assert not report.is_clean
    assert "NEVER COMPLETED" in report.text()


def test_table_whose_rows_need_others_asks_for_their_values(database: Database) -> None:
    ledger = Ledger(Note, "body", app_url=database.url(ROLES.app), admin_url=database.url("postgres"))

    with pytest.raises(ModelError, match="needs a row that 'person_id' points at"):
        ledger.row(UUID(int=1), "1", number=1)


def test_soak_from_the_command_line_starts_a_server_of_its_own_and_says_what_it_checked() -> None:
    """T135"""
    kept = {name: value for name, value in os.environ.items() if name not in ("APP_URL", "TENANCY_ADMIN_URL")}
    done = subprocess.run(
        [sys.executable, "-m", "tenancy.testing.soak", "--seconds", "4", "--threads", "4", "--tenants", "3"],
        cwd=ROOT,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 threads, 3 tenants" in done.stdout
    assert " rows checked, 0 foreign\n" in done.stdout
    assert done.stdout.endswith("clean\n")
