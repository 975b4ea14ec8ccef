"""What the doctor sees in code: each snippet yields exactly its finding, and its mended form none."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from tenancy.doctor.code import RULES, examine_code
from tenancy.doctor.examination import Report, examine
from tenancy.doctor.findings import Finding, Subject
from tests.models import Base

MODELS = """
from tenancy import TenantTable
class Person(TenantTable, Base):
    __tablename__ = "people"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str, name: str = "shop.py") -> None:
    (folder / name).write_text(dedent(text))


def found(folder: Path, text: str) -> list[str]:
    write(folder, text)
    return [one.rule.id for one in examine_code(Subject(code=[folder])) if isinstance(one, Finding)]


def report_of(folder: Path) -> Report:
    """Examine the folder, and leave out what says that nothing else was given."""
    return examine(Subject(code=[folder]))


def ids(report: Report) -> list[tuple[str, str, int | None]]:
    return [
        (one.rule.id, one.object_name, one.line)
        for one in report.findings
        if not one.object_name.startswith("kind ") and one.object_name.endswith((".py", ".toml"))
    ]


BROKEN = {
    "driver connection reads a tenant table": (
        "TEN401 TEN403",
        'import psycopg\nwith psycopg.connect(URL) as raw:\n    raw.execute("SELECT * FROM people")',
    ),
    "cursor of a driver connection": (
        "TEN401 TEN403",
        'import psycopg\nraw = psycopg.connect(URL)\ncursor = raw.cursor()\ncursor.execute("DELETE FROM people")',
    ),
    "plain engine inside a scope": (
        "TEN401 TEN403",
        """
        from sqlalchemy import create_engine, text
        engine = create_engine(URL)
        def read(tenant):
            with tenant_scope(tenant), engine.connect() as connection:
                return connection.execute(text("SELECT name FROM people")).all()
        """,
    ),
    "tenant engine outside a scope": (
        "TEN401",
        """
        from sqlalchemy import text
        from tenancy import create_tenant_engine
        engine = create_tenant_engine(URL)
        def read():
            with engine.connect() as connection:
                return connection.execute(text("SELECT name FROM people")).all()
        """,
    ),
    "statement named before it is run": (
        "TEN401",
        """
        from sqlalchemy import text
        QUERY = text("UPDATE people SET name = 'x'")
        def change(engine):
            with engine.begin() as connection:
                connection.execute(QUERY)
        """,
    ),
    "session-wide SET": ("TEN402", "def bind(session):\n    session.execute(text(\"SET app.tenant_id = 'x'\"))"),
    "SET behind another statement": ("TEN402", 'def bind(c):\n    c.exec_driver_sql("select 1; SET ROLE owner")'),
    "set_config for the session": (
        "TEN402",
        "def bind(session):\n    session.execute(text(\"SELECT set_config('app.tenant_id', :t, false)\"))",
    ),
    "set_config by func": (
        "TEN402",
        "from sqlalchemy import func, select\nq = select(func.set_config('app.tenant_id', t, False))",
    ),
    "preset in connection options": ("TEN402", 'args = {"options": "-c app.tenant_id=0197c1a2"}'),
    "SET ROLE in a migration": (
        "TEN402",
        'from alembic import op\ndef upgrade():\n    op.execute("SET ROLE postgres")',
    ),
    "engine of SQLAlchemy": ("TEN403", "import sqlalchemy as sa\nengine = sa.create_engine(URL)"),
    "client-side cursor": ("TEN403", "import psycopg\ncursor = psycopg.ClientCursor(raw)"),
    "thread without scope": (
        "TEN404",
        """
        from threading import Thread
        def count():
            return Session().query(Person).count()
        Thread(target=count).start()
        """,
    ),
    "pool without scope": (
        "TEN404",
        """
        from concurrent.futures import ThreadPoolExecutor
        def work(ids):
            with ThreadPoolExecutor() as threads:
                threads.map(lambda one: session.get(Person, one), ids)
        """,
    ),
    "task that nobody awaits": (
        "TEN404",
        """
        import asyncio
        async def mail():
            current_tenant()
        async def view():
            asyncio.create_task(mail())
        """,
    ),
    "executor of the loop": (
        "TEN404",
        "def read():\n    return tenancy.session\nasync def view(loop):\n    await loop.run_in_executor(None, read)",
    ),
    "cache key without tenant": (
        "TEN405",
        """
        def person(person_id):
            found = cache.get(f"person:{person_id}")
            return found or session.get(Person, person_id)
        """,
    ),
    "cache key in a variable": (
        "TEN405",
        """
        def count():
            key = "people:count"
            redis.set(key, len(tenancy.session.scalars(q).all()))
        """,
    ),
    "cached view": ("TEN405", "@cache.cached(timeout=60)\ndef people():\n    return tenancy.session.scalars(q).all()"),
    "lru_cache": (
        "TEN406",
        "from functools import lru_cache\n@lru_cache\ndef plan():\n    return plans[current_tenant()]",
    ),
    "functools.cache": (
        "TEN406",
        "import functools\n@functools.cache\ndef people(n):\n    return tenancy.session.scalars(q)",
    ),
    "tenant in a JSON body": ("TEN407", 'def view():\n    return request.json["tenant_id"]'),
    "tenant in a form": ("TEN407", 'def view():\n    return request.form.get("tenant")'),
    "tenant in a parsed body": ("TEN407", 'def view():\n    body = request.get_json()\n    return body["tenant_id"]'),
    "tenant in a schema": (
        "TEN407",
        "from pydantic import BaseModel\nclass NewPerson(BaseModel):\n    name: str\n    tenant_id: UUID",
    ),
    "exempt view with a session": (
        "TEN408",
        '@app.get("/x")\n@tenancy.exempt("public")\ndef x():\n    return tenancy.session.get(1)',
    ),
    "scope from a header": (
        "TEN407 TEN409",
        'def view():\n    with tenant_scope(UUID(request.headers["X-Tenant-ID"])):\n        ...',
    ),
    "scope from a route's parameter": (
        "TEN409",
        '@app.get("/admin/<uuid:tenant_id>")\ndef view(tenant_id):\n    with tenant_scope(tenant_id):\n        ...',
    ),
    "plain relationship": (
        "TEN410",
        MODELS + "class Note(TenantTable, Base):\n"
        '    __tablename__ = "notes"\n    person: Mapped["Person | None"] = relationship()',
    ),
    "plain foreign key": (
        "TEN411",
        MODELS + "class Note(TenantTable, Base):\n"
        '    __tablename__ = "notes"\n    person_id = mapped_column(ForeignKey("people.id"))',
    ),
    "f-string": ("TEN412", "def find(name):\n    return session.execute(text(f\"SELECT 1 WHERE x = '{name}'\"))"),
    "percent": ("TEN412", 'def find(name):\n    return cursor.execute("SELECT 1 WHERE x = %s" % name)'),
    "format": ("TEN412", 'def find(name):\n    return cursor.execute("SELECT 1 WHERE x = {}".format(name))'),
    "plus": ("TEN412", 'def find(name):\n    q = "SELECT 1 WHERE x = " + name\n    return cursor.execute(q)'),
}
SOUND = {
    "text inside a scope": """
        from sqlalchemy import text
        def read(tenant, engine):
            with tenant_scope(tenant), engine.connect() as connection:
                return connection.execute(text("SELECT name FROM people")).all()
        """,
    "text in a view": """
        @app.get("/people")
        def people():
            with engine.connect() as connection:
                return connection.execute(text("SELECT name FROM people")).all()
        """,
    "text on a session that was handed in": 'def read(session):\n    session.execute(text("SELECT * FROM people"))',
    "function in FROM": 'def read(engine):\n    engine.connect().execute(text("SELECT * FROM unnest(:x)"))',
    "SET LOCAL": "def bind(c):\n    c.execute(text(\"SET LOCAL lock_timeout = '1s'\"))",
    "UPDATE ... SET": "def change(c):\n    c.execute(text(\"UPDATE t SET name = 'x'\"))",
    "transaction-wide set_config": "def bind(c):\n    c.execute(text(\"SELECT set_config('a.b', 'x', true)\"))",
    "timeout in a migration": 'from alembic import op\ndef upgrade():\n    op.execute("SET lock_timeout = 5000")',
    "guarded engine": "from sqlalchemy import create_engine\nengine = guard_engine(create_engine(URL))",
    "engine guarded later": "from sqlalchemy import create_engine\nengine = create_engine(URL)\nguard_engine(engine)",
    "migration environment": "from alembic import context\nfrom sqlalchemy import create_engine\ncreate_engine(URL)",
    "SQLite": 'from sqlalchemy import create_engine\ncreate_engine("sqlite://")',
    "thread with a scope": """
        from threading import Thread
        def count(tenant_id):
            with tenant_scope(tenant_id):
                return Session().query(Person).count()
        Thread(target=count, args=[tenant_id]).start()
        """,
    "thread that serves": "from threading import Thread\nThread(target=server.serve_forever).start()",
    "task that is awaited": """
        async def mail():
            current_tenant()
        async def view():
            await asyncio.create_task(mail())
        """,
    "cache key with the tenant": 'def read(n):\n    return cache.get(f"{require_tenant()}:{n}") or session.get(P, n)',
    "cache of no tenant's data": 'def rates():\n    return cache.get("rates")',
    "lru_cache by tenant": """
        from functools import lru_cache
        @lru_cache
        def plan(tenant_id):
            with tenant_scope(tenant_id):
                return Session().get(Plan, 1)
        """,
    "lru_cache on a parser": "from functools import lru_cache\n@lru_cache\ndef parse(text):\n    return text.split()",
    "cookie session is no database session": """
        from flask import session
        from functools import cache
        @cache
        def hint():
            return session["hint"]
        """,
    "HTTP session is no database session": """
        import requests
        from functools import cache
        session = requests.Session()
        @cache
        def rates():
            return session.get("https://rates.example.com").json()
        """,
    "answer with the tenant": "from pydantic import BaseModel\nclass PersonAnswer(BaseModel):\n    tenant_id: UUID",
    "refusal of the parameter": 'def refuse():\n    if "tenant_id" in request.args:\n        raise BadRequest',
    "staff's scope": """
        @app.get("/admin/<uuid:tenant_id>")
        def view(tenant_id):
            with platform_scope(actor="ana", reason="support"), tenant_scope(tenant_id):
                ...
        """,
    "relationship to a platform table": MODELS
    + 'class Account(Base):\n    __tablename__ = "accounts"\n'
    + 'class Note(TenantTable, Base):\n    __tablename__ = "notes"\n'
    + '    account_id = mapped_column(ForeignKey("accounts.id"))\n    account: Mapped[Account] = relationship()',
    "composed by psycopg": 'def make(c, n):\n    c.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(n)))',
    "constant in an f-string": 'LIMIT = 5\ndef read(c):\n    c.execute(text(f"SELECT 1 LIMIT {LIMIT}"))',
    "bound value": 'def find(c, name):\n    c.execute(text("SELECT 1 WHERE x = :name"), {"name": name})',
    "names of tables in a migration": """
        from alembic import op
        def upgrade():
            for name in NAMES.split():
                op.execute(f"ALTER TABLE {name} ADD COLUMN note text")
        """,
    "f-string that is no SQL": 'def call(robot, name):\n    robot.execute(f"say {name}")',
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_code_yields_its_finding(folder: Path, name: str) -> None:
    expected, text = BROKEN[name]

    assert sorted(set(found(folder, text))) == expected.split()


@pytest.mark.parametrize("name", SOUND)
def test_sound_code_yields_nothing(folder: Path, name: str) -> None:
    assert found(folder, SOUND[name]) == []


def test_every_rule_is_provoked() -> None:
    provoked = {rule_id for expected, _ in BROKEN.values() for rule_id in expected.split()}

    assert provoked == {rule.id for rule in RULES}


def test_tables_of_the_metadata_are_the_tenants(folder: Path) -> None:
    text = 'def read(engine):\n    engine.connect().execute(text("SELECT * FROM {}"))'
    write(folder, text.format("people"), "one.py")
    write(folder, text.format("currencies"), "two.py")

    findings = [one for one in examine_code(Subject(code=[folder], metadata=Base.metadata)) if isinstance(one, Finding)]

    assert [(one.rule.id, one.object_name, one.line, one.what) for one in findings] == [
        ("TEN401", "one.py", 2, "SQL on people runs in no scope, as far as this file shows")
    ]


def test_a_function_in_another_file_is_followed(folder: Path) -> None:
    write(folder, "def count():\n    return tenancy.session.scalar(q)\n", "counting.py")
    write(folder, "from threading import Thread\nfrom counting import count\nThread(target=count).start()\n", "run.py")

    assert ids(report_of(folder)) == [("TEN404", "run.py", 3)]


def test_file_that_is_no_python_is_told_of_and_the_others_are_read(folder: Path) -> None:
    write(folder, "def broken(:\n", "broken.py")
    write(folder, "import sqlalchemy\nsqlalchemy.create_engine(URL)\n", "whole.py")

    assert ids(report_of(folder)) == [("TEN403", "whole.py", 2), ("TEN001", "broken.py", 1)]


def test_folder_without_python_is_told_of(folder: Path) -> None:
    (folder / "empty").mkdir()

    (finding,) = examine_code(Subject(code=[folder / "empty"]))

    assert isinstance(finding, Finding)
    assert (finding.rule.id, finding.object_name) == ("TEN001", "kind code")


def test_examined_code_is_not_imported(folder: Path) -> None:
    write(folder, "raise SystemExit('imported')\n")

    assert ids(report_of(folder)) == []


def test_code_of_others_is_left_out(folder: Path) -> None:
    for place in (".venv/lib", "build", "__pycache__"):
        (folder / place).mkdir(parents=True)
        write(folder, "import sqlalchemy\nsqlalchemy.create_engine(URL)\n", f"{place}/theirs.py")
    write(folder, "x = 1\n")

    assert ids(report_of(folder)) == []


# Comments ---------------------------------------------------------------------------------------------

ENGINE = "import sqlalchemy\n{before}engine = sqlalchemy.create_engine(URL){behind}\n"


def test_comment_with_a_reason_ignores_its_line(folder: Path) -> None:
    write(folder, ENGINE.format(before="", behind="  # tenancy: ignore[TEN403] the migrator's, in a command"))

    report = report_of(folder)

    assert ids(report) == []
    assert [(one.finding.rule.id, one.ignore.reason) for one in report.ignored] == [
        ("TEN403", "the migrator's, in a command")
    ]


def test_comment_ignores_no_other_line(folder: Path) -> None:
    behind = "  # tenancy: ignore[TEN403] the migrator's\nother = sqlalchemy.create_engine(URL)"
    write(folder, ENGINE.format(before="", behind=behind))

    assert ids(report_of(folder)) == [("TEN403", "shop.py", 3)]


def test_comment_above_ignores_the_next_line_of_code(folder: Path) -> None:
    write(folder, ENGINE.format(before="# tenancy: ignore[TEN403] for the migrator until 2999-01-31\n\n", behind=""))

    assert ids(report_of(folder)) == []


@pytest.mark.parametrize(
    "comment",
    ["", "[TEN403]", "[TEN403] until 2999-01-31", "[plain-engine] the migrator's", "[TEN403] ours until tomorrow"],
)
def test_comment_without_rule_reason_or_day_ignores_nothing(folder: Path, comment: str) -> None:
    write(folder, ENGINE.format(before="", behind=f"  # tenancy: ignore{comment}"))

    assert ids(report_of(folder)) == [("TEN403", "shop.py", 2), ("TEN004", "shop.py", 2)]


def test_comment_past_its_day_is_told_of_and_ignores_nothing(folder: Path) -> None:
    write(folder, ENGINE.format(before="", behind="  # tenancy: ignore[TEN403] for now until 2020-01-31"))

    assert ids(report_of(folder)) == [("TEN403", "shop.py", 2), ("TEN002", "shop.py", 2)]


def test_comment_that_ignores_nothing_is_told_of(folder: Path) -> None:
    write(folder, "x = 1  # tenancy: ignore[TEN403] it was an engine once")

    assert ids(report_of(folder)) == [("TEN003", "shop.py", 1)]


def test_comment_in_a_string_is_text(folder: Path) -> None:
    write(folder, 'x = "# tenancy: ignore[TEN403] it is text"')

    assert ids(report_of(folder)) == []


def test_own_application_and_examples_have_no_finding_without_a_reason() -> None:
    root = Path(__file__).parents[2]

    report = examine(Subject(code=[root / "app", root / "docs" / "examples"]))

    assert ids(report) == []
    assert [one.finding.object_name for one in report.ignored] == [
        "app/development.py",
        "app/observability/readiness.py",
        "app/queue/worker.py",
    ]
