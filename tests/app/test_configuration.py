"""A tenant's configuration: what it may set, what it was before, and why a value is what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from app.configuration.keys import WEBHOOK_SECRET
from app.configuration.operations import secret_of
from app.plans.terms import TermKind
from tenancy.context import tenant_scope
from tests.app.conftest import Truth, Visitor, codes, fields
from tests.app.entitled import REASON, give
from tests.app.staffing import staff_client
from tests.app.test_sign_in import wait_until

SETTINGS = "/api/v1/settings"
HISTORY = "/api/v1/settings-history"
TIMEOUT = f"{SETTINGS}/session.timeout"
POLICY = f"{SETTINGS}/security.password_policy"
LAX = {"min_length": 8, "upper": True, "lower": True, "number": True, "special": False}


def put(visitor: Visitor, path: str, value: object, reason: str | None = None) -> object:
    response = visitor.call("PUT", path, json={"value": value, "reason": reason})
    assert response.status_code == 200, response.get_data(as_text=True)
    return response.get_json()["value"]


def demote(truth: Truth, visitor: Visitor, role: str) -> None:
    truth.execute("UPDATE members SET role = %s WHERE tenant_id = %s", [role, visitor.tenant_id])


def test_every_key_has_the_value_of_the_plan_and_says_so(register: Callable[..., Visitor]) -> None:
    acme = register("Acme", plan="premium")

    found = {one["key"]: one for one in acme.get(SETTINGS).get_json()["items"]}

    assert {key: one["value"] for key, one in found.items()} == {
        "security.password_policy": {
            "min_length": 10,
            "upper": True,
            "lower": True,
            "number": True,
            "special": True,
        },
        "session.timeout": 7_200,
        "file_upload.max_size": 107_374_182_400,
        "api.rate_limit": 10_000,
        "security.impersonation": True,
        "webhooks.signing_secret": {"is_set": False},
    }
    assert [step["source"] for step in found["session.timeout"]["steps"]] == ["default", "plan"]


def test_tenant_sets_a_key_and_reads_why(acme: Visitor) -> None:
    assert put(acme, TIMEOUT, 900) == 900

    steps = acme.get(TIMEOUT).get_json()["steps"]

    assert [(step["source"], step["value"]) for step in steps] == [("default", 3_600), ("plan", 3_600), ("own", 900)]
    assert steps[2]["why"] == "set by the tenant"


def test_setting_of_one_tenant_leaves_the_other_alone(acme: Visitor, globex: Visitor) -> None:
    put(acme, TIMEOUT, 900)

    assert acme.get(TIMEOUT).get_json()["value"] == 900
    assert globex.get(TIMEOUT).get_json()["value"] == 3_600


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("session.timeout", 3_601, "is more than your plan grants, which is 3600"),
        ("session.timeout", 299, "greater than or equal to 300"),
        ("session.timeout", "900", "valid integer"),
        ("session.timeout", True, "valid integer"),
        ("session.timeout", None, "valid integer"),
        ("api.rate_limit", 1_001, "is more than your plan grants"),
        ("file_upload.max_size", 0, "greater than or equal to 1"),
        ("security.password_policy", LAX | {"number": False}, "is more than your plan grants"),
        ("security.password_policy", LAX | {"min_length": 7}, "min_length"),
        ("security.password_policy", LAX | {"emoji": True}, "emoji"),
        ("security.password_policy", {"min_length": 20}, "Field required"),
        ("security.password_policy", 12, "PasswordPolicy"),
    ],
)
def test_value_that_cannot_be_is_refused_and_its_key_named(
    acme: Visitor, truth: Truth, key: str, value: object, words: str
) -> None:
    response = acme.call("PUT", f"{SETTINGS}/{key}", json={"value": value})

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == [key]
    assert words in response.get_json()["errors"][0]["message"]
    found = truth.execute("SELECT count(*) FROM configuration_values WHERE tenant_id = %s", [acme.tenant_id])
    assert found.fetchone() == (0,)


def test_key_that_does_not_exist_is_not_found(acme: Visitor) -> None:
    assert codes(acme.get(f"{SETTINGS}/session.timeuot")) == (404, "not_found")
    assert codes(acme.call("PUT", f"{SETTINGS}/session.timeuot", json={"value": 1})) == (404, "not_found")


def test_cleared_key_has_the_value_of_the_plan_again(acme: Visitor) -> None:
    put(acme, TIMEOUT, 900)

    response = acme.call("DELETE", TIMEOUT)

    assert response.get_json()["value"] == 3_600
    assert codes(acme.call("DELETE", TIMEOUT)) == (404, "not_found")


def test_clearing_a_key_leaves_the_other_tenants_value(acme: Visitor, globex: Visitor) -> None:
    put(acme, TIMEOUT, 900)
    put(globex, TIMEOUT, 800)

    assert acme.call("DELETE", TIMEOUT).status_code == 200

    assert globex.get(TIMEOUT).get_json()["value"] == 800


def test_member_without_the_permission_neither_reads_nor_writes(acme: Visitor, truth: Truth) -> None:
    assert acme.get(SETTINGS).status_code == 200
    demote(truth, acme, "manager")

    assert codes(acme.get(SETTINGS)) == (403, "forbidden")
    assert codes(acme.call("PUT", TIMEOUT, json={"value": 900})) == (403, "forbidden")


def test_staff_override_widens_what_the_tenant_may_set(app: Flask, acme: Visitor) -> None:
    assert codes(acme.call("PUT", TIMEOUT, json={"value": 7_200}))[0] == 400

    give(app, acme, TermKind.CONFIGURATION, "session.timeout", 10_000)

    assert put(acme, TIMEOUT, 7_200) == 7_200


def test_own_value_counts_only_as_far_as_it_is_still_granted(app: Flask, acme: Visitor) -> None:
    put(acme, TIMEOUT, 1_800)
    give(app, acme, TermKind.CONFIGURATION, "session.timeout", 600)

    wait_until(lambda: acme.get(TIMEOUT).get_json()["value"] == 600)

    assert acme.get(TIMEOUT).get_json()["steps"][-1]["why"] == "set by the tenant, as far as it was granted"


def test_staff_read_the_configuration_and_its_history(app: Flask, acme: Visitor) -> None:
    put(acme, TIMEOUT, 900)
    ana = staff_client(app)

    items = ana.get(f"/tenants/{acme.tenant_id}/config").get_json()["items"]
    changes = ana.get(f"/tenants/{acme.tenant_id}/config-history").get_json()["items"]

    assert {one["key"]: one["value"] for one in items}["session.timeout"] == 900
    assert [(one["key"], one["after"]) for one in changes] == [("session.timeout", 900)]


def test_staff_override_and_withdraw_a_key_over_the_api(app: Flask, acme: Visitor) -> None:
    ana = staff_client(app)
    path = f"/tenants/{acme.tenant_id}/config/api.rate_limit"

    given = ana.put(path, json={"value": 5_000, "reason": REASON}).get_json()
    withdrawn = ana.delete(f"{path}?reason=over").get_json()

    assert (given["value"], withdrawn["value"]) == (5_000, 1_000)
    assert given["steps"][-1]["why"] == f"{REASON}: by {ana.email}"


# Secrets ----------------------------------------------------------------------------------------------

SECRET = "whsec-0123456789abcdefghij"
SECRET_PATH = f"{SETTINGS}/webhooks.signing_secret"


def clear_secret(app: Flask, visitor: Visitor) -> str | None:
    with app.app_context(), tenant_scope(visitor.tenant_id), app.extensions["auth"].database.sessions() as session:
        return secret_of(session, WEBHOOK_SECRET)


def test_secret_is_kept_encrypted_and_read_back_by_the_program_alone(app: Flask, acme: Visitor, truth: Truth) -> None:
    answer = acme.call("PUT", SECRET_PATH, json={"value": SECRET})

    assert answer.get_json()["value"] == {"is_set": True}
    assert clear_secret(app, acme) == SECRET
    row = truth.execute(
        "SELECT value, secret FROM configuration_values WHERE tenant_id = %s", [acme.tenant_id]
    ).fetchone()
    assert row is not None
    assert row[0] is None
    assert isinstance(row[1], bytes)
    assert SECRET.encode() not in row[1]


def test_secret_is_in_no_answer_history_or_audit(acme: Visitor, truth: Truth) -> None:
    answers = [acme.call("PUT", SECRET_PATH, json={"value": SECRET})]

    answers += [acme.get(SECRET_PATH), acme.get(SETTINGS), acme.get(HISTORY)]

    assert all(answer.status_code == 200 and SECRET not in answer.text for answer in answers)
    assert [one["after"] for one in answers[3].get_json()["items"]] == [{"is_set": True}]
    for table in ("audit_entries", "configuration_changes", "configuration_values"):
        rows = truth.execute(f"SELECT t::text FROM {table} AS t WHERE tenant_id = %s", [acme.tenant_id]).fetchall()
        assert rows
        assert SECRET not in str(rows)


def test_secret_can_be_replaced_and_cleared_but_not_restored(app: Flask, acme: Visitor) -> None:
    acme.call("PUT", SECRET_PATH, json={"value": SECRET})
    acme.call("PUT", SECRET_PATH, json={"value": SECRET[::-1]})
    assert clear_secret(app, acme) == SECRET[::-1]
    change = acme.get(HISTORY).get_json()["items"][0]["id"]

    restored = acme.post(f"{HISTORY}/{change}/restore", json={})
    cleared = acme.call("DELETE", SECRET_PATH)

    assert fields(restored) == ["webhooks.signing_secret"]
    assert "what it was is not kept" in restored.get_json()["errors"][0]["message"]
    assert cleared.get_json()["value"] == {"is_set": False}
    assert clear_secret(app, acme) is None


def test_refused_secret_is_not_repeated(acme: Visitor) -> None:
    response = acme.call("PUT", SECRET_PATH, json={"value": "too short"})

    assert fields(response) == ["webhooks.signing_secret"]
    assert "too short" not in response.text


def test_secret_is_refused_where_there_is_no_master_key(
    make_app: Callable[..., Flask], acme: Visitor, truth: Truth
) -> None:
    bare = replace(acme, client=make_app(master_keys=None).test_client(use_cookies=False))

    response = bare.call("PUT", SECRET_PATH, json={"value": SECRET})

    assert response.status_code >= 500
    assert SECRET not in response.text
    found = truth.execute("SELECT count(*) FROM configuration_values WHERE tenant_id = %s", [acme.tenant_id])
    assert found.fetchone() == (0,)


def test_staff_do_not_set_a_tenants_secret(app: Flask, acme: Visitor) -> None:
    given = {"value": SECRET, "reason": REASON}

    response = staff_client(app).put(f"/tenants/{acme.tenant_id}/config/webhooks.signing_secret", json=given)

    assert fields(response) == ["value"]
    assert SECRET not in response.text


# History ----------------------------------------------------------------------------------------------


def test_history_says_who_changed_what_from_what_to_what(acme: Visitor) -> None:
    put(acme, TIMEOUT, 900, "a shared office")
    put(acme, TIMEOUT, 600)

    found = acme.get(HISTORY).get_json()["items"]

    assert [(one["before"], one["after"], one["reason"]) for one in found] == [
        (900, 600, None),
        (None, 900, "a shared office"),
    ]
    assert found[0]["actor_label"] == acme.email


def test_history_is_paged_and_narrowed_to_a_key(acme: Visitor) -> None:
    for value in (900, 800, 700):
        put(acme, TIMEOUT, value)
    put(acme, POLICY, LAX | {"special": True})

    first = acme.get(f"{HISTORY}?key=session.timeout&limit=2").get_json()
    second = acme.get(f"{HISTORY}?key=session.timeout&limit=2&cursor={first['next_cursor']}").get_json()

    assert [one["after"] for one in first["items"] + second["items"]] == [700, 800, 900]
    assert second["next_cursor"] is None


def test_restoring_sets_back_what_was_before_a_change(acme: Visitor) -> None:
    put(acme, TIMEOUT, 900)
    put(acme, TIMEOUT, 600)
    changes = acme.get(HISTORY).get_json()["items"]

    to_second = acme.post(f"{HISTORY}/{changes[0]['id']}/restore", json={"reason": "too short"})
    to_none = acme.post(f"{HISTORY}/{changes[1]['id']}/restore", json={})

    assert to_second.get_json()["value"] == 900
    assert to_none.get_json()["value"] == 3_600
    assert [one["after"] for one in acme.get(HISTORY).get_json()["items"]] == [None, 900, 600, 900]


def test_restoring_what_is_no_longer_granted_is_refused(app: Flask, acme: Visitor) -> None:
    put(acme, TIMEOUT, 1_800)
    put(acme, TIMEOUT, 900)
    change = acme.get(HISTORY).get_json()["items"][0]["id"]
    give(app, acme, TermKind.CONFIGURATION, "session.timeout", 1_000)

    response = acme.post(f"{HISTORY}/{change}/restore", json={})

    assert fields(response) == ["session.timeout"]


def test_change_of_another_tenant_cannot_be_restored(acme: Visitor, globex: Visitor) -> None:
    put(acme, TIMEOUT, 900)
    change = acme.get(HISTORY).get_json()["items"][0]["id"]

    assert codes(globex.post(f"{HISTORY}/{change}/restore", json={})) == (404, "not_found")
    assert acme.get(TIMEOUT).get_json()["value"] == 900


def test_history_cannot_be_rewritten(app: Flask, acme: Visitor) -> None:
    put(acme, TIMEOUT, 900)

    for statement in ("UPDATE configuration_changes SET actor_label = 'nobody'", "DELETE FROM configuration_changes"):
        with tenant_scope(acme.tenant_id), app.extensions["auth"].database.sessions() as session:
            with pytest.raises(ProgrammingError) as refused:
                session.execute(text(statement))
            assert isinstance(refused.value.orig, psycopg.errors.InsufficientPrivilege)


def test_change_is_in_the_audit(acme: Visitor, truth: Truth) -> None:
    put(acme, TIMEOUT, 900, "a shared office")

    row = truth.execute(
        """SELECT actor_label, reason, before, after FROM audit_entries
           WHERE tenant_id = %s AND action = 'configuration.changed'""",
        [acme.tenant_id],
    ).fetchone()

    assert row == (acme.email, "a shared office", {"session.timeout": None}, {"session.timeout": 900})
