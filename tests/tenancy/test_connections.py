import logging
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, event, make_url

from tenancy.connections import OLDEST_SERVER, SECURITY_FLOORS, check_connection
from tenancy.context import tenant_scope
from tenancy.embedded import Server
from tenancy.errors import UnsafeConnectionError
from tests.conftest import ROLES, Database
from tests.tenancy.engines import on_both_drivers, play_sync

Play = Callable[..., Any]
SOUND = {
    "login": "tenancy_app",
    "acting": "tenancy_app",
    "rolsuper": False,
    "rolbypassrls": False,
    "rolcreaterole": False,
    "rolreplication": False,
    "rolcreatedb": False,
    "member_of": [],
    "owns": [],
    "row_security": "on",
    "preset": "",
    "version": 180006,
}


@pytest.fixture
def make_role(server: Server, worker: str) -> Iterator[Callable[..., str]]:
    """Make login roles of the test's own, and drop them afterwards."""
    made: list[str] = []

    def make(*statements: str) -> str:
        name = f"unsafe_{worker}_{len(made)}"
        with server.connect() as admin:
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
            made.append(name)
            for statement in statements:
                admin.execute(statement.format(role=name).encode())
        return name

    yield make
    with server.connect() as admin:
        for name in made:
            admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def connect(engine: Engine) -> None:
    with engine.connect():
        pass


@on_both_drivers
@pytest.mark.parametrize("attribute", ["SUPERUSER", "BYPASSRLS", "CREATEROLE", "REPLICATION", "CREATEDB"])
def test_role_with_a_dangerous_attribute_is_refused(
    play: Play, server: Server, make_role: Callable[..., str], attribute: str
) -> None:
    """T001"""
    role = make_role(f"ALTER ROLE {{role}} {attribute}")

    with pytest.raises(UnsafeConnectionError, match=f"role '{role}' cannot keep tenants apart: it has {attribute} "):
        play(server.url(role=role), connect)


def test_role_that_is_a_member_of_another_is_refused(
    server: Server, make_role: Callable[..., str], database: Database
) -> None:
    """T002, T004"""
    role = make_role(f"GRANT {ROLES.owner} TO {{role}}", f"GRANT {ROLES.backup} TO {{role}}")

    with pytest.raises(UnsafeConnectionError, match=f"member of {ROLES.backup}, {ROLES.owner}"):
        play_sync(database.url(role), connect)


def test_superuser_acting_as_the_app_role_is_refused(database: Database) -> None:
    """T002: SET ROLE can be undone by the next statement."""
    url = make_url(database.url("postgres")).update_query_dict({"options": f"-c role={ROLES.app}"})

    with pytest.raises(UnsafeConnectionError, match=f"it has SUPERUSER.*it acts as '{ROLES.app}'"):
        play_sync(url.render_as_string(hide_password=False), connect)


def test_migrator_is_refused(database: Database) -> None:
    """T002: it may become the owner, and its row_security is off."""
    with pytest.raises(UnsafeConnectionError, match=f"acts as '{ROLES.owner}'.*member of.*row_security is off"):
        play_sync(database.url(ROLES.migrator), connect)


def test_role_that_owns_a_table_is_refused(fresh_database: Database, make_role: Callable[..., str]) -> None:
    """T001: an owner may switch its policies off."""
    role = make_role()
    with fresh_database.connect("postgres") as admin:
        admin.execute(f"GRANT CONNECT ON DATABASE {fresh_database.name} TO {role}".encode())
        admin.execute(f"ALTER TABLE todos OWNER TO {role}".encode())

    with pytest.raises(UnsafeConnectionError, match="it owns todos"):
        play_sync(fresh_database.url(role), connect)
    with fresh_database.connect("postgres") as admin:
        admin.execute(f"REASSIGN OWNED BY {role} TO {ROLES.owner}".encode())
        admin.execute(f"DROP OWNED BY {role}".encode())


@pytest.mark.parametrize("setting", ["app.tenant_id", "app.account_id", "app.platform_session"])
def test_scope_set_by_the_connection_string_is_refused(database: Database, setting: str) -> None:
    """T035"""
    url = make_url(database.url(ROLES.app)).update_query_dict({"options": f"-c {setting}={'a' * 8}"})

    with pytest.raises(UnsafeConnectionError, match="is set before any transaction"):
        play_sync(url.render_as_string(hide_password=False), connect)


def test_scope_set_by_the_database_is_refused(fresh_database: Database) -> None:
    """T035"""
    with fresh_database.connect("postgres") as admin:
        admin.execute(f"ALTER ROLE {ROLES.app} IN DATABASE {fresh_database.name} SET app.tenant_id = 'x'".encode())

    with pytest.raises(UnsafeConnectionError, match="is set before any transaction"):
        play_sync(fresh_database.url(ROLES.app), connect)


def test_row_security_off_is_refused(database: Database) -> None:
    """T014"""
    url = make_url(database.url(ROLES.app)).update_query_dict({"options": "-c row_security=off"})

    with pytest.raises(UnsafeConnectionError, match="row_security is off"):
        play_sync(url.render_as_string(hide_password=False), connect)


@on_both_drivers
@pytest.mark.parametrize("role", [ROLES.app, ROLES.platform])
def test_roles_that_bootstrap_made_are_accepted(play: Play, database: Database, role: str) -> None:
    assert play(database.url(role), lambda engine: engine.dialect.name) == "postgresql"


def test_refused_connection_is_refused_again(database: Database) -> None:
    """The check is of every new connection, not of the first."""

    def story(engine: Engine) -> None:
        for _ in range(2):
            with pytest.raises(UnsafeConnectionError):
                connect(engine)

    play_sync(database.url("postgres"), story)


def test_check_happens_once_for_each_connection(database: Database, make_tenant: Any) -> None:
    tenant = make_tenant("acme")
    made: list[object] = []

    def story(engine: Engine) -> None:
        event.listen(engine, "connect", lambda *_: made.append(1))
        for _ in range(3):
            with tenant_scope(tenant.id):
                connect(engine)

    play_sync(database.url(ROLES.app), story)

    assert len(made) == 1


# What was found, judged -------------------------------------------------------------------------------


def test_sound_connection_passes_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    check_connection(SOUND)

    assert caplog.records == []


def test_every_fault_is_named_at_once() -> None:
    """T001, T002"""
    found = SOUND | {
        "acting": "postgres",
        "rolsuper": True,
        "rolbypassrls": True,
        "member_of": ["b", "a"],
        "owns": ["tags", "people"],
        "row_security": "off",
        "preset": "x",
        "version": 140009,
    }

    with pytest.raises(UnsafeConnectionError) as caught:
        check_connection(found)

    assert caught.value.message == (
        "role 'tenancy_app' cannot keep tenants apart: it has SUPERUSER; it has BYPASSRLS; it acts as 'postgres'; "
        "it is a member of a, b; it owns people, tags; row_security is off; app.tenant_id, app.account_id or "
        "app.platform_session is set before any transaction; the server is PostgreSQL 14.9, older than 15"
    )
    assert "tenancy bootstrap" in caught.value.hint


@pytest.mark.parametrize("version", [OLDEST_SERVER - 1, 90600])
def test_server_older_than_15_is_refused(version: int) -> None:
    """T132"""
    with pytest.raises(UnsafeConnectionError, match="older than 15"):
        check_connection(SOUND | {"version": version})


@pytest.mark.parametrize(
    ("version", "warning"),
    [
        (OLDEST_SERVER, ("15.0", "15.20")),
        (150019, ("15.19", "15.20")),
        (150020, None),
        (160015, ("16.15", "16.16")),
        (170011, ("17.11", "17.12")),
        (180005, ("18.5", "18.6")),
        (180006, None),
        (190000, None),
    ],
)
def test_server_behind_its_security_fixes_is_warned_of(
    version: int, warning: tuple[str, str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """T132"""
    with caplog.at_level(logging.WARNING, "tenancy.connections"):
        check_connection(SOUND | {"version": version})

    assert {record.message for record in caplog.records} <= {"server.behind_security_fixes"}
    found = [(vars(r)["server_version"], vars(r)["needed"]) for r in caplog.records]
    assert found == ([warning] if warning else [])


def test_every_supported_major_has_a_floor() -> None:
    """T132"""
    assert SECURITY_FLOORS == {15: 150020, 16: 160016, 17: 170012, 18: 180006}


def test_server_of_the_tests_is_supported(truth: psycopg.Connection[Any]) -> None:
    assert truth.info.server_version >= OLDEST_SERVER
