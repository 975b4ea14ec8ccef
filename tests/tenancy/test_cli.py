"""The `tenancy` command, run against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import make_url

from tenancy.cli import main
from tenancy.embedded import Server
from tests.conftest import ROLES, Database


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def bare_database(server: Server, worker: str) -> Iterator[str]:
    """The superuser's URL of a database that nobody has set up."""
    name = f"bare_{worker}"
    with server.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield server.url(database=name)
    with server.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_bootstrap_makes_roles_that_pass_the_check(server: Server, bare_database: str) -> None:
    first, again = run("bootstrap", bare_database), run("bootstrap", bare_database)
    checked = run("check", server.url(role=ROLES.app, database=str(make_url(bare_database).database)))

    assert (first.exit_code, again.exit_code, checked.exit_code) == (0, 0, 0)
    assert "tenancy_migrator, tenancy_app and tenancy_platform" in first.output
    assert "can bypass nothing" in checked.output


def test_bootstrap_prints_what_it_would_run(bare_database: str) -> None:
    printed = run("bootstrap", bare_database, "--prefix", "acme", "--sql")

    assert printed.exit_code == 0
    assert "CREATE ROLE acme_app LOGIN NOINHERIT NOBYPASSRLS NOSUPERUSER" in printed.output
    assert printed.output.rstrip().endswith(";")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bootstrap", "postgresql+psycopg://localhost"], "the URL names no database"),
        (["bootstrap", "postgresql+psycopg://localhost/x", "--prefix", "Bad Prefix"], "use letters, digits"),
        (["check", "postgresql://localhost/x"], "write the URL as postgresql+psycopg://"),
    ],
)
def test_misuse_says_what_to_write_instead(arguments: list[str], said: str) -> None:
    answer = run(*arguments)

    assert answer.exit_code == 2
    assert said in answer.output


def test_bootstrap_by_an_ordinary_role_is_refused_by_the_database(database: Database) -> None:
    answer = run("bootstrap", database.url(ROLES.app))

    assert answer.exit_code == 1
    assert "the database refused: " in answer.output


def test_check_names_what_is_wrong_with_a_superuser(server: Server) -> None:
    answer = run("check", server.url())

    assert answer.exit_code == 1
    assert "it has SUPERUSER" in answer.output


def test_check_of_a_server_that_is_not_there_says_so() -> None:
    answer = run("check", "postgresql+psycopg://nobody@127.0.0.1:1/x")

    assert answer.exit_code == 1
    assert "no connection: " in answer.output
