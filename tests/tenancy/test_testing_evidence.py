"""The evidence: its verdict is never better than the results, and its page stands alone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tenancy.testing.evidence import Evidence
from tenancy.testing.premises import Premises, read_premises
from tenancy.testing.world import seed
from tests.conftest import ROLES, Database
from tests.models import Base

PREMISES = Premises(
    versions={"tenancy": "0.1.0", "PostgreSQL": "18.6"},
    roles=[{"name": "tenancy_app", "attributes": ["canlogin"], "member_of": []}],
    tables=[{"name": "people", "enabled": True, "forced": True, "policies": ["CREATE POLICY tenancy_guard ON people"]}],
    tenants=["isolation-owner", "isolation-stranger"],
    app="tenancy_app",
)


def cell(table: str = "people", verb: str = "select_orm", actor: str = "stranger", **given: Any) -> dict[str, Any]:
    found = {"kind": "cell", "table": table, "verb": verb, "actor": actor, "expected": "no row", "found": "no row"}
    return found | {"statement": "SELECT 1", "detail": "", "passed": True} | given


def route(**given: Any) -> dict[str, Any]:
    found = {"kind": "route", "rule": "/people/<uuid:id>", "method": "GET", "endpoint": "person", "outcome": "refused"}
    return found | {"reason": "", "detail": "", "calls": "b: GET -> 404\na: GET -> 200", "passed": True} | given


def control(**given: Any) -> dict[str, Any]:
    found = {"kind": "control", "control": "force_off", "what": "the owner is let past", "red": "people select_orm"}
    return found | {"detail": "", "passed": True} | given


def evidence_of(*found: dict[str, Any], left_out: int = 0, premises: Premises | None = PREMISES) -> Evidence:
    collected = {kind: sum(one["kind"] == kind for one in found) for kind in ("cell", "route", "control")}
    collected["cell"] += left_out
    return Evidence.of(found, collected=collected, premises=premises)


@pytest.mark.parametrize(
    ("evidence", "passed", "sentence"),
    [
        (
            evidence_of(cell(), cell(actor="owner"), route(), control()),
            True,
            "No tenant could reach another: all 2 cells of the matrix and 1 route passed, "
            "and each of 1 hole made on purpose was noticed.",
        ),
        (
            evidence_of(cell(passed=False), cell(actor="owner"), route(passed=False), control()),
            False,
            "Isolation was not proven: 1 of 2 cells and 1 of 1 routes failed.",
        ),
        (
            evidence_of(cell(), control(passed=False)),
            False,
            "Isolation was not proven: 1 of 1 controls failed.",
        ),
        (
            evidence_of(cell(), control(), left_out=3),
            False,
            "Isolation was proven in part: all that ran passed, and 3 tests did not run.",
        ),
        (evidence_of(route(), control()), False, "Nothing was proven: no cell of the matrix ran."),
        (evidence_of(premises=None), False, "Nothing was proven: no cell of the matrix ran."),
    ],
)
def test_verdict_is_no_better_than_the_results(evidence: Evidence, passed: bool, sentence: str) -> None:
    assert (evidence.passed, evidence.sentence) == (passed, sentence)
    assert sentence in re.sub(r"\s+", " ", evidence.as_html())


def drawn(evidence: Evidence) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in evidence.heat()]


def test_heat_table_shows_the_worst_actor_of_each_place() -> None:
    found = [
        cell("people", "select_orm", "owner"),
        cell("people", "select_orm", "stranger", passed=False),
        cell("people", "unique:email", "owner"),
        cell("people", "unique:name", "unbound", passed=False),
        cell("tags", "select_orm", "owner"),
    ]

    assert drawn(evidence_of(*found)) == [
        "        a b",
        "people  S U",
        "tags    .",
        "O wrong for right tenant · S wrong for other tenant · U wrong for no tenant",
        "E wrong for empty setting · T wrong for table's owner",
        "a select_orm · b unique",
        "cells: 5 ran, 2 failed",
        "routes: 0 ran, 0 failed, 0 declared or exempt",
        "controls: 0 ran, 0 failed",
    ]


def test_place_that_did_not_run_is_not_blank() -> None:
    found = [cell("people", "insert"), cell("tags", "select_orm")]

    assert drawn(evidence_of(*found, left_out=1))[:3] == ["        a b", "people  . -", "tags    - ."]


def test_json_has_a_format_and_every_result() -> None:
    told = json.loads(evidence_of(cell(), route(), control()).as_json())

    assert told["format"] == 1
    assert sorted(told) == [
        "cells", "controls", "format", "made_at", "not_run", "passed", "premises", "routes", "sentence",
    ]  # fmt: skip
    assert told["cells"] == [
        {
            "actor": "stranger", "detail": "", "expected": "no row", "found": "no row", "passed": True,
            "statement": "SELECT 1", "table": "people", "verb": "select_orm",
        }
    ]  # fmt: skip
    assert told["premises"]["tenants"] == ["isolation-owner", "isolation-stranger"]


class Reader(HTMLParser):
    """Notes every tag and attribute, and that each tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs] or [(tag, "", None)]
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(evidence: Evidence) -> Reader:
    reader = Reader()
    reader.feed(evidence.as_html())
    return reader


def test_page_needs_nothing_but_itself() -> None:
    reader = read(evidence_of(cell(), cell(actor="owner", passed=False), route(), control()))

    tags = {tag for tag, _, _ in reader.attributes}
    links = {value for _, name, value in reader.attributes if name in ("src", "href", "action", "style")}
    assert not tags & {"script", "link", "img", "iframe", "form"}
    assert links == {"#table-people"}
    assert reader.open == []


def test_whatever_the_results_hold_is_shown_as_text() -> None:
    nasty = "</td><script>alert('x')</script>&amp;"
    found = [
        cell(table=nasty, expected=nasty, found=nasty, statement=nasty, detail=nasty, passed=False),
        route(rule=nasty, reason=nasty, detail=nasty, calls=nasty, outcome="declared"),
        control(what=nasty, control=nasty, red=nasty, detail=nasty, passed=False),
    ]

    page = evidence_of(*found).as_html()

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "&amp;amp;" in page


def test_page_tells_right_from_wrong_without_colour() -> None:
    page = evidence_of(cell(actor="owner"), cell(passed=False)).as_html()

    assert '<td class="pass">✓</td>' in page
    assert '<td class="fail">✗</td>' in page


def test_page_names_what_it_rests_on_and_every_exception() -> None:
    exempt = route(rule="/health", outcome="exempt", reason="asked by the load balancer")
    page = evidence_of(cell(), route(), exempt, control()).as_html()

    for words in ("CREATE POLICY tenancy_guard ON people", "18.6", "tenancy_app", "asked by the load balancer", "UTC"):
        assert words in page


def test_result_that_was_cut_short_is_shown_as_unfinished() -> None:
    cut = {"kind": "cell", "table": "people", "verb": "merge", "actor": "owner", "passed": False}
    lost = {"kind": "route", "rule": "/x", "method": "GET", "endpoint": "x", "passed": False}

    page = evidence_of(cut, lost, {"kind": "control", "control": "c", "what": "w", "passed": False}).as_html()

    assert "did not finish" in page
    assert "could not be called" in page


def test_premises_are_read_from_the_server(fresh_database: Database) -> None:
    world = seed(Base.metadata, fresh_database.url, roles=ROLES)

    found = read_premises(world)

    world.close()
    attributes = {role["name"]: (role["attributes"], role["member_of"]) for role in found.roles}
    assert attributes == {
        "tenancy_app": (["canlogin"], []),
        "tenancy_backup": (["bypassrls"], []),
        "tenancy_lookup": ([], []),
        "tenancy_migrator": (["canlogin"], ["tenancy_owner"]),
        "tenancy_owner": ([], ["tenancy_lookup"]),
        "tenancy_platform": (["canlogin"], []),
    }
    people = next(table for table in found.tables if table["name"] == "people")
    assert (people["enabled"], people["forced"], len(people["policies"])) == (True, True, 3)
    assert sorted(found.versions) == ["PostgreSQL", "Python", "SQLAlchemy", "psycopg", "tenancy"]
    assert found.tenants == ["isolation-owner", "isolation-stranger"]
