"""T121, T124: hostile SQL against the standard and the hardened level, at a plain connection of the app role."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from psycopg import errors

from tenancy.cli import main
from tenancy.embedded import Template
from tests.conftest import ROLES, Database
from tests.isolation.injections import INJECTIONS, perform
from tests.isolation.plain import Connection, bind, names
from tests.signed import ACME, GLOBEX, filled_clone


@pytest.fixture(scope="module")
def standard(template: Template, worker: str) -> Iterator[Database]:
    with filled_clone(template, f"standard_{worker}") as database:
        yield database


@pytest.fixture(scope="module")
def hardened(template: Template, worker: str) -> Iterator[Database]:
    with filled_clone(template, f"hardened_{worker}") as database:
        answer = CliRunner().invoke(main, ["harden", "--apply", database.url("postgres")])
        assert answer.exit_code == 0, answer.output
        yield database


def bound(connection: Connection, tenant: object) -> Connection:
    """Bind as the library does: SET LOCAL is a statement of its own, which no privilege governs."""
    connection.rollback()
    connection.execute(f"SET LOCAL app.tenant_id = '{tenant}'".encode())
    return connection


@pytest.fixture
def intruder(hardened: Database) -> Iterator[Connection]:
    with hardened.connect(ROLES.app) as connection:
        assert names(bound(connection, GLOBEX)) == ["Eve"]
        assert names(bound(connection, ACME)) == ["Ada"]
        yield connection


@pytest.mark.parametrize("kind", INJECTIONS)
def test_hardened_database_refuses(intruder: Connection, kind: str) -> None:
    """T121, T053, T055: the row of the other tenant exists, and nothing of it is shown."""
    refused, shown = perform(intruder, INJECTIONS[kind].statement.replace("{b}", str(GLOBEX)))

    assert (refused in ("42501", "0A000"), "Eve" in shown) == (True, False), (refused, shown)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind,
            marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason="not promised at the standard level")
            if injection.opens
            else (),
        )
        for kind, injection in INJECTIONS.items()
    ],
)
def test_standard_level_shows_no_row_of_another_tenant(standard: Database, kind: str) -> None:
    """T124: each expected failure is a way that only the Python guard, or bound parameters, stand in."""
    with standard.connect(ROLES.app) as app:
        bind(app, GLOBEX)
        assert names(app) == ["Eve"] or pytest.fail("the row does not exist for its owner")
        app.rollback()
        bind(app, ACME)

        _, shown = perform(app, INJECTIONS[kind].statement.replace("{b}", str(GLOBEX)))
        app.rollback()

    assert "Eve" not in shown


def test_hardened_app_role_ends_no_session_and_reads_no_statement(hardened: Database, intruder: Connection) -> None:
    """T055, T123: of a session that exists and is of its own role."""
    with hardened.connect(ROLES.app) as other:
        pid = other.info.backend_pid
        for statement in (
            "SELECT pg_terminate_backend(%s)",
            "SELECT pg_cancel_backend(%s)",
            "SELECT query FROM pg_stat_activity WHERE pid = %s",
            "SELECT pg_stat_get_backend_activity(%s)",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                intruder.execute(statement.encode(), [pid])
            bound(intruder, ACME)

        assert other.execute("SELECT 1").fetchone() == (1,)


LARGE_OBJECTS = [
    "lo_create(0)",
    "lo_creat(-1)",
    "lo_from_bytea(0, 'x')",
    "lo_get(%(oid)s)",
    "lo_put(%(oid)s, 0, 'x')",
    "lo_open(%(oid)s, 131072)",
    "lo_unlink(%(oid)s)",
]


@pytest.mark.parametrize("call", LARGE_OBJECTS)
def test_hardened_app_role_makes_and_reads_no_large_object(hardened: Database, intruder: Connection, call: str) -> None:
    """T053: a large object has no tenant. This one is readable by everybody."""
    with hardened.connect("postgres") as truth:
        (oid,) = truth.execute("SELECT lo_from_bytea(0, 'theirs')").fetchone() or (None,)
        truth.execute(f"GRANT SELECT, UPDATE ON LARGE OBJECT {oid} TO PUBLIC".encode())
        assert truth.execute("SELECT lo_get(%s)", [oid]).fetchone() == (b"theirs",)
        truth.commit()

    with pytest.raises(errors.InsufficientPrivilege):
        intruder.execute(f"SELECT {call}".encode(), {"oid": oid})


def test_whole_statement_of_set_is_not_stopped_by_hardening(intruder: Connection) -> None:
    """What hardening cannot do: SET is no function. Signed scopes can; the Python guard refuses to send it."""
    assert names(bound(intruder, GLOBEX)) == ["Eve"]
