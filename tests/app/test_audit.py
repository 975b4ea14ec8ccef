"""The audit as its readers see it: filtered, exported, checked, kept for a time, and without secrets."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.audit.actors import Actor, ActorKind, acting_as, current_actor, current_request_id
from app.audit.chain import verify
from app.audit.entries import record
from app.audit.exports import ExportError, verify_export
from app.audit.redaction import changes_of, is_secret_name, redacted
from app.audit.retention import prune
from app.auth.desk import Desk
from app.members.models import Account
from app.members.permissions import Role
from app.staff.permissions import StaffPermission, StaffRole
from tenancy.context import platform_scope, tenant_scope
from tests.app.conftest import PASSWORD, Truth, Visitor, codes, fields
from tests.app.staffing import key_client, staff_client
from tests.app.test_audit_chain import desk as desk
from tests.app.test_audit_chain import intruder as intruder
from tests.app.test_invitations import join

AUDIT = "/api/v1/audit"
ANA = Actor(ActorKind.ACCOUNT, "ana", "ana@platform.test")


def entries(visitor: Visitor, **query: str) -> list[dict[str, object]]:
    answer = visitor.get(AUDIT, query_string=query)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: list[dict[str, object]] = answer.get_json()["items"]
    return found


def actions(visitor: Visitor, **query: str) -> list[object]:
    return [entry["action"] for entry in entries(visitor, **query)]


# What is recorded -------------------------------------------------------------------------------------


def test_registration_signing_in_and_out_are_recorded(acme: Visitor) -> None:
    again = acme.client.post("/api/v1/auth/login", json={"email": acme.email, "password": PASSWORD}).get_json()
    replace(acme, access_token=again["access_token"]).post("/api/v1/auth/logout")

    found = [action for action in actions(acme, sort="at") if str(action).startswith("member.")]

    assert found == ["member.registered", "member.signed_in", "member.signed_in", "member.signed_out"]
    assert {entry["actor_label"] for entry in entries(acme, action="member.signed_in")} == {acme.email}


def test_second_use_of_a_refresh_token_is_recorded(acme: Visitor) -> None:
    """T104"""
    body = {"refresh_token": acme.refresh_token}
    renewed = acme.client.post("/api/v1/auth/refresh", json=body).get_json()
    acme.client.post("/api/v1/auth/refresh", json=body)
    later = acme.client.post("/api/v1/auth/login", json={"email": acme.email, "password": PASSWORD}).get_json()

    (entry,) = entries(replace(acme, access_token=later["access_token"]), action="refresh_token.misused")

    assert entry["actor_label"] == acme.email
    assert renewed["refresh_token"] not in json.dumps(entry)


def test_request_id_of_the_proxy_is_kept_and_answered(acme: Visitor) -> None:
    answer = acme.post("/api/v1/auth/logout", headers={"X-Request-ID": "edge-4711.a_B"})

    assert answer.headers["X-Request-ID"] == "edge-4711.a_B"
    again = acme.client.post("/api/v1/auth/login", json={"email": acme.email, "password": PASSWORD}).get_json()
    found = entries(replace(acme, access_token=again["access_token"]), request_id="edge-4711.a_B")
    assert [entry["action"] for entry in found] == ["member.signed_out"]


@pytest.mark.parametrize("given", ["short", "x" * 129, "with space", "semi;colon", 'quo"te1234', "ümlaut-12345"])
def test_malformed_request_id_is_replaced(acme: Visitor, given: str) -> None:
    answer = acme.get("/api/v1/me", headers={"X-Request-ID": given})

    assert answer.headers["X-Request-ID"] != given
    assert len(answer.headers["X-Request-ID"]) == 32


def test_refusals_carry_a_request_id_too(acme: Visitor) -> None:
    assert len(acme.client.get("/api/v1/nothing/here").headers["X-Request-ID"]) == 32


def test_nobody_is_left_as_acting_after_a_request(app: Flask, acme: Visitor) -> None:
    acme.get("/api/v1/me")

    assert current_actor() is None
    assert current_request_id() is None


# Reading ----------------------------------------------------------------------------------------------


def test_tenant_reads_its_own_audit_and_no_other(acme: Visitor, globex: Visitor) -> None:
    """T118"""
    mine, theirs = entries(acme), entries(globex)

    assert mine
    assert theirs
    assert {entry["id"] for entry in mine}.isdisjoint(entry["id"] for entry in theirs)


def test_member_without_the_permission_reads_nothing(acme: Visitor) -> None:
    member, admin = join(acme), join(acme, "admin")

    for path in ("", "/verify", "/export"):
        assert codes(member.get(AUDIT + path)) == (403, "forbidden")
        assert admin.get(AUDIT + path).status_code == 200


def test_filters_keep_what_matches_all_of_them(acme: Visitor) -> None:
    admin = join(acme, "admin")
    member = next(e for e in entries(acme, action="member.joined"))

    assert actions(acme, action="member.joined") == ["member.joined"]
    assert {str(action).partition(".")[0] for action in actions(acme, action="invitation.")} <= {"invitation"}
    assert set(actions(acme, actor=admin.email)) == {"member.joined", "member.signed_in"}
    assert "member.joined" in actions(acme, target_id=str(member["target_id"]))
    assert actions(acme, target_kind="member", action="member.invited") == []
    assert actions(acme, since=(datetime.now(UTC) + timedelta(hours=1)).isoformat()) == []
    assert actions(acme, until=(datetime.now(UTC) - timedelta(hours=1)).isoformat()) == []
    assert actions(acme, since=(datetime.now(UTC) - timedelta(hours=1)).isoformat(), action="member.joined")


def test_filter_without_a_zone_is_refused(acme: Visitor) -> None:
    assert fields(acme.get(AUDIT, query_string={"since": "2026-01-01T00:00:00"})) == ["query.since"]


def test_list_is_paged(acme: Visitor) -> None:
    join(acme)
    whole = [entry["id"] for entry in entries(acme)]

    first = acme.get(AUDIT, query_string={"limit": 2}).get_json()
    second = acme.get(AUDIT, query_string={"limit": 200, "cursor": first["next_cursor"]}).get_json()

    assert [entry["id"] for entry in first["items"] + second["items"]] == whole


def test_chain_of_a_tenant_is_checked_over_http(acme: Visitor, intruder: Truth) -> None:
    assert acme.get(f"{AUDIT}/verify").get_json()["is_intact"] is True

    intruder.execute("UPDATE audit_entries SET actor_label = 'nobody' WHERE tenant_id = %s", [acme.tenant_id])

    found = acme.get(f"{AUDIT}/verify").get_json()
    assert found["is_intact"] is False
    assert found["fault"]["number"] == 1


def test_staff_read_and_check_the_audit_of_a_tenant_and_of_the_platform(app: Flask, acme: Visitor) -> None:
    staffer = staff_client(app, StaffRole.READ_ONLY)

    items = staffer.get(f"/tenants/{acme.tenant_id}/audit").get_json()["items"]

    assert acme.email in {entry["actor_label"] for entry in items}
    assert staffer.get(f"/tenants/{acme.tenant_id}/audit/verify").get_json()["is_intact"] is True
    assert staffer.get("/audit").status_code == 200
    assert staffer.get("/audit/verify").get_json()["number"] >= 0
    assert codes(staffer.get(f"/tenants/{uuid7()}/audit")) == (404, "not_found")


def test_key_without_the_scope_reads_no_audit(app: Flask, acme: Visitor) -> None:
    program = key_client(app, StaffPermission.TENANTS_READ)

    assert codes(program.get(f"/tenants/{acme.tenant_id}/audit")) == (403, "forbidden")
    assert codes(program.get("/audit")) == (403, "forbidden")


# Exports ----------------------------------------------------------------------------------------------


def exported(visitor: Visitor) -> list[str]:
    answer = visitor.get(f"{AUDIT}/export")
    assert answer.mimetype == "application/x-ndjson"
    return answer.get_data(as_text=True).splitlines(keepends=True)


def test_export_is_checked_without_the_database(acme: Visitor) -> None:
    join(acme)
    here = acme.get(f"{AUDIT}/verify").get_json()

    verdict = verify_export(exported(acme))

    assert verdict.is_intact
    assert verdict.number == here["number"] + 1  # the export is an entry itself


def test_changed_line_of_an_export_is_named(acme: Visitor) -> None:
    join(acme)
    lines = exported(acme)

    changed = [lines[0], lines[1].replace(acme.email, "x" * len(acme.email)), *lines[2:]]
    shuffled = [lines[1], lines[0], *lines[2:]]
    shortened = [*lines[:-2], lines[-1]]

    if changed != lines:
        assert verify_export(changed).fault is not None
    assert verify_export(shuffled).fault is not None
    found = verify_export(shortened).fault
    assert found is not None
    assert found.what == "the entry is missing"


def test_export_that_was_cut_off_is_no_export(acme: Visitor) -> None:
    lines = exported(acme)

    with pytest.raises(ExportError, match="cut off"):
        verify_export(lines[:-1])
    with pytest.raises(ExportError, match="line 1"):
        verify_export(["nothing\n"])
    with pytest.raises(ExportError, match="after the head"):
        verify_export([*lines, lines[0]])


def test_csv_holds_no_formula(acme: Visitor, desk: Desk) -> None:
    """T115"""
    evil = ["=1+1", "+1", "-1", "@x", "\tx", "＝1"]
    for reason in evil:
        with acting_as(ANA), tenant_scope(acme.tenant_id), desk.database.sessions.begin() as session:
            record(session, "thing.done", reason=reason)

    answer = acme.get(f"{AUDIT}/export", query_string={"format": "csv", "action": "thing.done"})

    rows = list(csv.DictReader(io.StringIO(answer.get_data(as_text=True))))
    assert answer.mimetype == "text/csv"
    assert sorted(row["reason"] for row in rows) == sorted(f"'{reason}" for reason in evil)


def test_filtered_chain_is_refused_because_nobody_could_check_it(acme: Visitor) -> None:
    answer = acme.get(f"{AUDIT}/export", query_string={"action": "member.joined"})

    assert fields(answer) == ["query.format"]


# Secrets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["password", "new_password", "token", "refreshToken", "token_hash", "api_key", "apiKey", "smtp.password", "secret"],
)
def test_name_of_a_secret_is_recognised(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["security.password_policy", "token_ttl_s", "key", "monkey", "passenger", "hashed_at", "secretary", "", "."]
)
def test_name_of_no_secret_is_kept(name: str) -> None:
    assert not is_secret_name(name)


def test_secrets_are_taken_out_at_any_depth_and_the_rest_becomes_json() -> None:
    some = UUID(int=7)

    found = redacted(
        {"a": {"password": "x", "n": 1}, "l": [{"api_key": "k"}], "b": b"x", "id": some, "on": date(2026, 1, 2),
         "role": Role.OWNER, "token": None}
    )  # fmt: skip

    assert found == {
        "a": {"password": "[redacted]", "n": 1},
        "l": [{"api_key": "[redacted]"}],
        "b": "[redacted]",
        "id": "00000000-0000-0000-0000-000000000007",
        "on": "2026-01-02",
        "role": "owner",
        "token": None,
    }


def test_marked_column_says_only_that_it_changed() -> None:
    account = Account(id=uuid7(), email="a@b.test", password_hash="x")
    column = Account.__table__.c.email
    column.info["secret"] = True
    try:
        _, after = changes_of(account)
    finally:
        del column.info["secret"]

    assert after["email"] == "[redacted]"
    assert after["password_hash"] == "[redacted]"
    assert after["id"] == str(account.id)


def test_nothing_is_recorded_while_nobody_acts(acme: Visitor, desk: Desk) -> None:
    with (
        tenant_scope(acme.tenant_id),
        desk.database.sessions() as session,
        pytest.raises(RuntimeError, match="nobody is named"),
    ):
        record(session, "thing.done")


# Retention --------------------------------------------------------------------------------------------


def age(intruder: Truth, tenant: UUID, *, first: int, days: int) -> None:
    """Make the first links older, with hashes that fit: as if they had been written then."""
    intruder.execute(
        "UPDATE audit_links SET at = at - make_interval(days => %s) WHERE tenant_id = %s AND number <= %s",
        [days, tenant, first],
    )
    intruder.execute(
        f"""DO $$ DECLARE l audit_links; previous bytea; BEGIN
        FOR l IN SELECT * FROM audit_links WHERE tenant_id = '{tenant}' ORDER BY number LOOP
          l.previous_hash := coalesce(previous, l.previous_hash);
          SELECT sha256(l.previous_hash || convert_to(l.number || ' ' ||
            to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || ' ' || audit_text(e), 'UTF8'))
          INTO l.hash FROM audit_entries e WHERE e.tenant_id = l.tenant_id AND e.id = l.id;
          UPDATE audit_links SET previous_hash = l.previous_hash, hash = l.hash
          WHERE tenant_id = l.tenant_id AND id = l.id;
          previous := l.hash;
        END LOOP;
        UPDATE audit_heads SET hash = previous WHERE tenant_id = '{tenant}'; END $$"""
    )


@pytest.fixture
def old(desk: Desk, intruder: Truth) -> UUID:
    """A tenant with five entries, the first three of them forty days old."""
    tenant: UUID = uuid7()
    for number in range(5):
        with acting_as(ANA), tenant_scope(tenant), desk.database.sessions.begin() as session:
            record(session, "thing.done", after={"n": number})
    age(intruder, tenant, first=3, days=40)
    return tenant


def pruned(desk: Desk, tenant: UUID, keep_days: int = 30) -> int:
    with (
        acting_as(ANA),
        platform_scope(actor="ana", reason="retention"),
        tenant_scope(tenant),
        desk.database.staff_sessions.begin() as session,
    ):
        return prune(session, keep_days=keep_days)


def test_old_entries_go_and_the_chain_stays_checkable(desk: Desk, old: UUID, truth: Truth) -> None:
    assert pruned(desk, old) == 3

    with tenant_scope(old), desk.database.sessions() as session:
        verdict = verify(session)
    left = truth.execute("SELECT action FROM audit_entries WHERE tenant_id = %s ORDER BY at", [old]).fetchall()
    assert (verdict.is_intact, verdict.pruned, verdict.checked, verdict.number) == (True, 3, 3, 6)
    assert left == [("thing.done",), ("thing.done",), ("audit.pruned",)]
    assert pruned(desk, old) == 0


def test_entries_within_the_time_stay(desk: Desk, old: UUID) -> None:
    assert pruned(desk, old, keep_days=60) == 0


def test_nothing_younger_than_thirty_days_is_forgotten(desk: Desk, old: UUID) -> None:
    with pytest.raises(ValueError, match="30 days"):
        pruned(desk, old, keep_days=29)


def test_database_refuses_to_forget_the_young(desk: Desk, old: UUID) -> None:
    """As staff, past `prune`: the beginning of a chain moves to what is old enough, whatever the program says."""
    forget = "UPDATE audit_heads h SET (pruned_number, pruned_hash) = (SELECT number, hash FROM audit_links WHERE "

    for which, what in (("number = 4", "young"), ("number = 3", "old enough")):
        with platform_scope(actor="ana", reason="test"), tenant_scope(old), desk.database.staff_sessions() as session:
            if what == "young":
                with pytest.raises(Exception, match="append-only"):
                    session.execute(text(f"{forget}{which})"))
            else:
                session.execute(text(f"{forget}{which})"))


def test_staff_may_not_delete_what_is_not_pruned(desk: Desk, old: UUID) -> None:
    with (
        platform_scope(actor="ana", reason="test"),
        tenant_scope(old),
        desk.database.staff_sessions() as session,
        pytest.raises(Exception, match="append-only"),
    ):
        session.execute(text("DELETE FROM audit_entries"))


def test_audit_of_a_tenant_that_is_being_erased_goes_with_it(acme: Visitor, desk: Desk, truth: Truth) -> None:
    tables = ("audit_entries", "audit_links", "audit_heads")
    assert all(truth.execute(f"SELECT FROM {t} WHERE tenant_id = %s", [acme.tenant_id]).rowcount for t in tables)
    truth.execute("UPDATE tenants SET status = 'deleting' WHERE tenant_id = %s", [acme.tenant_id])

    with (
        platform_scope(actor="ana", reason="erasure"),
        tenant_scope(acme.tenant_id),
        desk.database.staff_sessions.begin() as session,
    ):
        for table in tables:
            session.execute(text(f"DELETE FROM {table}"))

    assert not any(truth.execute(f"SELECT FROM {t} WHERE tenant_id = %s", [acme.tenant_id]).rowcount for t in tables)
