"""Decisions to live with a finding: they need a reason, end on their day, and must match something."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from tenancy.doctor.findings import Finding, Rule
from tenancy.doctor.ignores import Ignore, baseline_text, read_baseline, read_ignores, sort_out
from tenancy.errors import ConfigurationError

RULE = Rule("TEN402", "session-wide-setting", "error", "It outlives the transaction.")
PEOPLE = RULE.finding("shop/people.py", "SET x outlives", remedy="SET LOCAL", line=4)
JOBS = RULE.finding("shop/jobs.py", "SET x outlives", remedy="SET LOCAL", line=9)
TODAY = date(2026, 11, 21)


def sorted_out(*ignores: Ignore, unchecked: tuple[str, ...] = ()) -> tuple[list[tuple[str, str]], list[Finding]]:
    counting, ignored = sort_out([PEOPLE, JOBS], ignores, today=TODAY, unchecked=unchecked)
    return [(one.rule.id, one.object_name) for one in counting], [one.finding for one in ignored]


def test_exact_object_is_ignored_and_nothing_else() -> None:
    counting, ignored = sorted_out(Ignore("TEN402", "shop/jobs.py", "its own connection", "file"))

    assert counting == [("TEN402", "shop/people.py")]
    assert ignored == [JOBS]


def test_pattern_ignores_all_it_matches() -> None:
    counting, ignored = sorted_out(Ignore("TEN402", "shop/*", "they are rewritten", "file"))

    assert (counting, ignored) == ([], [PEOPLE, JOBS])


def test_other_rule_of_the_same_object_still_counts() -> None:
    counting, _ = sorted_out(Ignore("TEN401", "shop/*", "they are rewritten", "file"))

    assert counting == [("TEN402", "shop/people.py"), ("TEN402", "shop/jobs.py"), ("TEN003", "file")]


@pytest.mark.parametrize(("until", "counts"), [(date(2026, 11, 21), False), (date(2026, 11, 20), True)])
def test_decision_counts_through_its_last_day(until: date, counts: bool) -> None:
    counting, _ = sorted_out(Ignore("TEN402", "shop/*", "they are rewritten", "file", until))

    assert (("TEN002", "file") in counting) is counts
    assert (("TEN402", "shop/jobs.py") in counting) is counts


def test_decision_about_a_kind_that_was_not_examined_is_not_called_unused() -> None:
    ignore = Ignore("TEN101", "table public.people", "a view stands before it", "file")

    assert ("TEN003", "file") not in sorted_out(ignore, unchecked=("TEN101",))[0]
    assert ("TEN003", "file") in sorted_out(ignore, unchecked=("TEN102",))[0]


def test_file_is_read_with_and_without_a_day(tmp_path: Path) -> None:
    path = tmp_path / "tenancy-doctor.toml"
    path.write_text(
        '[[ignore]]\nrule = "TEN402"\nobject = "shop/jobs.py"\nreason = "own connection"\nuntil = 2027-01-31\n'
        '[[ignore]]\nrule = "TEN101"\nobject = "table public.*"\nreason = "not yet guarded"\n'
    )

    assert read_ignores(path) == [
        Ignore("TEN402", "shop/jobs.py", "own connection", "tenancy-doctor.toml, ignore 1", date(2027, 1, 31)),
        Ignore("TEN101", "table public.*", "not yet guarded", "tenancy-doctor.toml, ignore 2"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[ignore]]\nrule = ", "cannot be read"),
        ('[[ignore]]\nrule = "TEN402"\nobject = "x"\n', "ignore 1 has no reason"),
        ('[[ignore]]\nrule = "TEN402"\nobject = "x"\nreason = "  "\n', "ignore 1 has no reason"),
        ('[[ignore]]\nobject = "x"\nreason = "y"\n', "ignore 1 has no rule"),
        ('[[ignore]]\nrule = "TEN402"\nreason = "y"\n', "ignore 1 has no object"),
        ('[[ignore]]\nrule = "TEN402"\nobject = "x"\nreason = "y"\nuntil = "soon"\n', "ends 'soon', which is no day"),
        ('[[ignore]]\nrule = "TEN402"\nobject = "x"\nreason = "y"\nwhy = "z"\n', "ignore 1 has 'why'"),
        ("[options]\nfail_on = 1\n", "has 'options'"),
        ("ignore = 1\n", "no list"),
    ],
)
def test_malformed_file_is_refused_by_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "tenancy-doctor.toml"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=said):
        read_ignores(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_ignores(tmp_path / "nothing.toml")


# Baseline ---------------------------------------------------------------------------------------------


def written(tmp_path: Path, *findings: Finding) -> Path:
    path = tmp_path / "baseline.json"
    path.write_text(baseline_text(findings))
    return path


def test_known_finding_stays_known_when_its_line_moves(tmp_path: Path) -> None:
    baseline = read_baseline(written(tmp_path, JOBS))
    moved = RULE.finding("shop/jobs.py", "SET x outlives", remedy="SET LOCAL", line=90)

    assert baseline.sort_out([moved, PEOPLE]) == ([PEOPLE], [moved], [])


def test_second_finding_of_a_known_kind_is_new(tmp_path: Path) -> None:
    baseline = read_baseline(written(tmp_path, JOBS))
    another = RULE.finding("shop/jobs.py", "SET x outlives", remedy="SET LOCAL", line=90)

    new, known, _ = baseline.sort_out([JOBS, another])

    assert (new, known) == ([another], [JOBS])


def test_vanished_finding_is_told_of(tmp_path: Path) -> None:
    baseline = read_baseline(written(tmp_path, JOBS, PEOPLE))

    assert baseline.sort_out([PEOPLE])[2] == ["TEN402 shop/jobs.py: SET x outlives"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2, "findings": {}}', '{"version": 1, "findings": {"a": 1}}']
)
def test_file_that_is_no_baseline_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match="is no baseline"):
        read_baseline(path)


def test_baseline_holds_what_a_reader_needs(tmp_path: Path) -> None:
    content = json.loads(written(tmp_path, JOBS, JOBS).read_text())

    assert content == {
        "version": 1,
        "findings": {
            JOBS.fingerprint: {"rule": "TEN402", "object": "shop/jobs.py", "what": "SET x outlives", "count": 2}
        },
    }
