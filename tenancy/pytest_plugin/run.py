"""One run of pytest for a configured application: when the suite is added, and what happens around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tenancy.pytest_plugin import fixtures
from tenancy.pytest_plugin.installation import INSTALLATION, Installation
from tenancy.pytest_plugin.results import Results
from tenancy.pytest_plugin.settings import read_settings
from tenancy.pytest_plugin.suite import Generated, Isolation, Suite


def register(config: pytest.Config) -> None:
    """Add the suite, the fixtures and the evidence to this run."""
    settings = read_settings(config)
    if settings is None:
        raise AssertionError("nothing is configured")
    installation = config.stash[INSTALLATION] = Installation(config, settings)
    config.pluginmanager.register(fixtures, "tenancy-fixtures")
    config.pluginmanager.register(Run(config, installation), "tenancy-run")


def is_wanted(config: pytest.Config) -> bool:
    """Tell whether the generated suite belongs to this run: not when single files or tests are named."""
    if config.getoption("no_isolation"):
        return False
    if config.getoption("isolation"):
        return True
    return all((config.invocation_params.dir / Path(arg)).is_dir() for arg in config.args)


class Run:
    """Adds the suite to what pytest has collected, and lets go of the installation at the end."""

    def __init__(self, config: pytest.Config, installation: Installation) -> None:
        self._installation = installation
        self._suite = Suite(config, installation)
        self._results = Results(config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """First of all, so that -k and -m choose among the generated tests too."""
        if is_wanted(session.config):
            root: Isolation = Isolation.from_parent(session, name="tenancy", nodeid="tenancy")
            root.suite = self._suite
            made = list(session.genitems(root))
            self._results.note_collected(made)
            items.extend(made)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._results.note_selected(session.items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._results.note_report(report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._results.note_worker(getattr(node, "workeroutput", {}))

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        if not isinstance(item, Generated):
            self._installation.is_touched = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        try:
            self._results.finish(session, self._installation, is_wanted=is_wanted(session.config))
        finally:
            self._installation.close()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        self._results.show(terminalreporter)
