"""The results: gathered from every worker, told in the terminal, and written as evidence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tenancy.pytest_plugin.installation import Installation
from tenancy.pytest_plugin.suite import PROPERTY, Generated
from tenancy.testing.evidence import Evidence
from tenancy.testing.premises import Premises, read_premises

_OUTPUT = "tenancy"


class Results:
    """What the generated tests of this run showed. The process that ends the run writes it down."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._is_worker = hasattr(config, "workerinput")
        self._found: dict[str, dict[str, Any]] = {}
        self._collected: dict[str, str] = {}
        self._selected: dict[str, str] = {}
        self._premises: Premises | None = None
        self._faults: list[str] = []
        self._page: Path | None = None

    def note_collected(self, items: Iterable[pytest.Item]) -> None:
        self._collected = _kinds(items)

    def note_selected(self, items: Iterable[pytest.Item]) -> None:
        self._selected = _kinds(items)

    def note_report(self, report: pytest.TestReport) -> None:
        properties = {
            name.removeprefix(PROPERTY): text for name, text in report.user_properties if name.startswith(PROPERTY)
        }
        if properties and (report.when == "call" or report.failed):
            self._found[report.nodeid] = properties | {"passed": report.passed}

    def note_worker(self, output: Mapping[str, Any]) -> None:
        """Take over what a pytest-xdist worker knows; all of them collected the same."""
        if _OUTPUT in output:
            told = json.loads(output[_OUTPUT])
            self._collected, self._selected = told["collected"], told["selected"]
            if told["premises"] is not None:
                self._premises = Premises(**told["premises"])

    def finish(self, session: pytest.Session, installation: Installation, *, is_wanted: bool) -> None:
        """Hand the results on, or write the evidence; a suite that was asked for and did not run fails the run."""
        if self._premises is None and self._found and installation.has_world:
            self._premises = read_premises(installation.world)
        if self._is_worker:
            told = {
                "collected": self._collected,
                "selected": self._selected,
                "premises": vars(self._premises) if self._premises else None,
            }
            self._config.workeroutput[_OUTPUT] = json.dumps(told)  # type: ignore[attr-defined]  # pytest-xdist's
            return
        if not is_wanted or self._config.getoption("collectonly"):
            return
        self._check(session)
        if self._found:
            self._write(self._config.rootpath / str(self._config.getoption("isolation_report")))

    def _check(self, session: pytest.Session) -> None:
        ran = {found["kind"] for found in self._found.values()}
        if "cell" not in self._collected.values():
            self._faults.append("no cell of the matrix was collected: isolation was not proven")
        elif "cell" in self._selected.values() and "cell" not in ran:
            self._faults.append("no cell of the matrix ran: isolation was not proven")
        if self._faults and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @property
    def evidence(self) -> Evidence:
        found = [self._found[node] for node in self._collected if node in self._found]
        return Evidence.of(found, collected=Counter(self._collected.values()), premises=self._premises)

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        evidence = self.evidence
        (folder / "matrix.json").write_text(evidence.as_json(), encoding="utf-8")
        self._page = folder / "matrix.html"
        self._page.write_text(evidence.as_html(), encoding="utf-8")

    def show(self, terminal: pytest.TerminalReporter) -> None:
        """Draw the matrix, one character for each table and verb, and say where the evidence is."""
        if not self._found and not self._faults:
            return
        terminal.section("tenant isolation")
        for fault in self._faults:
            terminal.line(fault, red=True, bold=True)
        if not self._found:
            return
        evidence = self.evidence
        for line in evidence.heat():
            for text, colour in line:
                terminal.write(text, **({colour: True} if colour else {}))
            terminal.line("")
        terminal.line(evidence.sentence, green=evidence.passed, red=not evidence.passed)
        if self._page is not None:
            terminal.line(f"evidence: {self._page}")


def _kinds(items: Iterable[pytest.Item]) -> dict[str, str]:
    """Return the kind of each generated test by its id, in the order of collection."""
    return {item.nodeid: item.kind for item in items if isinstance(item, Generated)}
