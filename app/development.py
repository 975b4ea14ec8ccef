"""A development environment in one folder: a PostgreSQL of its own, secrets made on the spot, something to look at."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from flask import Flask
from psycopg import sql
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from app import close_app, create_app
from app.config import development_settings
from app.models import Base
from app.seed import ACCOUNTS, MEMBERS, TENANTS, seed
from tenancy.cli.doctor import conduct
from tenancy.embedded import Server, find_server, start
from tenancy.embedded.sources import URL_VARIABLE
from tenancy.encryption.stores import MasterKeys, write_keys
from tenancy.rls import Roles, bootstrap_sql

DATABASE = "crm"
ROLES = Roles()
_PACKAGE = Path(__file__).parent
_CONFIG = _PACKAGE.parent / "alembic.ini"


class DevelopmentError(Exception):
    """The folder cannot hold a development environment; says why, and what to do."""


@dataclass(frozen=True)
class Secrets:
    """What is made once and kept: keys, and passwords of accounts (by e-mail address) and of database roles."""

    secret_key: str
    jwt_key: str
    accounts: dict[str, str]
    roles: dict[str, str]


@dataclass(frozen=True)
class Development:
    """A database that stands, migrated, and the secrets to serve it with."""

    server: Server
    secrets: Secrets
    kept_in: Path

    @property
    def master_keys_file(self) -> Path:
        return self.kept_in.with_name("master-keys.json")

    def url(self, role: str) -> str:
        return self.server.url(role=role, database=DATABASE)

    @property
    def storage_url(self) -> str:
        return (self.kept_in.parent.resolve() / "files").as_uri()


@contextmanager
def open_development(folder: Path) -> Iterator[Development]:
    """Bring everything up that an application needs; what exists from an earlier run is kept.

    The server is the one of TENANCY_DATABASE_URL where that is set, else one of its own in the folder.
    Raises: DevelopmentError - the folder cannot be used. ServerError - no server answers.
    """
    kept = read_or_make_secrets(folder / "development.json")
    with find_server() if URL_VARIABLE in os.environ else start(folder / "postgres") as server:
        _create_database(server)
        if server.data_dir is None:  # the folder's own server trusts who reaches its socket, and needs no passwords
            for role, password in kept.roles.items():
                server.set_password(role, password)
        development = Development(server, kept, folder / "development.json")
        if not development.master_keys_file.exists():
            write_keys(development.master_keys_file, MasterKeys.generate())
        upgrade_database(development.url(ROLES.migrator))
        yield development


@contextmanager
def development_app(development: Development, **given: Any) -> Iterator[Flask]:
    """Put the application together and see to it that the examples are there. given: settings of the caller's own."""
    settings = development_settings(
        database_url=development.url(ROLES.app),
        platform_database_url=development.url(ROLES.platform),
        secret_key=development.secrets.secret_key,
        jwt_keys={"dev": development.secrets.jwt_key},
        jwt_signing_kid="dev",
        storage_url=development.storage_url,
        master_keys_file=development.master_keys_file,
        **given,
    )
    app = create_app(settings)
    try:
        seed(app.extensions["auth"], development.secrets.accounts)
        yield app
    finally:
        close_app(app)


def examine_application(development: Development, *, url: str | None, code: Sequence[Path], **telling: Any) -> int:
    """Let the doctor look at the application as it would be in production; returns the exit status.

    url: another database than the one at hand. code: other folders than this package.
    """
    settings = development_settings(
        environment="production",
        log_level="WARNING",
        resolvers=("jwt", "subdomain", "custom_domain", "path"),
        database_url=development.url(ROLES.app),
        platform_database_url=development.url(ROLES.platform),
        storage_url=development.storage_url,
        secret_key=development.secrets.secret_key,
    )
    app = create_app(settings)
    try:
        return conduct(
            app, Base.metadata, url=url or development.url(ROLES.migrator), code=code or [_PACKAGE], **telling
        )
    finally:
        close_app(app)


def upgrade_database(migrator_url: str) -> None:
    """Run the migrations that have not run yet."""
    config = Config(_CONFIG)
    config.attributes["url"] = migrator_url
    command.upgrade(config, "head")


def _create_database(server: Server) -> None:
    with server.connect() as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(DATABASE)))
    # tenancy: ignore[TEN403] the administrator makes the roles, before there is any tenant
    engine = create_engine(server.url(database=DATABASE), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in bootstrap_sql(ROLES, DATABASE):
            connection.execute(text(statement))


# Secrets ----------------------------------------------------------------------------------------------


def read_or_make_secrets(path: Path) -> Secrets:
    """Return the secrets kept in the file; make the file, or what it lacks, for its owner's eyes only.

    Raises: DevelopmentError
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        made = Secrets(
            secret_key=found.get("secret_key") or secrets.token_urlsafe(48),
            jwt_key=found.get("jwt_key") or secrets.token_urlsafe(48),
            accounts=_passwords(ACCOUNTS) | found.get("accounts", {}),
            roles=_passwords((ROLES.app, ROLES.platform, ROLES.migrator)) | found.get("roles", {}),
        )
        _write_private(path, json.dumps(made.__dict__, indent=2) + "\n")
    except OSError as error:
        raise DevelopmentError(
            f"{str(path)!r} cannot be used: {error.strerror}. Run as whoever owns it, or choose another with --folder."
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DevelopmentError(
            f"{str(path)!r} is damaged. Remove it: new passwords are made, the data stays."
        ) from error
    return made


def _passwords(names: tuple[str, ...]) -> dict[str, str]:
    # The end makes each fit the password policy of every plan, whatever the random part is made of.
    return {name: f"{secrets.token_urlsafe(12)}-Aa1" for name in names}


def _write_private(path: Path, content: str) -> None:
    """Replace the file whole: whoever is killed in between leaves the old one."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


# What to open -----------------------------------------------------------------------------------------


def welcome(development: Development, port: int) -> str:
    """Say what to open, and with which credentials."""
    addresses = [(f"http://{slug}.localhost:{port}", name) for slug, name in TENANTS.items()]
    addresses += [(f"http://localhost:{port}", "all tenants"), (f"http://localhost:{port}/api/docs", "the API")]
    people = [
        (
            email,
            development.secrets.accounts[email],
            ", ".join(f"{role} of {TENANTS[slug]}" for slug, role in roles.items()),
        )
        for email, roles in MEMBERS.items()
    ]
    lines = ["", "The CRM is running. Open", "", *_aligned(addresses), "", "and sign in as", "", *_aligned(people), ""]
    lines += [
        f"Database   {development.url(ROLES.app)}",
        f"Passwords  {development.kept_in}",
        "",
        "Stop with Ctrl-C.",
        "",
    ]
    return "\n".join(lines)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
