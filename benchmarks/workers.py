"""Contenders as processes: each in its own environment, asked in turn, and timing itself."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.machine import versions

ROOT = Path(__file__).parents[1]
PIP_TIMEOUT_S = 300


@dataclass(frozen=True)
class Entry:
    """A contender. package: what its environment has besides SQLAlchemy and psycopg; None for our own environment."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    package: str | None = None


TENANCY = Entry("tenancy", "tenancy", ("people",))
ONE_POLICY = Entry("tenancy, one policy", "tenancy", ("people_one_policy",))
NO_POLICY = Entry("tenancy, no policy", "tenancy", ("people_no_policy",))
PLAIN = Entry("plain SQLAlchemy", "plain")
DRIVER = Entry("psycopg alone", "driver")
RIVALS = (
    Entry("flask-rls", "flask_rls", package="flask-rls==0.1.1"),
    Entry("rls", "rls", package="rls==0.3.2"),
    Entry("sqlalchemy-tenants", "sqlalchemy_tenants", package="sqlalchemy-tenants==0.2.0"),
)


class WorkerError(Exception):
    """A contender could not be started, or failed at what it was asked."""


class Worker:
    """A contender's process. first: what it is told before anything is asked."""

    def __init__(self, entry: Entry, first: dict[str, Any], *, cache: Path) -> None:
        self.name = entry.name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in close()
        python = sys.executable if entry.package is None else str(environment_of(entry.package, cache=cache))
        self._process = subprocess.Popen(
            [python, "-m", f"benchmarks.contenders.{entry.module}", *entry.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
        )
        try:
            self.actions: list[str] = self._exchange(first)
        except BaseException:
            self.close()
            raise

    def ask(self, action: str, **options: Any) -> Any:
        """Ask for an action and wait for the answer.

        Raises: WorkerError - with the last line of the contender's own traceback.
        """
        return self._exchange({"do": action, **options})

    def timing(self, action: str) -> Callable[[int], list[float]]:
        """Return what asks for a batch of this action's times."""

        def ask(n: int) -> list[float]:
            times: list[float] = self.ask(action, n=n)
            return times

        return ask

    def _exchange(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{self.name}: {_shortened(reply['error'])}")
        return reply["value"]

    def _ended(self) -> WorkerError:
        self._errors.seek(0)
        return WorkerError(f"{self.name} ended by itself: {_shortened(self._errors.read())}")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _shortened(trace: str) -> str:
    """The line that names the exception, which SQLAlchemy follows with the statement and a link."""
    lines = [
        line for line in trace.splitlines() if line and not line.startswith((" ", "[SQL", "[param", "(Background"))
    ]
    return lines[-1][:300] if lines else trace[-300:]


def environment_of(package: str, *, cache: Path) -> Path:
    """Return the interpreter of a package's own environment; made on first use, with our SQLAlchemy and psycopg.

    Raises: WorkerError - it could not be installed.
    """
    ours = versions(("SQLAlchemy", "psycopg", "psycopg-binary", "greenlet"))
    wanted = [package, *(f"{name}=={number}" for name, number in ours.items())]
    digest = hashlib.sha256(" ".join([sys.version, *wanted]).encode()).hexdigest()[:12]
    folder = cache / f"{package.partition('==')[0]}-{digest}"
    python, stamp = folder / "bin" / "python", folder / "complete"
    if stamp.exists():
        return python
    venv.create(folder, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise WorkerError(f"{package} could not be installed in {PIP_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise WorkerError(f"{package} could not be installed: {done.stderr.strip().splitlines()[-1:]}")
    stamp.touch()
    return python


def make_environments(*, cache: Path) -> list[str]:
    """Make the rivals' environments that are missing; return why some could not be made."""
    failed = []
    for entry in RIVALS:
        try:
            environment_of(str(entry.package), cache=cache)
        except WorkerError as error:
            failed.append(str(error))
    return failed


def default_cache() -> Path:
    """Where the rivals' environments are kept between runs, outside the repository."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sqlalchemy-tenancy-benchmarks"


def policies_of(entry: Entry, *tables: str, cache: Path) -> list[str]:
    """Let a rival write the statements that guard these tables."""
    with Worker(entry, {}, cache=cache) as worker:
        return [statement for table in tables for statement in worker.ask("ddl", table=table)]
