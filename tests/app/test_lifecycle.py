"""The life of a tenant: which state may follow which, who wins, and what is left as a trace."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from app.config import Settings
from app.errors import InvalidInputError, ProblemError, RowNotFoundError
from app.tenants.operations import (
    archive,
    cancel_deletion,
    change_slug,
    change_status,
    resume,
    schedule_deletion,
    suspend,
)
from app.tenants.provisioning import create_tenant
from app.tenants.registrar import Hooks, Registrar
from app.tenants.states import TRANSITIONS, InvalidTransitionError, Status, allowed_from, check_transition
from tenancy.tables import new_id
from tests.app.conftest import PASSWORD, Truth, Visitor, codes
from tests.app.lives import WHY, as_staff, new_slug, ready_tenant, registrar_of, within_a_second


@pytest.fixture
def registrar(app: Flask) -> Registrar:
    return registrar_of(app)


def status_of(truth: Truth, tenant_id: UUID) -> str:
    row = truth.execute("SELECT status FROM tenants WHERE tenant_id = %s", [tenant_id]).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("to", Status)
def test_what_is_not_in_the_table_is_refused_and_names_what_is(status: Status, to: Status) -> None:
    if to in TRANSITIONS[status]:
        check_transition(status, to)
        return

    with pytest.raises(InvalidTransitionError) as refused:
        check_transition(status, to)

    assert refused.value.members == {"status": status, "allowed": [one.value for one in TRANSITIONS[status]]}
    assert (refused.value.code, refused.value.kind) == (409, "invalid_transition")


def test_nobody_decides_that_a_tenant_is_deleted() -> None:
    assert [status for status, after in TRANSITIONS.items() if Status.DELETED in after] == []
    assert allowed_from(Status.DELETING, former=Status.SUSPENDED) == (Status.SUSPENDED,)


def test_each_change_is_in_the_history_and_the_audit_with_its_reason(registrar: Registrar, truth: Truth) -> None:
    tenant = ready_tenant(registrar)

    with as_staff():
        suspend(registrar, tenant.id, reason="unpaid since June")
        resume(registrar, tenant.id, reason="paid")
        archive(registrar, tenant.id, reason="closed its doors")

    history = truth.execute(
        "SELECT from_status, to_status, reason, actor_kind, actor_label FROM tenant_transitions"
        " WHERE tenant_id = %s ORDER BY at, id",
        [tenant.id],
    ).fetchall()
    audit = truth.execute(
        "SELECT before, after, reason FROM audit_entries WHERE tenant_id = %s AND action = 'tenant.status_changed'"
        " ORDER BY at, id",
        [tenant.id],
    ).fetchall()
    assert status_of(truth, tenant.id) == "archived"
    assert history == [
        (None, "pending", WHY, "staff", "ana@platform.test"),
        ("pending", "active", WHY, "staff", "ana@platform.test"),
        ("active", "suspended", "unpaid since June", "staff", "ana@platform.test"),
        ("suspended", "active", "paid", "staff", "ana@platform.test"),
        ("active", "archived", "closed its doors", "staff", "ana@platform.test"),
    ]
    assert audit[1:] == [
        ({"status": "active"}, {"status": "suspended"}, "unpaid since June"),
        ({"status": "suspended"}, {"status": "active"}, "paid"),
        ({"status": "active"}, {"status": "archived"}, "closed its doors"),
    ]


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_change_without_a_reason_is_refused(registrar: Registrar, truth: Truth, reason: str) -> None:
    tenant = ready_tenant(registrar)

    with as_staff(), pytest.raises(InvalidInputError):
        suspend(registrar, tenant.id, reason=reason)

    assert status_of(truth, tenant.id) == "active"


def test_change_by_nobody_is_refused(registrar: Registrar, truth: Truth) -> None:
    tenant = ready_tenant(registrar)

    with pytest.raises(RuntimeError, match="nobody is named"):
        suspend(registrar, tenant.id, reason=WHY)

    assert status_of(truth, tenant.id) == "active"


def test_unknown_tenant_is_not_found(registrar: Registrar) -> None:
    with as_staff(), pytest.raises(RowNotFoundError):
        suspend(registrar, new_id(), reason=WHY)


def test_of_two_changes_at_once_one_wins(registrar: Registrar, truth: Truth) -> None:
    tenant = ready_tenant(registrar)
    together = threading.Barrier(4)
    answers: list[str] = []

    def try_it() -> None:
        with as_staff():
            together.wait()
            try:
                suspend(registrar, tenant.id, reason=WHY)
                answers.append("won")
            except InvalidTransitionError as error:
                answers.append(error.kind)

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    suspensions = truth.execute(
        "SELECT count(*) FROM tenant_transitions WHERE tenant_id = %s AND to_status = 'suspended'", [tenant.id]
    ).fetchone()
    assert sorted(answers) == ["invalid_transition"] * 3 + ["won"]
    assert suspensions == (1,)


def test_pending_tenant_opens_once_its_steps_are_done_only(registrar: Registrar, truth: Truth) -> None:
    with as_staff():
        tenant = create_tenant(registrar, name="Initech", plan="basic", slug=new_slug(), reason=WHY)

        with pytest.raises(InvalidTransitionError, match="provision it first"):
            change_status(registrar, tenant.id, Status.ACTIVE, reason=WHY)

    assert status_of(truth, tenant.id) == "pending"


def test_listener_takes_part_in_the_transaction(registrar: Registrar, truth: Truth) -> None:
    heard: list[tuple[UUID, str]] = []
    tenant = ready_tenant(registrar)
    hooks = Hooks(listeners=(lambda _session, tenant_id, to: heard.append((tenant_id, to)),))

    with as_staff():
        suspend(replace(registrar, hooks=hooks), tenant.id, reason=WHY)

    assert heard == [(tenant.id, "suspended")]


def test_listener_that_fails_undoes_the_change(registrar: Registrar, truth: Truth) -> None:
    def fail(_session: Session, _tenant_id: UUID, _to: str) -> None:
        raise OSError("the queue is down")

    tenant = ready_tenant(registrar)

    with as_staff(), pytest.raises(OSError, match="queue is down"):
        suspend(replace(registrar, hooks=Hooks(listeners=(fail,))), tenant.id, reason=WHY)

    assert status_of(truth, tenant.id) == "active"


# Deletion, and undoing it -----------------------------------------------------------------------------


@pytest.mark.parametrize("former", [Status.ACTIVE, Status.SUSPENDED, Status.ARCHIVED])
def test_scheduled_deletion_closes_at_once_and_is_undone_to_the_former_state(
    registrar: Registrar, truth: Truth, former: Status
) -> None:
    tenant = ready_tenant(registrar)
    with as_staff():
        if former is not Status.ACTIVE:
            change_status(registrar, tenant.id, former, reason=WHY)

        schedule_deletion(registrar, tenant.id, reason="asked by the customer")
        closed = status_of(truth, tenant.id)
        cancel_deletion(registrar, tenant.id, reason="asked by mistake")

    row = truth.execute(
        "SELECT status, former_status, erase_after FROM tenants WHERE tenant_id = %s", [tenant.id]
    ).fetchone()
    assert closed == "deleting"
    assert row == (former.value, None, None)


def test_deletion_goes_back_to_the_former_state_only(registrar: Registrar, truth: Truth) -> None:
    tenant = ready_tenant(registrar)
    with as_staff():
        suspend(registrar, tenant.id, reason=WHY)
        change_status(registrar, tenant.id, Status.DELETING, reason=WHY)

        with pytest.raises(InvalidTransitionError) as refused:
            resume(registrar, tenant.id, reason=WHY)

    assert refused.value.members["allowed"] == ["suspended"]
    assert status_of(truth, tenant.id) == "deleting"


def test_there_is_nothing_to_cancel_without_a_deletion(registrar: Registrar) -> None:
    tenant = ready_tenant(registrar)

    with as_staff(), pytest.raises(InvalidTransitionError, match="None is scheduled"):
        cancel_deletion(registrar, tenant.id, reason=WHY)


def test_grace_is_what_the_setting_says(make_app: Callable[..., Flask], truth: Truth) -> None:
    registrar = registrar_of(make_app(deletion_grace_days=3))
    tenant = ready_tenant(registrar)

    with as_staff():
        schedule_deletion(registrar, tenant.id, reason=WHY)

    row = truth.execute(
        "SELECT erase_after > now() + interval '71 hours' AND erase_after <= now() + interval '72 hours'"
        " FROM tenants WHERE tenant_id = %s",
        [tenant.id],
    ).fetchone()
    assert row == (True,)


def test_grace_of_ones_own_may_not_be_negative(registrar: Registrar, truth: Truth) -> None:
    tenant = ready_tenant(registrar)

    with as_staff(), pytest.raises(InvalidInputError):
        schedule_deletion(registrar, tenant.id, reason=WHY, grace=timedelta(seconds=-1))

    assert status_of(truth, tenant.id) == "active"


# Slugs ------------------------------------------------------------------------------------------------


def test_old_slug_leads_nowhere_and_is_nobody_elses(registrar: Registrar, acme: Visitor) -> None:
    wanted = new_slug("acme")
    with as_staff():
        change_slug(registrar, acme.tenant_id, wanted, reason="renamed")

        with pytest.raises(ProblemError) as refused:
            create_tenant(registrar, name="Thief", plan="basic", slug=acme.slug, reason=WHY)

    assert refused.value.kind == "taken"
    assert within_a_second(lambda: people_at(acme, wanted) == 200)
    assert people_at(acme, acme.slug) == 404


def people_at(visitor: Visitor, slug: str) -> int:
    """The status that a member gets there, signed in anew: a token names the slug it was made for."""
    host = f"http://{slug}.localhost"
    answer = visitor.client.post(
        "/api/v1/auth/login", json={"email": visitor.email, "password": PASSWORD}, base_url=host
    )
    if answer.status_code != 200:
        return answer.status_code
    headers = {"Authorization": f"Bearer {answer.get_json()['access_token']}"}
    return visitor.client.get("/api/v1/people", base_url=host, headers=headers).status_code


def test_tenant_may_have_its_own_old_slug_back(registrar: Registrar, truth: Truth) -> None:
    tenant = ready_tenant(registrar)

    with as_staff():
        change_slug(registrar, tenant.id, new_slug(), reason=WHY)
        change_slug(registrar, tenant.id, tenant.slug, reason="back again")

    assert truth.execute("SELECT slug FROM tenants WHERE tenant_id = %s", [tenant.id]).fetchone() == (tenant.slug,)


def test_slug_in_use_cannot_be_had(registrar: Registrar, acme: Visitor, globex: Visitor, truth: Truth) -> None:
    with as_staff(), pytest.raises(ProblemError) as refused:
        change_slug(registrar, acme.tenant_id, globex.slug, reason=WHY)

    assert refused.value.kind == "taken"
    assert truth.execute("SELECT slug FROM tenants WHERE tenant_id = %s", [acme.tenant_id]).fetchone() == (acme.slug,)


def test_app_role_writes_neither_history_nor_steps_nor_domains(app: Flask, settings_url: str) -> None:
    import psycopg

    url = make_url(settings_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT t, p FROM unnest(ARRAY['tenant_transitions', 'provisioning_steps', 'domains']) t,"
            " unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) p WHERE has_table_privilege(t, p)"
        ).fetchall()
        readable = connection.execute("SELECT has_table_privilege('domains', 'SELECT')").fetchone()

    assert found == []
    assert readable == (True,)


@pytest.fixture
def settings_url(make_settings: Callable[..., Settings]) -> str:
    return make_settings().database_url.get_secret_value()


def test_suspended_members_are_told_and_strangers_are_not(registrar: Registrar, acme: Visitor, globex: Visitor) -> None:
    """T111, T112"""
    host = f"http://{acme.slug}.localhost"
    assert acme.get("/api/v1/me", base_url=host).status_code == 200

    with as_staff():
        suspend(registrar, acme.tenant_id, reason=WHY)

    assert within_a_second(lambda: acme.get("/api/v1/me", base_url=host).status_code == 403)
    assert codes(acme.get("/api/v1/me", base_url=host)) == (403, "tenant_suspended")
    assert acme.client.get("/api/v1/me", base_url=host).status_code == 404
    with as_staff():
        resume(registrar, acme.tenant_id, reason=WHY)
    assert within_a_second(lambda: acme.get("/api/v1/me", base_url=host).status_code == 200)
