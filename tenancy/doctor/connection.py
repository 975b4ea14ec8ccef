"""The server, and the application's own connection to it."""

from __future__ import annotations

from tenancy.doctor.findings import Rule

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

RULES: tuple[Rule, ...] = (
    SERVER_UNSUPPORTED,
    SERVER_BEHIND,
    SERVER_LOGS_VALUES,
    PASSWORD_ENCRYPTION,
    CONNECTION_UNENCRYPTED,
    CONNECTION_REFUSED,
    POOLER_PREPARED,
)
