"""Reading a page of documentation as a program: its fenced blocks, in order, and what each one asks for."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROGRAMS = ("python", "pycon", "console", "setup", "setup: op")
_BLOCK = re.compile(
    r"(?P<skip>^ *<!-- not run: [^\n]+ -->\n)?^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^ *```$"
    r"|^<!-- (?P<marker>setup(?:: op)?) -->$",
    re.DOTALL | re.MULTILINE,
)
_FILE = re.compile(r"# (?P<name>[\w/.-]+\.py)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block. `line` is where its text begins in the page, so that a traceback points there."""

    page: Path
    line: int
    language: str
    text: str
    is_run: bool

    @property
    def file_name(self) -> str | None:
        """The file that a block is when its first line names one in a comment."""
        found = _FILE.match(self.text)
        return found["name"] if found else None


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        begin = found.start("text") if found["text"] is not None else found.start()
        yield Block(
            page,
            line=text.count("\n", 0, begin) + 1,
            language=found["language"] or found["marker"],
            text=textwrap.dedent(found["text"] or ""),
            is_run=found["skip"] is None,
        )


def programs_of(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.is_run and block.language in PROGRAMS]


class Reader:
    """Does what a page says, in a folder of its own, as a reader would from top to bottom.

    python: saved when its first line names a file, else executed in one namespace for the page.
    pycon: typed at the prompt, and the answers compared. console: each `$ command` must succeed.
    set_ups: called with the namespace where the page has their marker, for what its text assumes.
    """

    def __init__(self, folder: Path, **set_ups: Callable[[dict[str, Any]], None]) -> None:
        self.folder = folder
        self.namespace: dict[str, Any] = {"__name__": "page"}
        self._set_ups = set_ups

    def follow(self, page: Path) -> None:
        for block in programs_of(page):
            self.do(block)

    def do(self, block: Block) -> None:
        match block.language:
            case "python" if block.file_name is not None:
                path = self.folder / block.file_name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            case "python":
                source = "\n" * (block.line - 1) + block.text
                exec(compile(source, str(block.page), "exec", dont_inherit=True), self.namespace)
            case "pycon":
                self._type(block)
            case "console":
                for command in commands(block.text):
                    self.run(command)
            case "setup" | "setup: op":
                self._set_ups[block.language.rpartition(" ")[2]](self.namespace)

    def _type(self, block: Block) -> None:
        test = doctest.DocTestParser().get_doctest(
            block.text, self.namespace, block.page.name, str(block.page), block.line - 1
        )
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        said: list[str] = []
        runner.run(test, out=said.append, clear_globs=False)
        self.namespace.update(test.globs)
        assert runner.summarize(verbose=False).failed == 0, "".join(said)

    def run(self, command: str) -> str:
        """Run one shell command in the folder, with the programs of this environment first."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if "PYTEST" not in name} | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


def commands(text: str) -> list[str]:
    """Return what follows each `$ `, with the lines that a backslash joins to it."""
    joined = text.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]
