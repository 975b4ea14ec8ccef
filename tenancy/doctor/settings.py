"""Settings of the server and defaults of roles and databases: what a session of a role starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenancy.doctor.catalog.snapshot import Snapshot
from tenancy.rls import quote

SCOPE_SETTINGS = ("app.tenant_id", "app.account_id", "app.platform_session", "app.tenant_token")
# A value of these, other than the one given, changes who acts or what is loaded before the library can object.
_HARMLESS: Mapping[str, tuple[str, ...]] = {
    "row_security": ("on", "true", "1", "yes"),
    "role": ("none",),
    "session_authorization": (),
    "session_preload_libraries": ("",),
    "local_preload_libraries": ("",),
    "session_replication_role": ("origin",),
    "default_transaction_read_only": ("off", "false", "0", "no"),
}

_DEFAULTS = """
    SELECT coalesce(pg_get_userbyid(nullif(s.setrole, 0))::text, ''), s.setdatabase <> 0,
           split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
    FROM pg_db_role_setting s, unnest(s.setconfig) c
    WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    ORDER BY 1, 2, 3
"""
_SERVER = """
    SELECT name, setting, source IN ('configuration file', 'command line', 'environment variable', 'default')
    FROM pg_settings
    WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'search_path',
                   'server_version_num', 'password_encryption', 'log_statement', 'log_min_duration_statement',
                   'log_min_duration_sample', 'log_parameter_max_length', 'log_parameter_max_length_on_error')
"""


@dataclass(frozen=True)
class Default:
    """One `ALTER ROLE … [IN DATABASE …] SET` or `ALTER DATABASE … SET`; role is '' for every role."""

    role: str
    is_of_database: bool
    name: str
    value: str

    @property
    def label(self) -> str:
        if not self.role:
            return "defaults of the database" if self.is_of_database else "defaults of every role"
        return f"role {self.role}"

    @property
    def is_dangerous(self) -> bool:
        harmless = _HARMLESS.get(self.name)
        return harmless is not None and self.value.strip('"').lower() not in harmless

    def reset_sql(self, database: str) -> str:
        inside = f" IN DATABASE {quote(database)}" if self.is_of_database and self.role else ""
        if self.is_of_database and not self.role:
            return f"ALTER DATABASE {quote(database)} RESET {self.name};"
        return f"ALTER ROLE {quote(self.role) if self.role else 'ALL'}{inside} RESET {self.name};"


@dataclass(frozen=True)
class Settings:
    """defaults: of roles and the database. server: what a session has without them."""

    defaults: Sequence[Default]
    server: Mapping[str, str]

    def effective(self, role: str, name: str) -> str | None:
        """What a new session of a role starts with; the closest default wins. None: the server's own default."""
        for owner, is_of_database in ((role, True), (role, False), ("", True), ("", False)):
            if (default := self._find(owner, name, is_of_database=is_of_database)) is not None:
                return default.value
        return self.server.get(name)

    def _find(self, role: str, name: str, *, is_of_database: bool) -> Default | None:
        wanted = (role, is_of_database, name)
        return next((d for d in self.defaults if (d.role, d.is_of_database, d.name) == wanted), None)

    def set_sql(self, role: str, name: str, value: str, *, database: str) -> str:
        """Return what makes a value the role's default, also where the database has one of its own."""
        closer = self._find(role, name, is_of_database=True)
        reset = f"{closer.reset_sql(database)} " if closer is not None else ""
        return f"{reset}ALTER ROLE {quote(role)} SET {name} = {value};"


def read_settings(snapshot: Snapshot) -> Settings:
    """Read both in two queries. What this very session was given by its own role is left out."""
    defaults = [Default(*row) for row in snapshot.rows(_DEFAULTS)]
    server = {name: value for name, value, is_servers in snapshot.rows(_SERVER) if is_servers}
    return Settings(defaults, server)
