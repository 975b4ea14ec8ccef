"""Rotation of a data key on the application's own encrypted values: in the background, under traffic, past a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select

from app.admin.scopes import in_tenant
from app.audit.actors import acting_as
from app.configuration.models import ConfigurationValue
from app.keys.masters import keyring
from app.keys.operations import KeyStatus, begin_rotation, finish_rotation, read_status
from app.models import Base
from tenancy.context import tenant_scope
from tenancy.encryption import MasterKeys
from tenancy.encryption.rotation import check_rotatable, encrypted_tables
from tenancy.encryption.stores import write_keys
from tests.app.conftest import Truth, Visitor
from tests.app.queueing import eventually, working
from tests.app.staffing import SETUP, staff_client
from tests.conftest import ROLES, Database

Filed = tuple[Flask, Path]


@pytest.fixture
def filed(make_app: Callable[..., Flask], tmp_path: Path) -> Filed:
    """An application with its master key in a file, whose keys are kept for as short as can be."""
    path = tmp_path / "keys.json"
    write_keys(path, MasterKeys.generate("first"))
    return make_app(master_keys_file=path, data_key_ttl_s=1), path


def keep(app: Flask, visitor: Visitor, **secrets: str) -> None:
    """Store secrets as a member's request would."""
    with tenant_scope(visitor.tenant_id), app.extensions["auth"].database.sessions.begin() as session:
        session.add_all(ConfigurationValue(key=key, secret=secret) for key, secret in secrets.items())


def kept(app: Flask, visitor: Visitor) -> dict[str, str | None]:
    with tenant_scope(visitor.tenant_id), app.extensions["auth"].database.sessions() as session:
        return {row.key: row.secret for row in session.scalars(select(ConfigurationValue))}


def status_of(app: Flask, visitor: Visitor) -> KeyStatus:
    with app.app_context(), acting_as(SETUP), in_tenant(visitor.tenant_id, reason="test") as session:
        return read_status(session)


def versions(app: Flask, visitor: Visitor) -> dict[int, int]:
    return {one.version: one.values for one in status_of(app, visitor).versions}


def test_every_encrypted_column_of_the_application_can_be_rotated() -> None:
    check_rotatable(Base.metadata)

    assert "configuration_values" in {table.name for table in encrypted_tables(Base.metadata)}


def test_values_are_sealed_anew_in_the_background(filed: Filed, acme: Visitor, globex: Visitor) -> None:
    app, _ = filed
    keep(app, acme, one="first secret", two="second secret")
    keep(app, globex, one="another's")
    staff = staff_client(app)

    answer = staff.post(f"/tenants/{acme.tenant_id}/keys/rotate", json={"reason": "once a year"})

    assert (answer.get_json()["values"], answer.get_json()["values_left"]) == (2, 2)
    assert kept(app, acme) == {"one": "first secret", "two": "second secret"}
    with working(app):
        eventually(lambda: status_of(app, acme).values_left == 0)
    assert versions(app, acme) == {1: 0, 2: 2}
    assert kept(app, acme) == {"one": "first secret", "two": "second secret"}
    assert versions(app, globex) == {1: 1}


def test_value_that_was_sealed_late_with_the_old_key_is_caught_by_the_second_job(filed: Filed, acme: Visitor) -> None:
    app, _ = filed
    keep(app, acme, one="first secret")
    keyring_of_another = keyring(app)
    kept(app, acme)  # the key is warm
    with app.app_context(), acting_as(SETUP), in_tenant(acme.tenant_id, reason="test") as session:
        late = keyring_of_another.seal_value(session, ConfigurationValue.secret, (number := acme.tenant_id), "late")
    staff_client(app).post(f"/tenants/{acme.tenant_id}/keys/rotate", json={"reason": "once a year"})
    with app.app_context(), acting_as(SETUP):
        finish_rotation(app.extensions["auth"].database, acme.tenant_id, keyring(), reason="test")

    with tenant_scope(acme.tenant_id), app.extensions["auth"].database.sessions.begin() as session:
        row = {"id": number, "tenant_id": acme.tenant_id, "key": "late", "secret": late}
        session.execute(ConfigurationValue.__table__.insert().values(row))  # type: ignore[attr-defined]
    assert versions(app, acme) == {1: 1, 2: 1}
    with working(app):
        eventually(lambda: status_of(app, acme).values_left == 0)

    assert kept(app, acme) == {"one": "first secret", "late": "late"}


def test_rotation_under_way_goes_on_and_makes_no_newer_key(filed: Filed, acme: Visitor) -> None:
    app, _ = filed
    keep(app, acme, one="first secret")
    staff = staff_client(app)

    for _ in range(2):
        staff.post(f"/tenants/{acme.tenant_id}/keys/rotate", json={"reason": "once a year"})

    assert versions(app, acme) == {1: 1, 2: 0}


def test_rotation_that_left_something_behind_long_ago_stands_in_nobodys_way(
    filed: Filed, acme: Visitor, truth: Truth
) -> None:
    app, _ = filed
    keep(app, acme, one="first secret")
    with app.app_context(), acting_as(SETUP):
        for expected in (2, 2):
            with in_tenant(acme.tenant_id, reason="test") as session:
                assert begin_rotation(session, keyring(), reason="test") == expected
        truth.execute(
            "UPDATE data_keys SET created_at = created_at - interval '25 hours' WHERE tenant_id = %s", [acme.tenant_id]
        )

        with in_tenant(acme.tenant_id, reason="test") as session:
            assert begin_rotation(session, keyring(), reason="test") == 3

    assert kept(app, acme) == {"one": "first secret"}


def test_rotation_does_not_change_when_a_row_was_changed(filed: Filed, acme: Visitor, truth: Truth) -> None:
    app, _ = filed
    keep(app, acme, one="first secret")
    changed = "SELECT updated_at FROM configuration_values WHERE tenant_id = %s"
    before = truth.execute(changed, [acme.tenant_id]).fetchall()
    with app.app_context(), acting_as(SETUP):
        with in_tenant(acme.tenant_id, reason="test") as session:
            begin_rotation(session, keyring(), reason="test")

        finish_rotation(app.extensions["auth"].database, acme.tenant_id, keyring(), reason="test")

    assert versions(app, acme) == {1: 0, 2: 1}
    assert truth.execute(changed, [acme.tenant_id]).fetchall() == before


KILLED = """
import os, signal, sys
from uuid import UUID
from app import create_app
from app.audit.actors import Actor, ActorKind, acting_as
from app.config import development_settings
from app.keys.masters import keyring
from app.models import Base
from tenancy.context import platform_scope, tenant_scope
from tenancy.encryption.rotation import reencrypt

url, platform_url, path, tenant = sys.argv[1:]
app = create_app(development_settings(database_url=url, platform_database_url=platform_url, master_keys_file=path))
database = app.extensions["auth"].database
with platform_scope(actor="test", reason="test"), tenant_scope(UUID(tenant)), database.staff_sessions() as session:
    for _ in reencrypt(session, keyring(app), Base.metadata, batch_rows=4):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_rotation_that_was_killed_goes_on_where_it_was(filed: Filed, acme: Visitor, database: Database) -> None:
    app, path = filed
    secrets = {f"key{number}": f"secret {number}" for number in range(10)}
    keep(app, acme, **secrets)
    with app.app_context(), acting_as(SETUP), in_tenant(acme.tenant_id, reason="test") as session:
        begin_rotation(session, keyring(), reason="test")

    urls = [database.url(ROLES.app), database.url(ROLES.platform)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *urls, str(path), str(acme.tenant_id)], check=False)

    assert killed.returncode == -signal.SIGKILL
    assert versions(app, acme) == {1: 6, 2: 4}
    assert kept(app, acme) == secrets
    with app.app_context(), acting_as(SETUP):
        finish_rotation(app.extensions["auth"].database, acme.tenant_id, keyring(), reason="test")
    assert versions(app, acme) == {1: 0, 2: 10}
    assert kept(app, acme) == secrets


def test_warm_requests_ask_the_key_store_nothing(make_app: Callable[..., Flask], acme: Visitor) -> None:
    app = make_app()
    keep(app, acme, one="first secret")
    kept(app, acme)
    before = keyring(app).unwraps

    for _ in range(5):
        assert kept(app, acme) == {"one": "first secret"}

    assert keyring(app).unwraps == before
