"""The page of threats says of each line whether it is proven; the docstrings of the tests say by what."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs/explanation/threats.md"
LINE = re.compile(r"^\| (?P<id>T\d{3}) \| (?P<claim>[^|]+) \| (?P<proof>[^|]+) \|$", re.MULTILINE)
KINDS = re.compile(r"proven|partly: \S.*|waits for \S.*")


def listed() -> list[tuple[str, str]]:
    """Each line of the page, in its order: the id and what is said of its proof."""
    return [(found["id"], found["proof"]) for found in LINE.finditer(PAGE.read_text())]


def docstrings() -> Iterator[str]:
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield ast.get_docstring(node) or ""


def carried() -> set[str]:
    """The ids in the docstrings of tests. One that stands for a whole file, above it, is no proof."""
    return {name for text in docstrings() for name in re.findall(r"\bT\d{3}\b", text)}


def test_every_line_is_listed_once_and_in_order() -> None:
    assert [name for name, _ in listed()] == [f"T{number:03}" for number in range(1, 137)]


def test_every_proof_is_full_or_partial_or_awaited() -> None:
    assert [(name, proof) for name, proof in listed() if not KINDS.fullmatch(proof)] == []


def test_every_line_said_to_be_proven_is_carried_by_a_test() -> None:
    claimed = {name for name, proof in listed() if not proof.startswith("waits for ")}

    assert sorted(claimed - carried()) == []


def test_every_line_carried_by_a_test_is_said_to_be_proven() -> None:
    claimed = {name for name, proof in listed() if not proof.startswith("waits for ")}

    assert sorted(carried() - claimed) == []


def test_ids_are_written_out_so_that_a_search_finds_them() -> None:
    assert [text for text in docstrings() if re.search(r"\bT\d{3} ?[-–]", text)] == []
