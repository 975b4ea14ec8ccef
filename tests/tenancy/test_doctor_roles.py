"""The doctor on roles that were changed by hand, on servers that were set up otherwise, and on the app's connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.doctor.catalog import examine_catalog
from tenancy.doctor.checks import run_checks
from tenancy.doctor.connection import SERVER_CHECKS
from tenancy.doctor.findings import Finding, Subject
from tenancy.doctor.roles import RULES, examine_roles
from tenancy.doctor.settings import Settings
from tenancy.embedded import start
from tenancy.rls import Roles
from tenancy.rls.migrations import send
from tests.conftest import FAST, ROLES, Database, bootstrap
from tests.isolation.pgbouncer import PgBouncer
from tests.models import Base
from tests.tenancy.doctor_cluster import own_cluster
from tests.tenancy.doctor_mutations import ROLES_CHANGED


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with own_cluster(tmp_path_factory.mktemp("doctor")) as database:
        yield database


@pytest.fixture(scope="module")
def app_engine(database: Database) -> Iterator[Engine]:
    engine = create_tenant_engine(database.url(ROLES.app))
    yield engine
    engine.dispose()


@pytest.fixture
def superuser(database: Database) -> Iterator[Connection]:
    """What it changes is rolled back."""
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.rule.id, finding.object_name) for finding in findings]


@pytest.mark.parametrize("name", ROLES_CHANGED)
def test_each_change_of_a_role_is_found_by_its_id_alone(
    superuser: Connection, app_engine: Engine, database: Database, name: str
) -> None:
    """T001, T002, T004, T035, T133"""
    mutation = ROLES_CHANGED[name]
    subject = Subject(connection=superuser, metadata=Base.metadata, app_engine=app_engine)

    send(superuser, [mutation.sql.replace("{database}", database.name)])

    findings = {*told([*examine_catalog(subject), *examine_roles(subject)])}
    assert findings == {(mutation.finds, mutation.on)}


def test_every_rule_of_roles_has_a_proof() -> None:
    """T133"""
    by_hand = {mutation.finds for mutation in ROLES_CHANGED.values()}
    by_server = {"TEN211", "TEN212", "TEN213", "TEN214"}
    by_connection = {"TEN215", "TEN216", "TEN217"}

    assert {rule.id for rule in RULES} == by_hand | by_server | by_connection


def test_roles_of_another_prefix_are_missing(superuser: Connection, app_engine: Engine) -> None:
    subject = Subject(connection=superuser, roles=Roles("elsewhere"), app_engine=app_engine)

    missing = [finding.object_name for finding in examine_roles(subject) if finding.rule.id == "TEN201"]

    assert missing == [
        *("role elsewhere_owner", "role elsewhere_migrator", "role elsewhere_app"),
        *("role elsewhere_platform", "role elsewhere_lookup", "role elsewhere_backup"),
    ]


# The server ------------------------------------------------------------------------------------------

SERVERS = {
    "no longer supported": ({"server_version_num": "140019"}, ["TEN211"]),
    "behind on security": ({"server_version_num": "180005"}, ["TEN212"]),
    "at the floor": ({"server_version_num": "180006"}, []),
    "newer than anyone knows": ({"server_version_num": "190001"}, []),
    "every statement logged with values": ({"log_statement": "all"}, ["TEN213"]),
    "slow statements logged with values": ({"log_min_duration_statement": "100"}, ["TEN213"]),
    "every statement logged without values": ({"log_statement": "all", "log_parameter_max_length": "0"}, []),
    "values of failing statements": ({"log_parameter_max_length_on_error": "-1"}, ["TEN213"]),
    "old passwords": ({"password_encryption": "md5"}, ["TEN214"]),
}


@pytest.mark.parametrize("name", SERVERS)
def test_servers_are_told_by_their_settings(name: str) -> None:
    """T132, T133"""
    given, expected = SERVERS[name]
    settings = Settings([], {"server_version_num": "180006", **given})

    assert [finding.rule.id for finding in run_checks(SERVER_CHECKS, settings)] == expected


@pytest.fixture(scope="module")
def odd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that decodes its log, logs values and keeps old passwords; the URL of its superuser."""
    settings = {
        "wal_level": "logical",
        "password_encryption": "md5",
        "log_statement": "all",
        "log_parameter_max_length_on_error": "100",
    }
    with own_cluster(tmp_path_factory.mktemp("odd"), **settings) as database:
        yield database.url("postgres")


def test_settings_are_read_from_the_server(odd_server: str) -> None:
    engine = create_engine(odd_server, poolclass=NullPool)

    with engine.connect() as connection:
        findings = list(examine_roles(Subject(connection=connection, metadata=Base.metadata)))

    assert told(findings) == [
        ("TEN213", "setting log_parameter_max_length"),
        ("TEN213", "setting log_parameter_max_length_on_error"),
        ("TEN214", "setting password_encryption"),
        ("TEN001", "check TEN215 connection-unencrypted, TEN216 connection-refused, TEN217 pooler-prepared"),
    ]


def test_logical_slot_is_found(odd_server: str) -> None:
    """T060, T133"""
    engine = create_engine(odd_server, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')")

    with engine.connect() as connection:
        findings = list(examine_catalog(Subject(connection=connection, metadata=Base.metadata)))

    assert told(findings) == [("TEN154", "replication slot feed")]


# The application's connection ------------------------------------------------------------------------


def test_connection_that_owns_or_bypasses_is_found(database: Database) -> None:
    """T001"""
    engine = create_engine(database.url("postgres"), poolclass=NullPool)

    (finding,) = [f for f in examine_roles(Subject(app_engine=engine)) if f.rule.id != "TEN001"]

    assert (finding.rule.id, finding.object_name) == ("TEN216", "connection of role postgres")
    assert "it has SUPERUSER" in finding.what


def test_connection_refused_by_the_library_is_found(database: Database) -> None:
    """T001, T002"""
    engine = create_tenant_engine(database.url(ROLES.migrator), poolclass=NullPool)

    (finding,) = [f for f in examine_roles(Subject(app_engine=engine)) if f.rule.id != "TEN001"]

    assert (finding.rule.id, finding.object_name) == ("TEN216", f"connection of role {ROLES.migrator}")


def test_statements_in_transactions_of_their_own_are_found(database: Database) -> None:
    """What a pooler in statement mode would do if it did not refuse BEGIN."""
    engine = create_engine(database.url(ROLES.app), poolclass=NullPool, isolation_level="AUTOCOMMIT")

    (finding,) = [f for f in examine_roles(Subject(app_engine=engine)) if f.rule.id != "TEN001"]

    assert (finding.rule.id, finding.object_name) == ("TEN216", f"connection of role {ROLES.app}")
    assert finding.what.startswith("two statements of one transaction ran in two")


def test_scope_of_the_caller_is_not_taken_for_a_preset_one(app_engine: Engine) -> None:
    with tenant_scope(uuid7()):
        findings = list(examine_roles(Subject(app_engine=app_engine)))

    assert [finding.rule.id for finding in findings] == ["TEN001"]  # the catalog's connection was not given


def test_connection_that_cannot_be_made_is_not_checked(tmp_path: Path) -> None:
    engine = create_engine(f"postgresql+psycopg://nobody@/nowhere?host={tmp_path}", poolclass=NullPool)

    findings = list(examine_roles(Subject(app_engine=engine)))

    assert [finding.rule.id for finding in findings] == ["TEN001", "TEN001"]
    assert "TEN216 connection-refused" in findings[1].object_name


def test_nothing_given_is_not_checked() -> None:
    assert told(list(examine_roles(Subject()))) == [("TEN001", "kind roles")]
    assert told(list(examine_catalog(Subject()))) == [("TEN001", "kind catalog")]


def through_pooler(url: str, **options: object) -> list[tuple[str, str]]:
    engine = create_tenant_engine(url, poolclass=NullPool, **options)
    return [pair for pair in told(list(examine_roles(Subject(app_engine=engine)))) if pair[0] != "TEN001"]


def test_prepared_statements_through_a_transaction_pooler_are_found(database: Database) -> None:
    with PgBouncer(database, "transaction") as pooler:
        url = pooler.url(ROLES.app)

        assert through_pooler(url) == [("TEN217", f"connection of role {ROLES.app}")]
        assert through_pooler(url, connect_args={"prepare_threshold": None}) == []


def test_session_pooler_is_no_finding(database: Database) -> None:
    with PgBouncer(database, "session", servers=2) as pooler:
        assert through_pooler(pooler.url(ROLES.app)) == []


def test_statement_pooler_is_found(database: Database) -> None:
    """T074"""
    with PgBouncer(database, "statement") as pooler:
        url = pooler.url(ROLES.app)
        plain = list(examine_roles(Subject(app_engine=create_engine(url, poolclass=NullPool))))

        assert through_pooler(url) == [("TEN216", f"connection of role {ROLES.app}")]
        assert told(plain)[1:] == [("TEN216", f"connection of role {ROLES.app}")]


def test_plain_text_over_the_network_is_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("network")
    with start(data_dir=folder / "postgres", tcp_port=0, settings=FAST) as server:
        bootstrap(server.url(), tables=False)
        server.set_password(ROLES.app, "plain")
        url = server.tcp_url(role=ROLES.app)

        assert through_pooler(url) == []  # to this very machine
        assert through_pooler(url.replace("127.0.0.1", "127.1")) == [("TEN215", f"connection of role {ROLES.app}")]
