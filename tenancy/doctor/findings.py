"""What the doctor reports: rules with stable ids, and findings that name one object and one remedy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, Engine, MetaData

from tenancy.rls import Flavour, Roles

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Rule:
    """One thing that can be wrong. Its id never changes meaning and is never used again.

    id: "TEN" and three digits; the first says the kind: 0 the examination itself, 1 catalog, 2 roles and
    connection, 3 models, 4 code, 5 configuration. name: the id in words, in kebab case.
    why: one sentence for people who never heard of it: what could happen.
    """

    id: str
    name: str
    level: Level
    why: str

    def finding(self, object_name: str, what: str, *, remedy: str, line: int | None = None) -> Finding:
        """Report this rule on one object. See `Finding`."""
        return Finding(self, object_name, what, remedy, line)


@dataclass(frozen=True)
class Finding:
    """One rule broken by one object.

    object_name: exact, and the same at every run: `table public.people`, `role tenancy_app`, or the path of a
    file relative to what was examined. what: what was found, without row contents. remedy: SQL, an Alembic
    operation or code, ready to be copied. line: of a file, from 1; None for anything else.
    """

    rule: Rule
    object_name: str
    what: str
    remedy: str
    line: int | None = None

    @property
    def fingerprint(self) -> str:
        """Names the finding from run to run; a line that moves does not change it."""
        text = f"{self.rule.id}\0{self.object_name}\0{self.what}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Subject:
    """What is examined. What is None or empty is not examined, and the doctor says so.

    connection: for reading the catalog; as the migrator (the owner of the tables) or a superuser.
    app_engine: as the application would connect, for what only its own connection shows.
    code: files and folders of Python source. app: the Flask application, put together but not yet serving.
    """

    roles: Roles = field(default_factory=Roles)
    flavour: Flavour = "postgres"
    connection: Connection | None = None
    metadata: MetaData | None = None
    app_engine: Engine | None = None
    code: Sequence[Path] = ()
    app: object | None = None


Examine = Callable[[Subject], Iterable[Finding]]

NOT_CHECKED = Rule(
    "TEN001",
    "not-checked",
    "warning",
    "A check that could not run has found nothing, which is not the same as that nothing is wrong.",
)
