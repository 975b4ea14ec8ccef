"""Template databases: built once whoever races, cloned whole, and nothing else is ever dropped."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tenancy.embedded import Server, make_template, start
from tenancy.errors import ServerError


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with start(tmp_path_factory.mktemp("embedded") / "pg", settings={"fsync": "off"}) as server:
        yield server


def build_words(url: str) -> None:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE words (word text)")
        connection.execute("INSERT INTO words VALUES ('hello')")


def answer(server: Server, database: str, query: str) -> object:
    with server.connect(database=database) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_racing_workers_build_one_template(server):
    built: list[str] = []

    def build(url: str) -> None:
        built.append(url)
        build_words(url)

    with ThreadPoolExecutor(6) as workers:
        templates = list(workers.map(lambda _: make_template(server, "raced", build), range(6)))

    assert len(built) == 1
    assert {template.name for template in templates} == {"raced"}


def test_clone_holds_the_rows_of_the_template(server):
    template = make_template(server, "with_rows", build_words)

    name = template.clone("worker_0")

    assert name == "worker_0"
    assert answer(server, name, "SELECT word FROM words") == "hello"


def test_clone_of_an_earlier_run_is_replaced(server):
    template = make_template(server, "replaced", build_words)
    with server.connect(database=template.clone("worker_1")) as connection:
        connection.execute("DELETE FROM words")

    template.clone("worker_1")

    assert answer(server, "worker_1", "SELECT count(*) FROM words") == 1


def test_clone_keeps_owner_grants_and_settings_of_the_database(server):
    def build(url: str) -> None:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE ROLE builder")
            connection.execute("CREATE ROLE visitor")
            connection.execute("ALTER DATABASE guarded OWNER TO builder")
            connection.execute("REVOKE ALL ON DATABASE guarded FROM PUBLIC")
            connection.execute("GRANT CONNECT ON DATABASE guarded TO visitor")
            connection.execute("ALTER DATABASE guarded SET search_path TO app, public")
            connection.execute("ALTER ROLE visitor IN DATABASE guarded SET statement_timeout TO '7s'")

    name = make_template(server, "guarded", build).clone("worker_2")

    assert (
        answer(server, name, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'worker_2'") == "builder"
    )
    assert answer(server, name, "SELECT has_database_privilege('visitor', 'worker_2', 'CONNECT')") is True
    assert answer(server, name, "SELECT has_database_privilege('visitor', 'worker_2', 'TEMP')") is False
    assert answer(server, name, "SHOW search_path") == "app, public"
    assert (
        answer(
            server,
            name,
            "SELECT setconfig[1] FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
            " WHERE datname = 'worker_2' AND setrole = 'visitor'::regrole",
        )
        == "statement_timeout=7s"
    )


def test_build_that_failed_is_begun_anew(server):
    def fail(url: str) -> None:
        build_words(url)
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        make_template(server, "retried", fail)

    template = make_template(server, "retried", build_words)

    assert answer(server, template.clone("worker_3"), "SELECT count(*) FROM words") == 1


def test_template_accepts_no_connection(server):
    template = make_template(server, "closed", build_words)

    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        server.connect(database=template.name)


def test_database_made_by_others_is_never_dropped(server):
    template = make_template(server, "careful", build_words)
    with server.connect() as connection:
        connection.execute("CREATE DATABASE precious")

    for attempt in (lambda: template.clone("precious"), lambda: template.drop("precious")):
        with pytest.raises(ServerError, match="'precious' was not made here"):
            attempt()
    with pytest.raises(ServerError, match="'precious' was not made here"):
        make_template(server, "precious", build_words)

    assert answer(server, "precious", "SELECT 1") == 1


def test_drop_closes_connections_and_forgives_a_missing_clone(server):
    template = make_template(server, "dropped", build_words)

    with server.connect(database=template.clone("worker_4")):
        template.drop("worker_4")
    template.drop("worker_4")

    assert answer(server, "postgres", "SELECT count(*) FROM pg_database WHERE datname = 'worker_4'") == 0
