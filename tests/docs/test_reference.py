"""The reference, the floors and the changelog name what there is, and nothing else."""

from __future__ import annotations

import re
from configparser import ConfigParser
from importlib import import_module
from importlib.util import find_spec

import tenancy
from tenancy.alembic import _OPERATIONS
from tests.docs.pages import DOCS, ROOT, blocks_of

REFERENCE = DOCS / "reference"


def test_every_public_name_is_in_the_reference() -> None:
    listed = re.findall(r"auto\w+:: (\w+)", (REFERENCE / "tenancy.md").read_text())

    missing = set(tenancy.__all__) - set(listed) - {"TenancyError"}

    assert missing == set()


def test_every_operation_is_in_the_reference() -> None:
    listed = re.findall(r"^tenancy\.alembic\.\w+\.\w+\.(\w+)$", (REFERENCE / "alembic.md").read_text(), re.MULTILINE)

    assert sorted(listed) == sorted(operation.verb for operation in _OPERATIONS)  # type: ignore[attr-defined]


def test_floors_are_those_that_the_build_checks() -> None:
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    checked = config["importlinter:contract:floors"]["layers"].strip().replace("|", "·").splitlines()

    (shown,) = (block for block in blocks_of(ROOT / "CONTRIBUTING.md") if block.language == "text")

    assert shown.text.splitlines() == checked


def test_every_symbol_of_the_changelog_exists() -> None:
    symbols = re.findall(r"`(tenancy(?:\.\w+)+)(?:\(\))?`", (ROOT / "CHANGELOG.md").read_text())

    missing = [symbol for symbol in symbols if not _exists(symbol)]

    assert symbols
    assert missing == []


def _exists(symbol: str) -> bool:
    module, _, name = symbol.rpartition(".")
    try:
        return hasattr(import_module(module), name) or find_spec(symbol) is not None
    except ModuleNotFoundError:
        return False
