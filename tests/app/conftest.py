"""The application on a real database, migrated by its own migrations, reached through its real roles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import make_url
from uuid_utils.compat import uuid7
from werkzeug.test import TestResponse

from app import close_app, create_app
from app.config import Settings, development_settings
from tenancy.embedded import Server, Template, make_template
from tests.conftest import ROLES, Database, bootstrap

PASSWORD = "Correct horse battery 1"
# Shared by the applications of a test, as by the processes of one installation.
KEYS = {"dev": "d" * 48}
Truth = psycopg.Connection[tuple[Any, ...]]


def migrate(url: str) -> None:
    """Set a database up the way an operator would: roles as administrator, tables as migrator."""
    bootstrap(url, tables=False)
    config = Config("alembic.ini")
    config.attributes["url"] = make_url(url).set(username=ROLES.migrator).render_as_string(hide_password=False)
    command.upgrade(config, "head")


def _digest() -> str:
    sources = [*Path("tenancy/rls").glob("*.py"), *Path("alembic/versions").glob("*.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()[:12]


@pytest.fixture(scope="session")
def app_template(server: Server) -> Template:
    return make_template(server, f"app_{_digest()}", migrate)


@pytest.fixture(scope="session")
def database(app_template: Template, worker: str) -> Database:
    """The worker's database. Tests share it, and keep apart by registering organisations of their own."""
    return Database(app_template.server, app_template.clone(f"app_{worker}"))


@pytest.fixture(scope="session")
def make_settings(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Settings]:
    files = tmp_path_factory.mktemp("files").as_uri()

    def make(**given: Any) -> Settings:
        cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "argon2_parallelism": 1}
        cheap |= {"sign_in_attempts": 100_000}  # the tests of one run share an address
        shared = {"storage_url": files, "jwt_keys": KEYS, "jwt_signing_kid": "dev"}
        return development_settings(
            database_url=database.url(ROLES.app),
            platform_database_url=database.url(ROLES.platform),
            **(cheap | shared | given),
        )

    return make


@pytest.fixture(scope="session")
def app(make_settings: Callable[..., Settings]) -> Iterator[Flask]:
    made = create_app(make_settings())
    yield made
    close_app(made)


@pytest.fixture
def make_app(make_settings: Callable[..., Settings]) -> Iterator[Callable[..., Flask]]:
    """Make an application with settings of the test's own."""
    made: list[Flask] = []

    def make(**given: Any) -> Flask:
        made.append(create_app(make_settings(**given)))
        return made[-1]

    yield make
    for one in made:
        close_app(one)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client(use_cookies=False)


@dataclass(frozen=True)
class Visitor:
    """Somebody signed in to one tenant by a bearer token."""

    client: FlaskClient
    tenant_id: UUID
    slug: str
    email: str
    access_token: str
    refresh_token: str

    def call(self, method: str, path: str, **options: Any) -> TestResponse:
        headers: Mapping[str, str] = {"Authorization": f"Bearer {self.access_token}"} | options.pop("headers", {})
        return self.client.open(path, method=method, headers=headers, **options)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.call("GET", path, **options)

    def post(self, path: str, **options: Any) -> TestResponse:
        return self.call("POST", path, **options)


def visitor_of(client: FlaskClient, response: TestResponse) -> Visitor:
    body = response.get_json()
    return Visitor(
        client=client,
        tenant_id=UUID(body["tenant_id"]),
        slug=body["slug"],
        email=body["user"]["email"],
        access_token=body["access_token"],
        refresh_token=body["refresh_token"],
    )


@pytest.fixture
def register(client: FlaskClient) -> Callable[..., Visitor]:
    """Register an organisation through the API, and return its owner."""

    def make(name: str = "Acme", email: str | None = None, *, password: str = PASSWORD, plan: str = "basic") -> Visitor:
        response = client.post(
            "/api/v1/auth/register-organization",
            json={
                "organization_name": name,
                "admin_email": email or new_email(),
                "admin_password": password,
                "plan": plan,
            },
        )
        assert response.status_code == 201, response.get_data(as_text=True)
        return visitor_of(client, response)

    return make


def new_email() -> str:
    return f"{uuid7().hex}@people.test"


@pytest.fixture
def acme(register: Callable[..., Visitor]) -> Visitor:
    return register("Acme")


@pytest.fixture
def globex(register: Callable[..., Visitor]) -> Visitor:
    return register("Globex")


def add_person(visitor: Visitor, name: str = "Ada Lovelace", **fields: Any) -> str:
    response = visitor.post("/api/v1/people", json={"name": name, **fields})
    assert response.status_code == 201, response.get_data(as_text=True)
    found: str = response.get_json()["id"]
    return found


def codes(response: TestResponse) -> tuple[int, str]:
    """What a problem says to a program: its status and code."""
    assert response.mimetype == "application/problem+json"
    return response.status_code, response.get_json()["code"]


def fields(response: TestResponse) -> list[str]:
    return [error["field"] for error in response.get_json()["errors"]]
