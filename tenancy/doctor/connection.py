"""The server, and the application's own connection to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Context
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from tenancy.connections import CHECK_SQL, OLDEST_SERVER, SECURITY_FLOORS, check_connection
from tenancy.doctor.checks import Check, not_checked, rules_of
from tenancy.doctor.findings import Finding, Rule, Subject
from tenancy.doctor.settings import Settings
from tenancy.errors import ConfigurationError, TenancyError

SERVER_UNSUPPORTED = Rule(
    "TEN211",
    "server-unsupported",
    "error",
    "The server is too old for what the policies need.",
)
SERVER_BEHIND = Rule(
    "TEN212",
    "server-behind",
    "warning",
    "The server lacks security fixes to row-level security.",
)
SERVER_LOGS_VALUES = Rule(
    "TEN213",
    "server-logs-values",
    "note",
    "Statements are logged with their values, so tenants' data ends up in the server's log.",
)
PASSWORD_ENCRYPTION = Rule(
    "TEN214",
    "password-encryption",
    "warning",
    "Passwords are stored in a form that can be used to sign in when it is stolen.",
)
CONNECTION_UNENCRYPTED = Rule(
    "TEN215",
    "connection-unencrypted",
    "note",
    "Statements and rows cross the network in clear text.",
)
CONNECTION_REFUSED = Rule(
    "TEN216",
    "connection-refused",
    "error",
    "The application's own connection cannot keep tenants apart, or cannot be made.",
)
POOLER_PREPARED = Rule(
    "TEN217",
    "pooler-prepared",
    "warning",
    "Through a pooler in transaction mode a prepared statement may be missing, or be another client's.",
)

PROBED = (CONNECTION_UNENCRYPTED, CONNECTION_REFUSED, POOLER_PREPARED)


def examine_version(settings: Settings) -> Iterator[Finding]:
    """Compare the server with the oldest that is supported, and with the last security fixes."""
    number = int(settings.server["server_version_num"])
    found, major = f"{number // 10000}.{number % 10000}", number // 10000
    if number < OLDEST_SERVER:
        remedy = "upgrade to PostgreSQL 15 or later"
        yield SERVER_UNSUPPORTED.finding("server", f"it is PostgreSQL {found}", remedy=remedy)
    elif (floor := SECURITY_FLOORS.get(major)) is not None and number < floor:
        remedy = f"upgrade to PostgreSQL {major}.{floor % 10000} or later"
        yield SERVER_BEHIND.finding("server", f"it is PostgreSQL {found}", remedy=remedy)


def examine_logging(settings: Settings) -> Iterator[Finding]:
    """Look for statements that are logged together with their values."""
    server = settings.server
    is_logged = server.get("log_statement", "none") in ("mod", "all") or any(
        server.get(name, "-1") != "-1" for name in ("log_min_duration_statement", "log_min_duration_sample")
    )
    if is_logged and server.get("log_parameter_max_length", "-1") != "0":
        remedy = "ALTER SYSTEM SET log_parameter_max_length = 0;"
        yield SERVER_LOGS_VALUES.finding(
            "setting log_parameter_max_length", "logged statements carry values", remedy=remedy
        )
    if server.get("log_parameter_max_length_on_error", "0") != "0":
        remedy = "ALTER SYSTEM SET log_parameter_max_length_on_error = 0;"
        what = "failing statements are logged with their values"
        yield SERVER_LOGS_VALUES.finding("setting log_parameter_max_length_on_error", what, remedy=remedy)


def examine_passwords(settings: Settings) -> Iterator[Finding]:
    """Look at how the server stores the passwords it is given next."""
    kind = settings.server.get("password_encryption", "scram-sha-256")
    if kind != "scram-sha-256":
        remedy = "ALTER SYSTEM SET password_encryption = 'scram-sha-256';  -- then set every password anew"
        yield PASSWORD_ENCRYPTION.finding("setting password_encryption", f"it is {kind}", remedy=remedy)


SERVER_CHECKS = (
    Check((SERVER_UNSUPPORTED, SERVER_BEHIND), examine_version),
    Check((SERVER_LOGS_VALUES,), examine_logging),
    Check((PASSWORD_ENCRYPTION,), examine_passwords),
)
RULES: tuple[Rule, ...] = (*rules_of(SERVER_CHECKS), *PROBED)


def examine_app_connection(subject: Subject) -> Iterator[Finding]:
    """Connect as the application does: look at its role, its encryption, and whether a pooler is in between."""
    if subject.app_engine is None:
        yield not_checked(PROBED, LookupError("the application's own engine was not given"))
    else:
        # In no scope, whatever the caller's: a bound transaction looks like one with a scope set beforehand.
        yield from Context().run(list, _probe(subject.app_engine))


def _probe(engine: Engine) -> Iterator[Finding]:
    try:
        with engine.connect() as first, engine.connect() as second:
            check_connection(dict(first.exec_driver_sql(CHECK_SQL).mappings().one()))
            yield from _examine_transport(first)
            first.rollback()
            yield from _examine_transaction(first)
            first.rollback()
            yield from _examine_pooler(first, second)
    except TenancyError as error:
        yield CONNECTION_REFUSED.finding(_name(engine), error.message, remedy=error.hint)
    except SQLAlchemyError as error:
        if "statement pooling" in str(error):
            what, remedy = "its pooler is in statement mode", "set pool_mode = transaction"
            yield CONNECTION_REFUSED.finding(_name(engine), what, remedy=remedy)
        else:
            yield not_checked(PROBED, error)


def _examine_transport(connection: Connection) -> Iterator[Finding]:
    driver = _driver(connection)
    is_local = driver.info.host.startswith("/") or driver.info.host in ("", "localhost", "127.0.0.1", "::1")
    if not driver.pgconn.ssl_in_use and not is_local:
        what = f"it connects to {driver.info.host} without TLS"
        yield CONNECTION_UNENCRYPTED.finding(
            _name(connection.engine), what, remedy="add sslmode=verify-full to the URL"
        )


def _examine_transaction(connection: Connection) -> Iterator[Finding]:
    """Two statements of one transaction have the same clock; otherwise the scope of the first is not the second's."""
    clock = "SELECT pg_backend_pid(), now()"
    if connection.exec_driver_sql(clock).one() != connection.exec_driver_sql(clock).one():
        what = "two statements of one transaction ran in two: a scope bound by one is unknown to the next"
        remedy = "leave AUTOCOMMIT off, and set pool_mode = transaction in the pooler"
        yield CONNECTION_REFUSED.finding(_name(connection.engine), what, remedy=remedy)


def _examine_pooler(first: Connection, second: Connection) -> Iterator[Finding]:
    """A pooler hides the server's process from the greeting; in transaction mode two clients share one."""
    driver = _driver(first)
    served_by = _backend(first)
    if served_by == driver.info.backend_pid:
        return
    first.rollback()
    is_shared = _backend(second) == served_by
    second.rollback()
    if is_shared and driver.prepare_threshold is not None:
        yield POOLER_PREPARED.finding(
            _name(first.engine),
            "a pooler in transaction mode is in between, and the driver prepares statements",
            remedy='create_tenant_engine(url, connect_args={"prepare_threshold": None})',
        )


def _backend(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise ConfigurationError(
            f"the engine's driver is {connection.dialect.driver!r}", hint="write the URL as postgresql+psycopg://..."
        )
    return driver


def _name(engine: Engine) -> str:
    return f"connection of role {engine.url.username or 'unknown'}"
