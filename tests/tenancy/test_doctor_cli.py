"""`tenancy doctor`, `flask tenancy doctor` and the look at start-up, against a real server."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import NullPool

from tenancy.binding import create_tenant_engine
from tenancy.cli import main
from tenancy.context import platform_scope
from tenancy.doctor.examination import RULES, examine
from tenancy.doctor.findings import Subject
from tenancy.errors import UnsafeConnectionError
from tenancy.session import tenant_sessionmaker
from tests.conftest import ROLES, Database
from tests.models import Base
from tests.tenancy.directories import ACME, ListedDirectory
from tests.tenancy.doctor_cluster import own_cluster
from tests.tenancy.flask_app import make_app

ROOT = Path(__file__).parents[2]
MODELS = "tests.models:Base.metadata"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with own_cluster(tmp_path_factory.mktemp("doctor")) as database:
        yield database


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a folder of the test's own, with a sound file and a broken one in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TENANCY_DOCTOR_URL", raising=False)
    (tmp_path / "sound.py").write_text("x = 1\n")
    (tmp_path / "broken.py").write_text("import sqlalchemy\nengine = sqlalchemy.create_engine(URL)\n")
    return tmp_path


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


def ids(answer: Result) -> list[tuple[str, str]]:
    return [(one["id"], one["object"]) for one in json.loads(answer.output)["findings"]]


def kinds(answer: Result) -> list[str]:
    """What was not examined."""
    return [name for rule, name in ids(answer) if rule == "TEN001" and name.startswith("kind ")]


# The command ------------------------------------------------------------------------------------------


def test_canonical_database_models_and_code_have_no_finding(database: Database) -> None:
    """T133"""
    answer = doctor(
        database.url(ROLES.migrator),
        *("--metadata", MODELS, "--app-url", database.url(ROLES.app), "--code", "sound.py", "--format", "json"),
    )

    assert [(rule, name) for rule, name in ids(answer) if not name.startswith("kind ")] == []
    assert kinds(answer) == ["kind configuration"]
    assert answer.exit_code == 1


def test_what_is_not_given_was_not_checked() -> None:
    answer = doctor("--format", "json")

    assert kinds(answer) == ["kind catalog", "kind code", "kind configuration", "kind models", "kind roles"]
    assert answer.exit_code == 1


def test_url_may_come_from_the_environment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANCY_DOCTOR_URL", database.url(ROLES.migrator))

    answer = doctor("--metadata", MODELS, "--format", "json")

    assert "kind catalog" not in kinds(answer)


def test_url_without_a_driver_is_understood(database: Database) -> None:
    answer = doctor(database.url(ROLES.migrator).replace("+psycopg", ""), "--metadata", MODELS, "--format", "json")

    assert "kind catalog" not in kinds(answer)


def test_doctor_leaves_nothing_behind(database: Database) -> None:
    def state() -> list[Any]:
        with database.connect("postgres") as connection:
            query = "SELECT c.oid, c.relname, c.xmin::text FROM pg_class c WHERE c.relname NOT LIKE 'pg_%' ORDER BY 1"
            return connection.execute(query).fetchall()

    before = state()
    assert len(before) > 20

    doctor(database.url(ROLES.migrator), "--metadata", MODELS, "--app-url", database.url(ROLES.app))

    assert state() == before


def test_kinds_that_are_not_asked_for_are_neither_examined_nor_missed() -> None:
    asked = doctor("--kind", "code", "--code", "sound.py", "--format", "json")
    missed = doctor("--kind", "code", "--kind", "models", "--code", "sound.py", "--format", "json")

    assert (asked.exit_code, ids(asked)) == (0, [])
    assert json.loads(asked.output)["examined"] == ["code"]
    assert (missed.exit_code, kinds(missed)) == (1, ["kind models"])


@pytest.mark.parametrize(
    ("level", "status"),
    [("error", 1), ("warning", 1), ("note", 1)],
)
def test_status_tells_of_an_error_at_any_level(level: str, status: int) -> None:
    assert doctor("--code", "broken.py", "--fail-on", level).exit_code == status


@pytest.mark.parametrize(("level", "status"), [("error", 0), ("warning", 1), ("note", 1)])
def test_status_is_decided_by_the_level_asked_for(level: str, status: int) -> None:
    assert doctor("--code", "sound.py", "--fail-on", level).exit_code == status


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mysql://x/y"], "write it as postgresql+psycopg://"),
        (["not a url"], "is no database URL"),
        (["postgresql+psycopg://nobody@127.0.0.1:1/x"], "the database does not answer: "),
        (["--app-url", "postgresql+psycopg2://x/y"], "write it as postgresql+psycopg://"),
        (["--metadata", "tests.models"], "write it as in shop.models:Base.metadata"),
        (["--metadata", "nowhere.models:Base"], "ModuleNotFoundError: No module named 'nowhere'"),
        (["--metadata", "tests.models:Nothing.metadata"], "AttributeError: "),
        (["--metadata", "tests.models:Base"], "is DeclarativeAttributeIntercept, not a MetaData"),
        (["--app", "tests.models:Person"], "--app tests.models:Person could not be made: NoTenantError: "),
        (["--app", "builtins:dict"], "made dict, which is no Flask app"),
        (["--code", "nowhere"], "does not exist"),
        (["--config", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--baseline", "nowhere.json"], "nowhere.json is no baseline"),
        (["--output", "no/such/folder.txt"], "--output no/such/folder.txt: No such file or directory"),
        (["--roles-prefix", "Bad Prefix"], "is not a plain lower-case SQL name"),
        (["--format", "pdf"], "'pdf' is not one of"),
    ],
)
def test_misuse_is_one_clear_sentence(arguments: list[str], said: str) -> None:
    answer = doctor(*arguments)

    assert answer.exit_code == 2
    assert said in answer.output
    assert "Traceback" not in answer.output
    assert len([line for line in answer.output.splitlines() if line.startswith("Error: ")]) == 1


def test_password_of_an_unreachable_database_is_not_shown() -> None:
    assert "hunter2" not in doctor("postgresql+psycopg://nobody:hunter2@127.0.0.1:1/x").output


def test_list_names_the_rules_without_examining() -> None:
    answer = doctor("--list")

    assert answer.exit_code == 0
    assert "TEN101" in answer.output
    assert "TEN511" in answer.output


@pytest.mark.parametrize(("form", "begins"), [("sarif", "{"), ("junit", "<?xml"), ("json", "{"), ("text", "errors ")])
def test_each_form_can_be_written_to_a_file(form: str, begins: str, folder: Path) -> None:
    answer = doctor("--code", "broken.py", "--format", form, "--output", "report.out")

    assert (folder / "report.out").read_text().startswith(begins)
    assert "see report.out" in answer.output
    assert answer.exit_code == 1


def test_decisions_are_read_from_the_folder(folder: Path) -> None:
    (folder / "tenancy-doctor.toml").write_text(
        '[[ignore]]\nrule = "TEN403"\nobject = "broken.py"\nreason = "of the administrator"\n'
    )

    answer = doctor("--code", "broken.py", "--format", "json")

    assert "broken.py" not in [name for _, name in ids(answer)]
    assert [one["reason"] for one in json.loads(answer.output)["ignored"]] == ["of the administrator"]


def test_decision_about_what_was_not_examined_is_not_called_unused(folder: Path) -> None:
    (folder / "tenancy-doctor.toml").write_text(
        '[[ignore]]\nrule = "TEN101"\nobject = "table public.*"\nreason = "guarded next week"\n'
        '[[ignore]]\nrule = "TEN401"\nobject = "sound.py"\nreason = "was never needed"\n'
    )

    answer = doctor("--code", "sound.py", "--format", "json")

    assert [name for rule, name in ids(answer) if rule == "TEN003"] == ["tenancy-doctor.toml, ignore 2"]


def test_baseline_fails_new_findings_only(folder: Path) -> None:
    wrote = doctor("--code", "broken.py", "--write-baseline", "known.json")
    again = doctor("--code", "broken.py", "--baseline", "known.json")
    (folder / "broken.py").write_text((folder / "broken.py").read_text() + "other = sqlalchemy.create_engine(URL)\n")
    more = doctor("--code", "broken.py", "--baseline", "known.json", "--format", "json")
    (folder / "broken.py").write_text("x = 1\n")
    mended = doctor("--code", "broken.py", "--baseline", "known.json")

    assert (wrote.exit_code, again.exit_code, more.exit_code, mended.exit_code) == (0, 0, 1, 0)
    assert ids(more) == [("TEN403", "broken.py")]
    assert "gone since the baseline\n  TEN403 broken.py: create_engine" in mended.output


def test_check_that_dies_is_a_finding_and_ends_nothing(database: Database) -> None:
    class Broken:
        extensions: dict[str, object] = {}  # noqa: RUF012 - it has no config, and so the check dies

    report = examine(Subject(app=Broken(), code=[Path("broken.py")]))

    told = [(one.rule.id, one.object_name, one.what) for one in report.findings if one.rule.id != "TEN403"]
    assert ("TEN001", "kind configuration", "a check ended with AttributeError") in told
    assert "TEN403" in [one.rule.id for one in report.findings]


def test_lost_connection_leaves_each_rule_that_needed_it_unchecked(database: Database) -> None:
    engine = create_engine(database.url(ROLES.migrator), poolclass=NullPool)
    with engine.connect() as connection, database.connect("postgres") as superuser:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

        report = examine(Subject(connection=connection, metadata=Base.metadata, code=[Path("broken.py")]))

    assert report.unchecked >= {rule.id for rule in RULES if rule.id[3] in "123"}
    assert report.kinds == ["code"]
    assert "TEN403" in [one.rule.id for one in report.findings]


def test_app_names_models_and_engine_that_are_not_given(database: Database, folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP)
    url = database.url(ROLES.migrator)

    answer = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "shop", "tenancy", "doctor", url, "--code", "sound.py"],
        env=os.environ | {"APP_URL": database.url(ROLES.app), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    imported = CliRunner(env={"APP_URL": database.url(ROLES.app)}).invoke(
        main, ["doctor", url, "--app", "shop:create_app", "--code", "sound.py"]
    )

    assert answer.stdout.startswith("0 errors, 0 warnings, 0 notes"), answer.stdout + answer.stderr
    assert imported.output.startswith("0 errors, 0 warnings, 0 notes")
    assert (answer.returncode, imported.exit_code) == (0, 0)


SHOP = """
import os
from flask import Flask
from tenancy import SQLDirectory, create_tenant_engine, tenant_sessionmaker
from tenancy.flask import Tenancy
from tenancy.resolvers import from_subdomain
from tests.models import Domain, Tenant

def create_app():
    app = Flask("shop")
    app.config.update(SECRET_KEY="Zk3vQ8w1Rr7yT0uXb5cN", SESSION_COOKIE_SECURE=True, SESSION_COOKIE_SAMESITE="Lax")
    engine = create_tenant_engine(os.environ["APP_URL"], hide_parameters=True)
    Tenancy(sessions=tenant_sessionmaker(engine), directory=SQLDirectory(Tenant, domains=Domain),
            resolvers=[from_subdomain("example.com")]).init_app(app)
    return app
"""


# Start-up ---------------------------------------------------------------------------------------------


@pytest.fixture
def serve(fresh_database: Database) -> Iterator[Callable[[], tuple[Flask, Engine]]]:
    engines = []

    def make() -> tuple[Flask, Engine]:
        engines.append(create_tenant_engine(fresh_database.url(ROLES.app)))
        app, _ = make_app(tenant_sessionmaker(engines[-1]), ListedDirectory(ACME), startup_check=True)
        return app, engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


def alter(database: Database, statement: str) -> None:
    with database.connect("postgres") as connection:
        connection.execute(statement.encode())


def ask(app: Flask, path: str = "/") -> tuple[int, str]:
    answer = app.test_client().get(path, base_url="http://acme.example.com")
    return answer.status_code, (answer.get_json(force=True) or {}).get("code", "served")


def test_unguarded_table_stops_the_service_until_it_is_guarded_again(
    serve: Callable[[], tuple[Flask, Engine]], fresh_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """T005"""
    alter(fresh_database, "ALTER TABLE people DISABLE ROW LEVEL SECURITY")
    app, _ = serve()

    refused, again, exempt = ask(app), ask(app), ask(app, "/health")
    alter(fresh_database, "ALTER TABLE people ENABLE ROW LEVEL SECURITY")
    served = ask(app)

    assert (refused, again) == ((503, "unsafe_database"), (503, "unsafe_database"))
    assert exempt == (200, "served")
    assert served == (200, "served")
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "public.people" in str([vars(record).get("findings") for record in critical])


def test_refusal_tells_the_client_nothing_of_the_database(
    serve: Callable[[], tuple[Flask, Engine]], fresh_database: Database
) -> None:
    alter(fresh_database, "ALTER TABLE people DISABLE ROW LEVEL SECURITY")
    app, _ = serve()

    answer = app.test_client().get("/", base_url="http://acme.example.com")

    assert b"people" not in answer.data
    assert answer.headers["Retry-After"] == "2"


def test_look_costs_one_statement_once(serve: Callable[[], tuple[Flask, Engine]]) -> None:
    app, engine = serve()
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: sent.append(given[2]))

    counts = []
    for _ in range(3):
        assert ask(app) == (200, "served")
        counts.append(len(sent))

    assert counts == [1, 1, 1]


def test_requests_that_come_together_look_once(serve: Callable[[], tuple[Flask, Engine]]) -> None:
    app, engine = serve()
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    answers: list[tuple[int, str]] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(app))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [(200, "served")] * 8
    assert len(sent) == 1


def test_database_that_does_not_answer_serves_nobody() -> None:
    engine = create_tenant_engine("postgresql+psycopg://app@127.0.0.1:1/none")
    app, _ = make_app(tenant_sessionmaker(engine), ListedDirectory(ACME), startup_check=True)

    assert ask(app) == (503, "unavailable")


def test_check_can_be_made_before_the_first_request(
    serve: Callable[[], tuple[Flask, Engine]], fresh_database: Database
) -> None:
    app, _ = serve()

    with platform_scope(actor="ana", reason="start-up"):
        app.extensions["tenancy"].examine(app)  # in no scope, whatever the caller's

    alter(fresh_database, "ALTER TABLE people DISABLE ROW LEVEL SECURITY")
    with pytest.raises(UnsafeConnectionError, match=r"public\.people"):
        app.extensions["tenancy"].examine(app)
