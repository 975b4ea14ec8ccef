"""An outside linter on the schema the library makes: what it says is explained in docs/explanation/pgrls.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.conftest import Database
from tests.tenancy.doctor_cluster import own_cluster

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "pgrls.md"
# On which objects each rule is explained: a whole name of what pgrls calls the location.
EXPLAINED = {
    "PERF001": r"public\.\w+\.tenancy_isolation",
    "SEC001": r"tenancy\.platform_session",
    "SEC003": r"public\.\w+\.tenancy_isolation",
    "SEC005": r"public\.\w+\.(tenancy_platform_read|tenancy_lookup)",
    "SEC008": r"public\.\w+\.tenancy_lookup",
    "SEC013": r"public\.tenants\.tenancy_announce",
    "SEC014": r"tenancy\.(tenant_by_\w+|account_of_email|platform_session_valid|announce_tenant)",
    "SEC016": r"tenancy_backup",
    "SEC035": r"public\.(accounts \(uq_accounts_email\)|domains \(uq_domains_domain\)|tenants \(uq_tenants_slug\))",
    "SEC038": r"public\.\w+\.tenancy_lookup",
}


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with own_cluster(tmp_path_factory.mktemp("pgrls")) as database:
        yield database


def lint(database: Database) -> list[tuple[str, str, str]]:
    """Return (rule, level, location) of everything that pgrls reports."""
    url = make_url(database.url("postgres")).set(drivername="postgresql").render_as_string(hide_password=False)
    command = [sys.executable, "-m", "pgrls", "lint", "--database-url", url, "--schemas", "public,tenancy"]
    run = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode in (0, 1), run.stderr
    return [(v["rule_id"], v["severity"], v["location"]) for v in json.loads(run.stdout)["violations"]]


def unexplained(reported: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    return [(rule, location) for rule, _, location in reported if not re.fullmatch(EXPLAINED.get(rule, ""), location)]


def told_on_page() -> dict[str, str]:
    rows = re.findall(r"^\| (\w+) \| (error|warning|info) \|", PAGE.read_text(), flags=re.MULTILINE)
    return dict(rows)


def test_everything_the_linter_reports_is_explained(database: Database) -> None:
    reported = lint(database)

    assert unexplained(reported) == []
    assert {rule: level for rule, level, _ in reported} == told_on_page()
    assert set(EXPLAINED) == set(told_on_page())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER TABLE people DISABLE ROW LEVEL SECURITY", ("SEC032", "public.people")),
        ("ALTER TABLE people NO FORCE ROW LEVEL SECURITY", ("SEC002", "public.people")),
        ("CREATE POLICY mine ON people USING (true)", ("SEC008", "public.people.mine")),
        ("CREATE VIEW names AS SELECT name FROM people", ("VIEW001", "public.names")),
    ],
)
def test_what_is_explained_hides_nothing_else(database: Database, change: str, expected: tuple[str, str]) -> None:
    """T003, T005, T010, T027"""
    assert unexplained(lint(database)) == []
    with database.connect("postgres") as connection:
        connection.execute(change.encode())

    assert expected in unexplained(lint(database))
