"""The generated suite: one test for each cell of the matrix, each route and method, and each negative control."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import pytest
from _pytest._code.code import ExceptionInfo

from tenancy.context import outside_any_scope
from tenancy.errors import ConfigurationError, TenancyError
from tenancy.pytest_plugin.clients import open_client, routes_of, rows_of, visitor
from tenancy.pytest_plugin.installation import Installation
from tenancy.testing.controls import Control, controls_for, run_control
from tenancy.testing.matrix import Cell, Matrix, cells
from tenancy.testing.routes import Body, Route, RouteVerdict, check_declarations
from tenancy.testing.sweep import Sweep, Visitor
from tenancy.testing.world import SeededTenant

PROPERTY = "tenancy."  # what the names of a generated test's properties begin with
_HINT = "compare the table with its model: `tenancy doctor` names what differs"


class UnprovenError(Exception):
    """A generated test failed; the message is all there is to say, and a traceback would say nothing."""


class Suite:
    """What the tests of one process run on: made when the first of them needs it."""

    def __init__(self, config: pytest.Config, installation: Installation) -> None:
        self.config = config
        self.installation = installation
        self._matrix: Matrix | None = None

    @property
    def matrix(self) -> Matrix:
        world = self.installation.world
        if self._matrix is None:
            self._matrix = Matrix(world)
            self.installation.at_close(self._matrix.close)
        return self._matrix

    def routes(self) -> list[Route]:
        """Return the routes, having made sure that the declared exceptions fit them."""
        routes = routes_of(self.installation.app)
        check_declarations(self.unswept(), routes)
        return routes

    def sweep(self, route: Route) -> RouteVerdict:
        return Sweep(self.installation.world, self._visitors, self._body, self.unswept()).run(route)

    def unswept(self) -> dict[str, str]:
        found: list[dict[str, str]] = self.config.hook.pytest_tenancy_unswept()
        return {name: reason for declared in reversed(found) for name, reason in declared.items()}

    def _visitors(self) -> tuple[Visitor, Visitor]:
        world = self.installation.world
        owner, stranger = (open_client(self.config, self.installation.app, world, one) for one in world.tenants)
        return visitor(owner), visitor(stranger)

    def _body(self, route: Route, tenant: SeededTenant) -> Body | None:
        rows = rows_of(self.installation.world, tenant)
        given = self.config.hook.pytest_tenancy_request(
            endpoint=route.endpoint, method=route.method, tenant=tenant, rows=rows
        )
        if given is None:
            return None
        try:
            return Body(**given)
        except TypeError:
            raise ConfigurationError(
                f"pytest_tenancy_request gave {sorted(given)} for {route.endpoint}",
                hint="give any of json, form, content, query and path",
            ) from None


class Isolation(pytest.Collector):
    """The root of the suite. What it cannot collect is an error, never an empty suite."""

    suite: Suite

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        with outside_any_scope():
            try:
                return self._folders()
            except TenancyError as error:
                raise self.CollectError(str(error)) from error

    def _folders(self) -> list[pytest.Collector]:
        installation = self.suite.installation
        by_table: dict[str, list[Cell]] = {}
        for cell in cells(installation.metadata):
            by_table.setdefault(cell.table, []).append(cell)
        installation.make_template()  # a server that cannot start shows here, and not in each test
        folders: list[pytest.Collector] = [
            Folder.of(self, "matrix", lambda here: [Folder.of(here, t, self._tests(c)) for t, c in by_table.items()])
        ]
        if installation.has_app:
            routes = self.suite.routes()
            folders.append(Folder.of(self, "routes", lambda here: [RouteTest.of(here, self.suite, r) for r in routes]))
        made_for = controls_for(installation.metadata)
        controls = Folder.of(self, "controls", lambda here: [ControlTest.of(here, self.suite, c) for c in made_for])
        return [*folders, controls]

    def _tests(self, found: list[Cell]) -> Callable[[pytest.Collector], list[pytest.Item]]:
        return lambda here: [CellTest.of(here, self.suite, cell) for cell in found]


class Folder(pytest.Collector):
    """Tests of one kind, or of one table."""

    content: Callable[[pytest.Collector], Iterable[pytest.Item | pytest.Collector]]

    @classmethod
    def of(cls, parent: pytest.Collector, name: str, content: Callable[[pytest.Collector], Any]) -> Folder:
        made: Folder = cls.from_parent(parent, name=str(name))
        made.content = content
        return made

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        return self.content(self)


class Generated(pytest.Item):
    """A test nobody wrote. Its properties hold what it is about and what came of it, for JUnit and the evidence."""

    kind: ClassVar[str]
    suite: Suite
    subject: Any

    @classmethod
    def of(cls, parent: pytest.Collector, suite: Suite, subject: Any) -> Any:
        made: Any = cls.from_parent(parent, name=cls.name_of(subject))
        made.suite, made.subject = suite, subject
        made.add_marker("isolation")
        made.note(kind=cls.kind, **made.about())
        return made

    @classmethod
    def name_of(cls, subject: Any) -> str:
        raise NotImplementedError

    def about(self) -> dict[str, str]:
        raise NotImplementedError

    def prove(self) -> str:
        """Run, note what came of it, and return what failed; "" when nothing did."""
        raise NotImplementedError

    def note(self, **properties: str) -> None:
        # Plain text, which pytest-xdist can send: names of tables and columns are of a class of SQLAlchemy's.
        self.user_properties += [(PROPERTY + name, str(text)) for name, text in properties.items()]

    def runtest(self) -> None:
        with outside_any_scope():
            try:
                failure = self.prove()
            except TenancyError as error:
                self.note(found="could not run", detail=str(error))
                raise UnprovenError(f"could not run: {error}") from error
        if failure:
            raise UnprovenError(failure)

    def repr_failure(self, excinfo: ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, UnprovenError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, self.nodeid.replace("::", " ", 1).replace("::", " · ")


class CellTest(Generated):
    kind = "cell"

    @classmethod
    def name_of(cls, subject: Cell) -> str:
        return f"{subject.verb}[{subject.actor}]"

    def about(self) -> dict[str, str]:
        return {"table": self.subject.table, "verb": self.subject.verb, "actor": self.subject.actor}

    def prove(self) -> str:
        verdict = self.suite.matrix.run(self.subject)
        self.note(expected=verdict.expected, found=verdict.found, statement=verdict.statement, detail=verdict.detail)
        if verdict.passed:
            return ""
        told = {
            "table": self.subject.table,
            "verb": self.subject.verb,
            "actor": self.subject.actor,
            "expected": verdict.expected,
            "found": verdict.found,
            "statement": verdict.statement,
            "detail": verdict.detail,
            "hint": _HINT,
        }
        lines = [f"  {name + ':':<11}{text}".replace("\n", f"\n{'':13}") for name, text in told.items() if text]
        return "\n".join([f"{verdict.found}, not {verdict.expected}", *lines])


class RouteTest(Generated):
    kind = "route"

    @classmethod
    def name_of(cls, subject: Route) -> str:
        return f"{subject.endpoint}[{subject.method} {subject.rule}]"

    def about(self) -> dict[str, str]:
        return {"rule": self.subject.rule, "method": self.subject.method, "endpoint": self.subject.endpoint}

    def prove(self) -> str:
        verdict = self.suite.sweep(self.subject)
        self.note(outcome=verdict.outcome, reason=verdict.reason, detail=verdict.detail, calls="\n".join(verdict.calls))
        if verdict.passed:
            return ""
        lines = [f"{self.subject.method} {self.subject.rule}: {verdict.outcome}", verdict.detail, *verdict.calls]
        return "\n  ".join(lines)


class ControlTest(Generated):
    kind = "control"

    @classmethod
    def name_of(cls, subject: Control) -> str:
        return subject.name

    def about(self) -> dict[str, str]:
        return {"control": self.subject.name, "what": self.subject.what}

    def prove(self) -> str:
        world, close = self.suite.installation.spare_world()
        try:
            verdict = run_control(self.subject, world)
        finally:
            close()
        red = sorted(f"{v.cell.table} {v.cell.verb} [{v.cell.actor}]: {v.found}" for v in verdict.red)
        self.note(red="\n".join(red), detail=verdict.detail)
        return "" if verdict.passed else f"{self.subject.what}: {verdict.detail or 'the matrix stayed green'}"
