"""Every rule of the doctor has its page, every page its rule, and each says what a page is there for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tenancy.doctor.code.comments import read_comments
from tenancy.doctor.code.sources import parse
from tenancy.doctor.examination import KINDS, RULES
from tenancy.doctor.findings import Rule
from tenancy.doctor.ignores import Ignore, read_ignores
from tests.docs.pages import DOCS, blocks_of

PAGES = DOCS / "reference" / "doctor"
CHAPTERS = ["## What it finds", "## Why it matters", "## How to mend it", "## How to ignore it"]


def test_every_rule_has_its_page_and_every_page_its_rule() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")} - {"index"}

    assert pages == {rule.id for rule in RULES}


def test_ids_and_names_are_used_once_and_ids_say_their_kind() -> None:
    ids = [rule.id for rule in RULES]
    names = [rule.name for rule in RULES]

    assert sorted(ids) == sorted(set(ids))
    assert sorted(names) == sorted(set(names))
    assert all(re.fullmatch(r"TEN[0-5]\d\d", one) for one in ids)
    assert set(KINDS) | {"0"} == {one[3] for one in ids}


def test_index_lists_every_rule_as_it_is() -> None:
    rows = [line for line in (PAGES / "index.md").read_text().splitlines() if line.startswith("| [TEN")]

    assert rows == [
        f"| [{rule.id}]({rule.id}.md) | {rule.level} | {rule.name} | {rule.why} |"
        for rule in sorted(RULES, key=lambda rule: rule.id)
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_page_tells_of_its_rule(rule: Rule) -> None:
    text = (PAGES / f"{rule.id}.md").read_text()
    words = " ".join(text.split())

    assert text.startswith(f"# {rule.id} {rule.name}\n\nLevel **{rule.level}**")
    assert [line for line in text.splitlines() if line.startswith("## ")] == CHAPTERS
    assert rule.why in words
    story = text.partition("## Why it matters")[2].partition("## How to mend it")[0]
    assert len(story.replace(rule.why, "").split()) >= 15, "tell what happened to somebody"


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.id[3] != "0"], ids=lambda rule: rule.id)
def test_shown_decision_is_one_that_the_doctor_takes(rule: Rule, tmp_path: Path) -> None:
    *_, shown = blocks_of(PAGES / f"{rule.id}.md")

    if shown.language == "toml":
        tomllib.loads(shown.text)
        path = tmp_path / "tenancy-doctor.toml"
        path.write_text(shown.text)
        (decision,) = read_ignores(path)
    else:
        (read,) = read_comments(parse("page.py", shown.text))
        assert isinstance(read, Ignore)
        decision = read

    assert decision.rule_id == rule.id
    assert decision.until is not None
