"""Platform staff for tests: somebody with an account and a sign-in, or a program with an API key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.admin.scopes import on_staff_tables
from app.audit.actors import Actor, ActorKind, acting_as
from app.auth.desk import EXTENSION
from app.staff.keys import make_key
from app.staff.operations import insert_staff
from app.staff.permissions import StaffPermission, StaffRole
from tests.app.conftest import PASSWORD, new_email

SETUP = Actor(ActorKind.SYSTEM, "tests", "tests")
REASON = "for a test"


@dataclass(frozen=True)
class Staffer:
    """Somebody of the staff, or a program of theirs, signed in by a bearer token."""

    client: FlaskClient
    id: UUID
    email: str
    token: str

    def call(self, method: str, path: str, **options: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return self.client.open(f"/api/v1/admin{path}", method=method, headers=headers, **options)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.call("GET", path, **options)

    def post(self, path: str, **options: Any) -> TestResponse:
        return self.call("POST", path, **options)

    def put(self, path: str, **options: Any) -> TestResponse:
        return self.call("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> TestResponse:
        return self.call("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        return self.call("DELETE", path, **options)


def add_staff(app: Flask, role: StaffRole = StaffRole.OWNER, *, email: str | None = None) -> tuple[UUID, str]:
    """Make a staff account with the tests' password; return its id and address."""
    address = email or new_email()
    password_hash = app.extensions[EXTENSION].passwords.hash(PASSWORD)
    with app.app_context(), acting_as(SETUP), on_staff_tables(reason=REASON) as session:
        return insert_staff(session, email=address, role=role, password_hash=password_hash).id, address


def staff_client(app: Flask, role: StaffRole = StaffRole.OWNER) -> Staffer:
    """Return somebody of the staff, signed in through the API."""
    staff_id, email = add_staff(app, role)
    client = app.test_client(use_cookies=False)
    answer = client.post("/api/v1/admin/auth/login", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return Staffer(client, staff_id, email, answer.get_json()["access_token"])


def key_client(app: Flask, *permissions: StaffPermission, life: timedelta = timedelta(days=1)) -> Staffer:
    """Return a program with an API key of these permissions, which an owner made."""
    staff_id, email = add_staff(app)
    with app.app_context(), acting_as(SETUP):
        made = make_key(
            staff_id,
            name="a program",
            permissions=frozenset(permissions),
            expires_at=datetime.now(UTC) + life,
            reason=REASON,
        )
    return Staffer(app.test_client(use_cookies=False), staff_id, email, made.secret)
