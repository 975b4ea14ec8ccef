"""One report, told in four forms: each says all that counts, and nothing that does not."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime
from xml.etree import ElementTree

import pytest
from rich.console import Console

from tenancy.doctor.examination import RULES, Report
from tenancy.doctor.findings import Finding, Level, Rule
from tenancy.doctor.ignores import Ignore, Ignored
from tenancy.doctor.reports import render_json, render_junit, render_sarif
from tenancy.doctor.reports.terminal import print_report, print_rules

RULE_OF = {rule.id: rule for rule in RULES}


def finding(rule_id: str, object_name: str, what: str, line: int | None = None) -> Finding:
    return RULE_OF[rule_id].finding(object_name, what, remedy="ALTER TABLE public.people\n  FORCE;", line=line)


LOST = finding("TEN302", "table public.people", "the database has no such table")
RAW = finding("TEN401", "shop/my jobs.py", "SQL on people runs <here> & [there]", 12)
COLUMN = finding("TEN307", "column public.people.colour", "the model has no such column")
UNCHECKED = finding("TEN001", "kind roles", "no URL was given")
LIVED_WITH = finding("TEN403", "shop/admin.py", "create_engine makes connections without a tenant", 3)
REPORT = Report(
    findings=(LOST, RAW, UNCHECKED, COLUMN),
    ignored=(
        Ignored(LIVED_WITH, Ignore("TEN403", "shop/admin.py", "it makes the roles", "admin.py", date(2027, 1, 31), 3)),
    ),
    started_at=datetime(2026, 11, 21, 12, 0, tzinfo=UTC),
    seconds=1.25,
    versions={"tenancy": "0.1.0", "postgresql": "18.6"},
    unchecked=frozenset(rule.id for rule in RULES if rule.id[3] in "12" or rule.id == "TEN510"),
)
CLEAN = replace(REPORT, findings=(), ignored=())


# Terminal ---------------------------------------------------------------------------------------------


def printed(report: Report, width: int, *, is_terminal: bool = False) -> str:
    file = io.StringIO()
    print_report(report, Console(file=file, width=width, highlight=False, force_terminal=is_terminal))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_terminal_tells_all_and_wraps_at_its_width(width: int) -> None:
    text = printed(REPORT, width)

    assert max(map(len, text.splitlines())) <= width
    assert [line.split(" ─")[0] for line in text.splitlines() if "──" in line] == ["errors", "warnings", "notes"]
    for said in (
        "TEN302 table-missing",
        "    table public.people: the database has no such table",
        "    shop/my jobs.py:12: SQL on people runs <here> & [there]",
        "TEN403 shop/admin.py:3: it makes the roles until 2027-01-31",
    ):
        assert said in text
    assert (
        " ".join(text.rsplit("\n\n", 1)[-1].split()).split("(")[0]
        == "2 errors, 1 warning, 1 note, 1 ignored in models, code, configuration, after 1.2 s "
    )


def test_terminal_never_breaks_a_remedy() -> None:
    remedy = "ALTER TABLE public.people ADD CONSTRAINT " + "x" * 100
    long = replace(REPORT, findings=(RULE_OF["TEN302"].finding("table x", "y", remedy=remedy),))

    assert f"      {remedy}\n" in printed(long, 80)


def test_plain_output_has_no_colours_and_a_terminal_has() -> None:
    assert "\x1b[" not in printed(REPORT, 80)
    assert "\x1b[" in printed(REPORT, 80, is_terminal=True)


def test_clean_report_is_one_line() -> None:
    assert printed(CLEAN, 200).splitlines() == [
        "0 errors, 0 warnings, 0 notes in models, code, configuration, after 1.2 s (tenancy 0.1.0, postgresql 18.6)"
    ]


def test_list_names_every_rule() -> None:
    file = io.StringIO()

    print_rules(Console(file=file, width=120))

    listed = [line.split()[0] for line in file.getvalue().splitlines() if line.startswith("TEN")]
    assert listed == sorted(rule.id for rule in RULES)


# JSON -------------------------------------------------------------------------------------------------


def test_json_holds_each_finding_whole() -> None:
    content = json.loads(render_json(REPORT))

    assert content["counts"] == {"error": 2, "warning": 1, "note": 1}
    assert content["versions"] == {"tenancy": "0.1.0", "postgresql": "18.6"}
    assert content["findings"][1] == {
        "id": "TEN401",
        "name": "raw-sql-outside-scope",
        "level": "error",
        "object": "shop/my jobs.py",
        "line": 12,
        "what": "SQL on people runs <here> & [there]",
        "why": RULE_OF["TEN401"].why,
        "remedy": "ALTER TABLE public.people\n  FORCE;",
        "fingerprint": RAW.fingerprint,
    }
    (ignored,) = content["ignored"]
    assert (ignored["id"], ignored["reason"], ignored["until"]) == ("TEN403", "it makes the roles", "2027-01-31")


# SARIF ------------------------------------------------------------------------------------------------


def run_of(report: Report, docs_url: str | None = None) -> dict[str, object]:
    log = json.loads(render_sarif(report, docs_url=docs_url))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("/sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    return dict(run)


def results_of(report: Report) -> list[dict[str, object]]:
    results = run_of(report)["results"]
    assert isinstance(results, list)
    return results


def test_sarif_names_file_and_line_of_code() -> None:
    result = results_of(REPORT)[1]

    assert (result["ruleId"], result["level"]) == ("TEN401", "error")
    assert result["locations"] == [
        {"physicalLocation": {"artifactLocation": {"uri": "shop/my%20jobs.py"}, "region": {"startLine": 12}}}
    ]
    assert result["partialFingerprints"] == {"tenancyDoctor/v1": RAW.fingerprint}


def test_sarif_names_objects_of_the_database_and_gives_each_the_place_that_github_asks_for() -> None:
    (location,) = results_of(REPORT)[0]["locations"]  # type: ignore[misc]

    assert location["physicalLocation"]["artifactLocation"]["uri"] == "database"
    assert location["logicalLocations"] == [
        {"name": "public.people", "fullyQualifiedName": "table public.people", "kind": "type"}
    ]


def test_sarif_describes_each_rule_that_a_result_points_at() -> None:
    run = run_of(REPORT, "https://docs.example.com/reference/doctor/")
    rules = run["tool"]["driver"]["rules"]  # type: ignore[index]

    for result in results_of(REPORT):
        rule = rules[result["ruleIndex"]]
        assert rule["id"] == result["ruleId"]
        assert rule["helpUri"] == f"https://docs.example.com/reference/doctor/{rule['id']}.html"
        assert rule["fullDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] == result["level"]


def test_sarif_without_served_pages_has_no_links() -> None:
    assert "helpUri" not in render_sarif(REPORT)


def test_sarif_suppresses_what_is_ignored_with_its_reason() -> None:
    suppressed = [result for result in results_of(REPORT) if "suppressions" in result]

    assert [(one["ruleId"], one["suppressions"]) for one in suppressed] == [
        ("TEN403", [{"kind": "inSource", "justification": "it makes the roles"}])
    ]


def test_sarif_tells_known_findings_from_new_ones() -> None:
    results = results_of(replace(REPORT, findings=(LOST,), known=(RAW,)))

    assert [(one["ruleId"], one.get("baselineState")) for one in results[:2]] == [
        ("TEN302", "new"),
        ("TEN401", "unchanged"),
    ]


# JUnit ------------------------------------------------------------------------------------------------


def cases(report: Report, fail_on: Level = "warning") -> dict[str, ElementTree.Element]:
    root = ElementTree.fromstring(render_junit(report, fail_on=fail_on))
    return {case.attrib["name"].split()[0]: case for case in root.iter("testcase")}


def test_junit_has_a_case_for_each_rule_and_fails_those_with_findings() -> None:
    found = cases(REPORT)

    assert sorted(found) == sorted(rule.id for rule in RULES)
    assert sorted(name for name, case in found.items() if case.find("failure") is not None) == [
        "TEN001",
        "TEN302",
        "TEN401",
    ]
    failure = found["TEN401"].find("failure")
    assert failure is not None
    assert failure.text == (
        "shop/my jobs.py:12: SQL on people runs <here> & [there]\nremedy: ALTER TABLE public.people\n  FORCE;"
    )


def test_junit_skips_what_was_not_examined_and_passes_what_was() -> None:
    found = cases(REPORT)

    assert found["TEN101"].find("skipped") is not None
    assert found["TEN201"].find("skipped") is not None
    assert found["TEN510"].find("skipped") is not None
    assert list(found["TEN501"]) == []


def test_junit_counts_and_prints_what_is_below_the_failing_level() -> None:
    text = render_junit(REPORT, fail_on="error")
    root = ElementTree.fromstring(text)

    assert (root.attrib["failures"], root.attrib["errors"]) == ("2", "0")
    assert int(root.attrib["tests"]) == len(RULES)
    told = cases(REPORT, "error")["TEN307"].findtext("system-out")
    assert told is not None
    assert told.startswith("column public.people.colour: the model has no such column")


def test_junit_survives_characters_that_xml_cannot_hold() -> None:
    odd = RULE_OF["TEN302"].finding('table "a\x00\x1b\ud800b"', "it is <odd>", remedy="]]>")

    failure = cases(replace(REPORT, findings=(odd,)))["TEN302"].find("failure")

    assert failure is not None
    assert failure.text == 'table "a???b": it is <odd>\nremedy: ]]>'


# Levels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "fails_at"),
    [((LOST,), ["error", "warning", "note"]), ((UNCHECKED,), ["warning", "note"]), ((COLUMN,), ["note"]), ((), [])],
)
def test_report_fails_at_its_worst_level_and_below(found: tuple[Finding, ...], fails_at: list[str]) -> None:
    report = replace(REPORT, findings=found)
    levels: tuple[Level, ...] = ("error", "warning", "note")

    assert [level for level in levels if report.fails_at(level)] == fails_at


def test_fingerprint_survives_a_moved_line_and_no_other_change() -> None:
    rule = Rule("TEN900", "x", "error", "y")
    here = rule.finding("a.py", "what", remedy="r", line=1)

    assert here.fingerprint == rule.finding("a.py", "what", remedy="other", line=2).fingerprint
    assert here.fingerprint != rule.finding("b.py", "what", remedy="r", line=1).fingerprint
    assert here.fingerprint != rule.finding("a.py", "else", remedy="r", line=1).fingerprint
