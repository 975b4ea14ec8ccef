"""What is put under load: the application under gunicorn, on a database with many tenants, each with its marker."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir
from urllib.request import urlopen
from uuid import UUID

from sqlalchemy import Engine, create_engine, insert, text
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from app.auth.passwords import Passwords
from app.config import Settings, development_settings
from app.development import upgrade_database
from app.models import Account, Company, Member, Person, Tenant
from tenancy import create_tenant_engine, tenant_scope, tenant_sessionmaker
from tenancy.embedded import Server
from tenancy.rls import Roles, bootstrap_sql

ROLES = Roles()
ROOT = Path(__file__).parents[2]
PASSWORD = secrets.token_urlsafe(12)
# Signing in is part of the mix, and at the cost that production needs it would be most of the load.
CHEAP_PASSWORDS = {"argon2_time_cost": 1, "argon2_memory_kib": 8_192, "argon2_parallelism": 1}
# PostgreSQL has the other half of the cores. Threads are many, as those that wait for a slot do nothing.
WORKERS, THREADS, POOL = max(1, len(os.sched_getaffinity(0)) // 2), 24, 12
A_MARKER = re.compile(rb"mark-[0-9a-f]{12}")
PEOPLE, COMPANIES = 200, 20
_READY_S = 60.0


class LoadError(Exception):
    """The application could not be started, or nobody could sign in to it."""


@dataclass
class Place:
    """One tenant. Every text in it carries the marker, so that a foreign row is known wherever it appears."""

    name: str
    id: UUID
    marker: str
    emails: Sequence[str]
    people: int = PEOPLE

    @property
    def host(self) -> str:
        return f"{self.name}.localhost"


@dataclass
class Service:
    """A database that stands, and what is needed to serve it."""

    database: str
    database_url: str
    platform_url: str
    places: list[Place]
    noisy: Place
    folder: Path
    keys: dict[str, str] = field(
        default_factory=lambda: {name: secrets.token_urlsafe(48) for name in ("secret", "jwt")}
    )

    def environment(self, budgets: Mapping[str, object]) -> dict[str, str]:
        """Return the variables of a process that serves it. budgets: settings of the application."""
        given: dict[str, object] = {
            "environment": "production",
            "database_url": self.database_url,
            "platform_database_url": self.platform_url,
            "database_pool_size": POOL,
            "base_domain": "localhost",
            "resolvers": "jwt,subdomain",
            "secret_key": self.keys["secret"],
            "jwt_keys": f'{{"load": "{self.keys["jwt"]}"}}',
            "jwt_signing_kid": "load",
            "storage_url": (Path(gettempdir()) / "tenancy-load-files").as_uri(),
            **CHEAP_PASSWORDS,
            **budgets,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
        return kept | {f"APP_{name.upper()}": str(value) for name, value in given.items()}

    @contextmanager
    def served(self, name: str, budgets: Mapping[str, object]) -> Iterator[int]:
        """Serve it under gunicorn; yield the port. name: of the log, for when it does not start."""
        port, log = _free_port(), self.folder / f"{name}.log"
        command = [sys.executable, "-m", "gunicorn", "app:create_app()", "--bind", f"127.0.0.1:{port}"]
        command += ["--workers", str(WORKERS), "--threads", str(THREADS), "--keep-alive", "75", "--no-control-socket"]
        with log.open("w") as written, ExitStack() as stack:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment(budgets), stdout=written, stderr=subprocess.STDOUT
            )
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            _wait_for(port, process, log)
            yield port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/openapi.json", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise LoadError(f"gunicorn does not serve: {log.read_text()[-2000:]}")


# Filling the database ---------------------------------------------------------------------------------


def build(server: Server, folder: Path, *, tenants: int, users: int, noisy_people: int) -> Service:
    """Migrate a new database and fill it, each row as the application's own role and in its tenant's scope.

    users: accounts in each tenant. The last tenant has `noisy_people` people instead of the usual number.
    """
    database = f"load_{secrets.token_hex(4)}"
    with server.connect() as admin:
        admin.execute(f"CREATE DATABASE {database} TEMPLATE template0".encode())
    engine = create_engine(server.url(database=database), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in bootstrap_sql(ROLES, database):
            connection.execute(text(statement))
    upgrade_database(server.url(role=ROLES.migrator, database=database))
    places = [_place(number, users) for number in range(1, tenants + 1)]
    places[-1].people = noisy_people
    url = server.url(role=ROLES.app, database=database)
    _fill(create_tenant_engine(url), places)
    with server.connect(database=database) as admin:
        admin.execute(b"VACUUM ANALYZE")
    return Service(database, url, server.url(role=ROLES.platform, database=database), places, places[-1], folder)


def _place(number: int, users: int) -> Place:
    marker = f"mark-{secrets.token_hex(6)}"
    emails = [f"user{user}@{marker}.example" for user in range(users)]
    return Place(f"load-{number:03}", uuid7(), marker, emails)


def _fill(engine: Engine, places: Sequence[Place]) -> None:
    sessions = tenant_sessionmaker(engine)
    stored = _passwords().hash(PASSWORD)
    for place in places:
        with tenant_scope(place.id), sessions.begin() as session:
            session.add(Tenant(id=place.id, slug=place.name, name=f"{place.marker} Ltd", status="active", plan="basic"))
        # An account sees its own row only, so each is made in its own scope, as when somebody joins.
        for email in place.emails:
            account = uuid7()
            with tenant_scope(place.id, account=account), sessions.begin() as session:
                session.add(Account(id=account, email=email, password_hash=stored))
                session.flush()
                session.add(Member(account_id=account, email=email, role="manager"))
        companies = [{"id": uuid7(), "name": f"{place.marker} company {number}"} for number in range(COMPANIES)]
        people = [
            {
                "id": uuid7(),
                "name": f"{place.marker} person {number}",
                "email": f"person{number}@{place.marker}.example",
                "company_id": companies[number % COMPANIES]["id"],
            }
            for number in range(place.people)
        ]
        with tenant_scope(place.id), sessions.begin() as session:
            session.execute(insert(Company), companies)
            session.execute(insert(Person), people)
    engine.dispose()


def _passwords() -> Passwords:
    settings: Settings = development_settings(database_url="-", platform_database_url="-", **CHEAP_PASSWORDS)
    return Passwords(settings)
