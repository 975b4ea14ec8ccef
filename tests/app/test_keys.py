"""Keys of tenants: settings, the admin API, the jobs and the commands that rotate and destroy them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo

from app.admin.scopes import in_tenant
from app.audit.actors import acting_as
from app.config import SettingsError, development_settings
from app.keys.cli import keys
from app.keys.masters import keyring, store_of
from app.keys.operations import rotate_master
from app.staff.permissions import StaffPermission, StaffRole
from tenancy.encryption import MasterKeys
from tenancy.encryption.stores import read_keys, write_keys
from tenancy.errors import ConfigurationError, KeyStoreError
from tests.app.conftest import Truth, Visitor, codes
from tests.app.staffing import SETUP, Staffer, key_client, staff_client

URL = "postgresql+psycopg://app@/x"
CONTEXT = {"tenant": "acme"}


def path_of(visitor: Visitor, what: str = "") -> str:
    return f"/tenants/{visitor.tenant_id}/keys{what}"


def make_key(app: Flask, visitor: Visitor) -> None:
    """Give the tenant its first data key, as its first encrypted value would."""
    with app.app_context(), acting_as(SETUP), in_tenant(visitor.tenant_id, reason="test") as session:
        keyring().add_version(session)


def archive(truth: Truth, visitor: Visitor) -> None:
    truth.execute("UPDATE tenants SET status = 'archived' WHERE tenant_id = %s", [visitor.tenant_id])


def entries(truth: Truth, visitor: Visitor, noun: str = "data_key%") -> list[tuple[str, object, str]]:
    rows = truth.execute(
        "SELECT action, after, reason FROM audit_entries WHERE tenant_id = %s AND action LIKE %s ORDER BY at",
        [visitor.tenant_id, noun],
    )
    return [(row[0], row[1], row[2]) for row in rows]


@pytest.fixture
def staff(app: Flask) -> Staffer:
    return staff_client(app)


# Settings ---------------------------------------------------------------------------------------------


def test_master_keys_come_from_the_file_that_is_set(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, MasterKeys.generate("in-the-file"))

    store = store_of(development_settings(database_url=URL, platform_database_url=URL, master_keys_file=path))

    assert store.current_id == "in-the-file"


def test_master_keys_come_from_the_variable_that_is_set() -> None:
    text = MasterKeys.generate("in-the-variable").reveal()

    store = store_of(development_settings(database_url=URL, platform_database_url=URL, master_keys=text))

    assert store.current_id == "in-the-variable"


def test_development_makes_a_master_key_on_the_spot() -> None:
    store = store_of(development_settings(database_url=URL, platform_database_url=URL))

    assert store.unwrap(store.wrap(bytes(32), context=CONTEXT), context=CONTEXT) == bytes(32)


def test_installation_without_master_keys_names_the_settings() -> None:
    store = store_of(development_settings(database_url=URL, platform_database_url=URL, master_keys=None))

    with pytest.raises(KeyStoreError, match="APP_MASTER_KEYS_FILE or APP_MASTER_KEYS"):
        store.wrap(bytes(32), context=CONTEXT)


def test_two_places_for_master_keys_are_refused(tmp_path: Path) -> None:
    both = {"master_keys": MasterKeys.generate().reveal(), "master_keys_file": tmp_path / "keys.json"}

    with pytest.raises(SettingsError, match="APP_MASTER_KEYS_FILE and APP_MASTER_KEYS are both set"):
        development_settings(database_url=URL, platform_database_url=URL, **both)


def test_damaged_master_keys_stop_the_start_and_are_not_shown() -> None:
    settings = development_settings(database_url=URL, platform_database_url=URL, master_keys='{"current": "secret"}')

    with pytest.raises(ConfigurationError) as refused:
        store_of(settings)

    assert "secret" not in str(refused.value)


def test_data_keys_are_kept_as_long_as_set(make_app: Callable[..., Flask]) -> None:
    assert keyring(make_app(data_key_ttl_s=7)).ttl_s == 7
    assert keyring(make_app()).ttl_s == 300


# The admin API ----------------------------------------------------------------------------------------


def test_tenant_without_encrypted_values_has_no_key(staff: Staffer, acme: Visitor) -> None:
    answer = staff.get(path_of(acme))

    assert (answer.status_code, answer.get_json()) == (
        200,
        {"current": None, "is_destroyed": False, "values": 0, "values_left": 0, "versions": []},
    )


def test_rotation_makes_a_new_version_and_says_so_in_the_audit(
    app: Flask, staff: Staffer, acme: Visitor, globex: Visitor, truth: Truth
) -> None:
    make_key(app, acme)
    make_key(app, globex)

    answer = staff.post(path_of(acme, "/rotate"), json={"reason": "once a year"})

    assert answer.status_code == 202
    assert [one["version"] for one in answer.get_json()["versions"]] == [1, 2]
    assert answer.get_json()["current"] == 2
    assert entries(truth, acme) == [("data_key.rotated", {"version": 2}, "once a year")]
    assert staff.get(path_of(globex)).get_json()["current"] == 1


def test_key_itself_is_in_no_answer(app: Flask, staff: Staffer, acme: Visitor, truth: Truth) -> None:
    make_key(app, acme)
    row = truth.execute("SELECT wrapped FROM data_keys WHERE tenant_id = %s", [acme.tenant_id]).fetchone()
    assert row is not None

    answer = staff.get(path_of(acme))

    assert sorted(answer.get_json()["versions"][0]) == [
        "created_at",
        "destroyed_at",
        "master_key_id",
        "values",
        "version",
    ]
    assert bytes(row[0]).hex() not in answer.get_data(as_text=True)


def test_rotation_asks_for_its_jobs(app: Flask, staff: Staffer, acme: Visitor, truth: Truth) -> None:
    make_key(app, acme)

    staff.post(path_of(acme, "/rotate"), json={"reason": "once a year"})

    jobs = truth.execute(
        "SELECT task_name, scheduled_at IS NOT NULL FROM jobs.procrastinate_jobs WHERE tenant = %s ORDER BY id",
        [acme.tenant_id],
    ).fetchall()
    assert jobs == [("data_key.seal_anew", False), ("data_key.seal_anew", True)]


def test_keys_of_an_archived_tenant_are_destroyed_for_good(
    app: Flask, staff: Staffer, acme: Visitor, truth: Truth
) -> None:
    make_key(app, acme)
    archive(truth, acme)

    answer = staff.post(path_of(acme, "/shred"), json={"reason": "asked for erasure", "slug": acme.slug})

    assert answer.status_code == 200
    assert (answer.get_json()["is_destroyed"], answer.get_json()["current"]) == (True, None)
    found = truth.execute("SELECT wrapped FROM data_keys WHERE tenant_id = %s", [acme.tenant_id]).fetchall()
    assert found == [(None,)]
    assert entries(truth, acme) == [("data_keys.destroyed", {"keys": 1}, "asked for erasure")]
    for what, body in (("/rotate", {"reason": "x"}), ("/shred", {"reason": "x", "slug": acme.slug})):
        assert codes(staff.post(path_of(acme, what), json=body)) == (409, "keys_destroyed")


def test_keys_of_a_tenant_that_is_served_are_not_destroyed(app: Flask, staff: Staffer, acme: Visitor) -> None:
    make_key(app, acme)

    answer = staff.post(path_of(acme, "/shred"), json={"reason": "x", "slug": acme.slug})

    assert codes(answer) == (409, "still_served")
    assert staff.get(path_of(acme)).get_json()["current"] == 1


def test_keys_are_not_destroyed_under_another_name(
    app: Flask, staff: Staffer, acme: Visitor, globex: Visitor, truth: Truth
) -> None:
    make_key(app, acme)
    archive(truth, acme)

    answer = staff.post(path_of(acme, "/shred"), json={"reason": "x", "slug": globex.slug})

    assert codes(answer) == (409, "wrong_name")
    assert staff.get(path_of(acme)).get_json()["current"] == 1


@pytest.mark.parametrize("what", ["/rotate", "/shred"])
def test_reason_is_asked_for(staff: Staffer, acme: Visitor, what: str) -> None:
    for body in ({}, {"reason": "  ", "slug": acme.slug}):
        assert codes(staff.post(path_of(acme, what), json=body))[0] == 400


def test_keys_are_only_for_staff_who_may(app: Flask, acme: Visitor) -> None:
    reader = staff_client(app, StaffRole.READ_ONLY)
    program = key_client(app, StaffPermission.KEYS_ROTATE)

    assert reader.get(path_of(acme)).status_code == 200
    assert codes(reader.post(path_of(acme, "/rotate"), json={"reason": "x"})) == (403, "forbidden")
    assert codes(reader.post(path_of(acme, "/shred"), json={"reason": "x", "slug": "x"})) == (403, "forbidden")
    assert program.post(path_of(acme, "/rotate"), json={"reason": "x"}).status_code == 202
    assert codes(program.post(path_of(acme, "/shred"), json={"reason": "x", "slug": "x"})) == (403, "forbidden")
    assert codes(acme.get(f"/api/v1/admin{path_of(acme)}"))[0] == 401


def test_unknown_tenant_has_no_keys(staff: Staffer) -> None:
    path = f"/tenants/{UUID(int=7)}/keys"

    assert codes(staff.get(path)) == (404, "not_found")
    assert codes(staff.post(f"{path}/rotate", json={"reason": "x"})) == (404, "not_found")


def test_key_store_that_is_down_is_a_503_and_nothing_is_half_done(
    make_app: Callable[..., Flask], acme: Visitor, truth: Truth, tmp_path: Path
) -> None:
    staff = staff_client(make_app(master_keys_file=tmp_path / "gone.json"))

    answer = staff.post(path_of(acme, "/rotate"), json={"reason": "x"})

    assert codes(answer) == (503, "unavailable")
    assert str(tmp_path) not in answer.get_data(as_text=True)
    assert entries(truth, acme) == []
    assert truth.execute("SELECT * FROM data_keys WHERE tenant_id = %s", [acme.tenant_id]).fetchall() == []


# Operations and commands ------------------------------------------------------------------------------


@pytest.fixture
def filed(make_app: Callable[..., Flask], tmp_path: Path) -> tuple[Flask, Path]:
    """An application with its master keys in a file."""
    path = tmp_path / "keys.json"
    write_keys(path, MasterKeys.generate("first"))
    return make_app(master_keys_file=path), path


def run(app: Flask, *arguments: str, answer: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(keys, arguments, obj=ScriptInfo(create_app=lambda: app), input=answer)
    return done.exit_code, done.output


def test_master_key_is_rotated_for_every_tenant(
    filed: tuple[Flask, Path], acme: Visitor, globex: Visitor, truth: Truth
) -> None:
    app, path = filed
    truth.execute("DELETE FROM data_keys")  # of other tests, under master keys that are gone
    for visitor in (acme, globex):
        make_key(app, visitor)

    assert run(app, "add-master", str(path), "--id", "second")[0] == 0
    status, said = run(app, "rotate-master", "--reason", "once a year")

    assert status == 0
    assert "2 tenants were wrapped anew: all are under second." in said
    assert truth.execute("SELECT DISTINCT master_key_id FROM data_keys").fetchall() == [("second",)]
    assert entries(truth, acme) == [("data_key.rewrapped", {"keys": 1, "master_key_id": "second"}, "once a year")]
    write_keys(path, MasterKeys("second", {"second": read_keys(path).keys["second"]}))
    with app.app_context(), acting_as(SETUP), in_tenant(acme.tenant_id, reason="test") as session:
        keyring().forget(acme.tenant_id)
        keyring().warm(session)


def test_rotation_of_the_master_key_that_was_stopped_goes_on(
    filed: tuple[Flask, Path], acme: Visitor, globex: Visitor, truth: Truth
) -> None:
    app, path = filed
    truth.execute("DELETE FROM data_keys")
    for visitor in (acme, globex):
        make_key(app, visitor)
    write_keys(path, read_keys(path).with_new("second"))

    class KilledError(Exception):
        pass

    def kill(_done: int, _total: int) -> None:
        raise KilledError

    with app.app_context(), acting_as(SETUP):
        database = app.extensions["auth"].database
        with pytest.raises(KilledError):
            rotate_master(database, keyring(), reason="test", watch=kill)
        between = truth.execute("SELECT master_key_id FROM data_keys ORDER BY master_key_id").fetchall()
        again = rotate_master(database, keyring(), reason="test")

    assert between == [("first",), ("second",)]
    assert again == 1
    assert truth.execute("SELECT DISTINCT master_key_id FROM data_keys").fetchall() == [("second",)]


def test_data_key_is_rotated_and_shown_from_the_command_line(app: Flask, acme: Visitor, truth: Truth) -> None:
    make_key(app, acme)

    status, said = run(app, "rotate-data", "--tenant", str(acme.tenant_id), "--reason", "once a year")

    assert (status, "Version 2 is new." in said) == (0, True)
    assert "2 (current)" in run(app, "status", "--tenant", str(acme.tenant_id))[1]
    assert entries(truth, acme) == [("data_key.rotated", {"version": 2}, "once a year")]


def test_keys_are_destroyed_from_the_command_line_by_writing_the_slug(app: Flask, acme: Visitor, truth: Truth) -> None:
    make_key(app, acme)
    archive(truth, acme)
    command = ("shred", "--tenant", str(acme.tenant_id), "--reason", "asked for erasure")

    refused = run(app, *command, answer="another\n")
    done = run(app, *command, answer=f"{acme.slug}\n")

    assert (refused[0], "nothing was destroyed" in refused[1]) == (1, True)
    assert (done[0], "1 data keys were destroyed" in done[1]) == (0, True)
    assert "nothing they sealed can be read" in run(app, "status", "--tenant", str(acme.tenant_id))[1]


def test_first_master_key_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    done = CliRunner().invoke(keys, ["add-master", str(path)])

    assert done.exit_code == 0
    assert len(read_keys(path).keys) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["keys"][read_keys(path).current] not in done.output
