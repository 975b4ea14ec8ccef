"""The plugin, as a stranger meets it: one line of configuration, and the whole proof."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest

from tenancy.embedded import Server
from tests.tenancy.plugin_runs import LINE, ROLES, Finished, Stranger


@pytest.fixture
def stranger(tmp_path: Path, server: Server) -> Stranger:
    return Stranger(tmp_path / "stranger", server)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Finished:
    """The shop with the one line, in one process."""
    return Stranger(tmp_path_factory.mktemp("alone"), server).run("-q")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Finished:
    """The same in two workers, with JUnit."""
    return Stranger(tmp_path_factory.mktemp("shared"), server).run("-q", "-n", "2", "--junitxml=junit.xml")


def test_one_line_gives_the_whole_matrix(alone: Finished) -> None:
    assert alone.code == 0, alone.output
    assert alone.report["passed"] is True
    actors = Counter((cell["table"], cell["actor"]) for cell in alone.report["cells"] if cell["verb"] == "select_orm")
    tables = ("customers", "orders", "tenants")
    people = ("owner", "stranger", "unbound", "empty", "table_owner")
    assert actors == {(table, actor): 1 for table in tables for actor in people}


def test_one_line_sweeps_every_route(alone: Finished) -> None:
    assert alone.outcomes() == {
        "add_customer": "apart",
        "change_order": "refused",
        "customer": "refused",
        "customers": "apart",
        "health": "exempt",
        "order_of": "refused",
        "remove_customer": "refused",
        "static": "exempt",
    }


def test_one_line_runs_every_negative_control(alone: Finished) -> None:
    controls = {one["control"]: (one["passed"], bool(one["red"])) for one in alone.report["controls"]}

    assert len(controls) == 10
    assert set(controls.values()) == {(True, True)}


def test_one_line_gives_the_page_and_says_where_it_is(alone: Finished) -> None:
    page = alone.folder / "isolation-report" / "matrix.html"

    assert f"evidence: {page}" in alone.output
    assert "No tenant could reach another" in page.read_text()


def test_heat_table_has_a_line_for_each_table(alone: Finished) -> None:
    begins = [line.split()[:2] for line in alone.output.splitlines()]

    assert [name for name in ("customers", "orders", "tenants") if [name, "."] not in begins] == []


def test_workers_prove_the_same_and_write_one_report(alone: Finished, shared: Finished) -> None:
    def places(finished: Finished) -> list[tuple[str, str, str]]:
        return [(cell["table"], cell["verb"], cell["actor"]) for cell in finished.report["cells"]]

    assert shared.code == 0, shared.output
    assert places(shared) == places(alone)
    assert shared.outcomes() == alone.outcomes()
    assert shared.report["premises"]["versions"] == alone.report["premises"]["versions"]
    assert shared.output.count("evidence: ") == 1


def test_junit_names_each_cell_and_holds_what_came_of_it(shared: Finished) -> None:
    tree = ElementTree.parse(shared.folder / "junit.xml")

    (case,) = tree.findall(".//testcase[@classname='tenancy.matrix.orders'][@name='select_orm[stranger]']")
    told = {found.get("name"): found.get("value") for found in case.iter("property")}
    assert {name: told[name] for name in ("tenancy.table", "tenancy.verb", "tenancy.actor")} == {
        "tenancy.table": "orders",
        "tenancy.verb": "select_orm",
        "tenancy.actor": "stranger",
    }
    assert told["tenancy.expected"] == told["tenancy.found"]
    assert "FROM orders" in str(told["tenancy.statement"])


def test_part_of_the_suite_is_chosen_by_keyword_and_never_called_the_whole(stranger: Stranger) -> None:
    finished = stranger.run("-q", "-k", "customers and select_orm")

    assert finished.code == 0, finished.output
    assert {cell["actor"] for cell in finished.report["cells"]} == {
        "owner",
        "stranger",
        "unbound",
        "empty",
        "table_owner",
    }
    assert finished.report["passed"] is False
    assert finished.report["sentence"].startswith("Isolation was proven in part")


def test_marker_leaves_the_suite_out_without_a_word(stranger: Stranger) -> None:
    stranger.write("test_own.py", "def test_own(): pass\n")

    finished = stranger.run("-q", "-m", "not isolation")

    assert (finished.code, "1 passed" in finished.output) == (0, True), finished.output
    assert not (stranger.folder / "isolation-report").exists()


@pytest.mark.parametrize("args", [["--no-isolation"], ["test_own.py"], ["test_own.py::test_own"], ["-p", "no:tenancy"]])
def test_suite_is_not_added_when_switched_off_or_when_tests_are_named(stranger: Stranger, args: list[str]) -> None:
    stranger.write("test_own.py", "def test_own(): pass\n")

    finished = stranger.run("-q", "-W", "ignore::pytest.PytestConfigWarning", *args)

    assert (finished.code, "1 passed" in finished.output) == (0, True), finished.output
    assert not (stranger.folder / "isolation-report").exists()


def test_suite_is_added_to_named_tests_when_asked_for(stranger: Stranger) -> None:
    stranger.write("test_own.py", "def test_own(): pass\n")

    finished = stranger.run("-q", "--collect-only", "--isolation", "test_own.py")

    assert "tenancy::matrix::orders::select_orm[stranger]" in finished.output.splitlines()


def test_run_that_names_no_application_is_left_alone(tmp_path: Path, server: Server) -> None:
    stranger = Stranger(tmp_path / "stranger", server, "addopts = -ra")
    stranger.write(
        "test_own.py",
        "import sys\ndef test_own():\n    assert not {'flask', 'alembic', 'jinja2'} & set(sys.modules)\n",
    )

    finished = stranger.run("-q", TENANCY_POSTGRES="none such")

    assert (finished.code, "1 passed" in finished.output) == (0, True), finished.output
    assert "isolation" not in finished.output


@pytest.mark.parametrize(
    ("lines", "environment", "message"),
    [
        (["tenancy_app = shopping:create_app"], {}, "tenancy_app names the module 'shopping', and there is none"),
        (["tenancy_app = shop:make_app"], {}, "tenancy_app = shop:make_app: there is no 'make_app' in 'shop'"),
        (["tenancy_app = builtins:str"], {}, "tenancy_app = builtins:str returned str, not a Flask application"),
        (["tenancy_metadata = sqlalchemy:MetaData"], {}, "tenancy_metadata names a type, not a MetaData"),
        (["tenancy_metadata = nothing:metadata"], {}, "the metadata has no tenant table"),
        ([LINE, "tenancy_migrations = none.ini"], {}, "tenancy_migrations: there is no file"),
        ([LINE], {"TENANCY_POSTGRES": "none"}, "TENANCY_POSTGRES=none failed: there is no such source"),
    ],
)
def test_suite_that_cannot_be_made_fails_the_run_and_says_why(
    tmp_path: Path, server: Server, lines: list[str], environment: dict[str, str], message: str
) -> None:
    stranger = Stranger(tmp_path / "stranger", server, ROLES, *lines)
    stranger.write("nothing.py", "from sqlalchemy import MetaData\nmetadata = MetaData()\n")

    finished = stranger.run("-q", **environment)

    assert finished.code != 0
    assert message in finished.output
    assert "no cell of the matrix was collected: isolation was not proven" in finished.output
    assert "Traceback" not in finished.output


def test_row_that_the_database_refuses_is_told_in_full_once(stranger: Stranger) -> None:
    stranger.write(
        "conftest.py",
        "def pytest_tenancy_row(table, values):\n"
        "    return {'email': 'same@shop.test'} if table.name == 'customers' else None\n",
    )

    finished = stranger.run("-q", "-k", "matrix and customers and select_orm")

    assert finished.code == 1
    assert finished.output.count("in pytest_tenancy_row") + finished.output.count("row factory") >= 1
    assert finished.output.count("there are no rows to aim at") >= 1
