"""A PostgreSQL server that answers: its URLs, the passwords set on it, and how to let go of it."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy.engine import URL, make_url

from tenancy.errors import ServerError

ADMIN = "postgres"


class Server:
    """A running server; closing it ends this process's use of it.

    admin_url: of a superuser. `postgres` in `url(role=...)` stands for that superuser, whatever its name.
    data_dir: the folder given to `start`; None for a server we did not start.
    tcp_port: port on 127.0.0.1 of a server that also listens there; None otherwise.
    """

    def __init__(
        self,
        admin_url: URL | str,
        *,
        data_dir: Path | None = None,
        tcp_port: int | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        self._admin_url = make_url(admin_url).set(drivername="postgresql+psycopg")
        self.data_dir = data_dir
        self.tcp_port = tcp_port
        self._release = release
        self._passwords: dict[str, str] = {}

    def url(self, *, role: str = ADMIN, database: str = "postgres") -> str:
        """Give the SQLAlchemy URL of a role; it carries a password only if `set_password` set one here."""
        url = self._admin_url.set(database=database)
        if role not in (ADMIN, url.username):
            url = url._replace(username=role, password=self._passwords.get(role))
        return url.render_as_string(hide_password=False)

    def tcp_url(self, *, role: str = ADMIN, database: str = "postgres") -> str:
        """Give the URL through 127.0.0.1, where a password is always asked for.

        Raises: ServerError - the server was started without `tcp_port`, or the role has no password yet.
        """
        if self.tcp_port is None:
            raise ServerError("this server listens on no TCP port", hint="start it with tcp_port=...")
        if role not in self._passwords:
            raise ServerError(f"no password was set here for role {role!r}", hint="call set_password(role, password)")
        return URL.create(
            self._admin_url.drivername,
            username=role,
            password=self._passwords[role],
            host="127.0.0.1",
            port=self.tcp_port,
            database=database,
        ).render_as_string(hide_password=False)

    def set_password(self, role: str, password: str) -> None:
        """Give a role a password; only its SCRAM verifier is sent, so no log ever shows it."""
        with self.connect() as connection:
            verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier.decode()))
            )
        self._passwords[role] = password

    def connect(self, *, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """Open a superuser's connection in autocommit, as CREATE DATABASE needs."""
        url = self._admin_url.set(database=database)
        # Not the URL's text: libpq does not read `+` as the space that SQLAlchemy writes.
        parts: dict[str, Any] = {**url.translate_connect_args(username="user", database="dbname"), **url.query}
        return psycopg.connect(make_conninfo(**parts), autocommit=True)

    def close(self) -> None:
        """Let go of the server; ours stops once its last user has done so."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
