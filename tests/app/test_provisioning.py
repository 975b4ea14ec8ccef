"""Provisioning: steps that are seen, that go on after a crash, and that never happen twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from app.audit.actors import Actor, ActorKind, acting_as
from app.errors import InvalidInputError, ProblemError
from app.tenants.operations import suspend
from app.tenants.provisioning import create_tenant, make_tenant, provision
from app.tenants.registrar import Hooks, Registrar
from app.tenants.states import InvalidTransitionError
from app.tenants.steps import STEPS, Progress, Step
from tenancy.directory import TenantRecord
from tenancy.tables import new_id
from tests.app.conftest import Truth
from tests.app.lives import WHY, KilledError, as_staff, killed_after, new_slug, registrar_of

NAMES = ["record", "defaults", "owner", "domain", "seed"]


@pytest.fixture
def registrar(app: Flask) -> Registrar:
    """One whose hooks leave a row each, so that a step that ran twice is seen."""

    def leave(word: str) -> Any:
        def fill(session: Session, _given: Mapping[str, Any]) -> None:
            session.execute(
                text("INSERT INTO companies (tenant_id, id, name) VALUES (:t, uuidv7(), :w)"),
                {"t": session.tenant_id, "w": word},  # type: ignore[attr-defined]
            )

        return fill

    hooks = Hooks(
        defaults=(leave("defaults"),),
        seeds=(leave("seed"),),
        invite_owner=lambda session, email: leave(f"owner {email}")(session, {}),
    )
    return replace(registrar_of(app), hooks=hooks)


def new_tenant(registrar: Registrar, **given: Any) -> TenantRecord:
    wanted = {"name": "Initech", "plan": "basic", "slug": new_slug(), "reason": WHY} | given
    return create_tenant(registrar, **wanted)


def whole(registrar: Registrar) -> TenantRecord:
    slug = new_slug()
    return new_tenant(registrar, slug=slug, owner_email="Olivia@Initech.Test", domain=f"crm.{slug}.example")


def left(truth: Truth, tenant_id: UUID) -> dict[str, Any]:
    """Everything that the steps leave behind."""

    def rows(sql: str) -> list[Any]:
        return [row[0] for row in truth.execute(sql, [tenant_id]).fetchall()]

    return {
        "status": rows("SELECT status FROM tenants WHERE tenant_id = %s"),
        "marks": rows("SELECT name FROM companies WHERE tenant_id = %s ORDER BY name"),
        "domains": len(rows("SELECT domain FROM domains WHERE tenant_id = %s")),
        "steps": sorted(rows("SELECT step || ' ' || state FROM provisioning_steps WHERE tenant_id = %s")),
        "history": rows("SELECT to_status FROM tenant_transitions WHERE tenant_id = %s ORDER BY at, id"),
    }


WHOLE = {
    "status": ["active"],
    "marks": ["defaults", "owner olivia@initech.test", "seed"],
    "domains": 1,
    "steps": ["defaults done", "domain done", "owner done", "record done", "seed done"],
    "history": ["pending", "active"],
}


def crashing(name: str, *, with_error: BaseException) -> tuple[Step, ...]:
    """The steps, one of which does its work and then fails."""

    def fail_after(step: Step) -> Step:
        def run(registrar: Registrar, session: Session, given: Mapping[str, Any]) -> None:
            step.run(registrar, session, given)
            session.flush()
            raise with_error

        return Step(step.name, run)

    return tuple(fail_after(step) if step.name == name else step for step in STEPS)


def test_created_tenant_is_closed_and_shows_what_is_to_be_done(registrar: Registrar, truth: Truth) -> None:
    with as_staff():
        tenant = whole(registrar)

    assert left(truth, tenant.id) == {
        "status": ["pending"],
        "marks": [],
        "domains": 0,
        "steps": ["defaults waiting", "domain waiting", "owner waiting", "record done", "seed waiting"],
        "history": ["pending"],
    }


def test_provisioned_tenant_has_everything_once_and_is_open(registrar: Registrar, truth: Truth) -> None:
    with as_staff():
        tenant = whole(registrar)
        steps = provision(registrar, tenant.id, reason=WHY)

    assert [(step.step, step.state, step.attempts, step.error) for step in steps] == [
        (name, "done", 1, None) for name in NAMES
    ]
    assert all(step.finished_at for step in steps)
    assert left(truth, tenant.id) == WHOLE


@pytest.mark.parametrize("name", NAMES[1:])
def test_step_that_fails_says_why_and_goes_on_without_doubles(registrar: Registrar, truth: Truth, name: str) -> None:
    with as_staff():
        tenant = whole(registrar)

        failed = provision(registrar, tenant.id, reason=WHY, steps=crashing(name, with_error=ValueError("secret")))
        between = left(truth, tenant.id)
        provision(registrar, tenant.id, reason=WHY)

    assert by_name(failed)[name].state == "failed"
    assert by_name(failed)[name].error == "ValueError"
    assert [step.state for step in failed[: NAMES.index(name)]] == ["done"] * NAMES.index(name)
    assert between["status"] == ["pending"]
    assert left(truth, tenant.id) == WHOLE


@pytest.mark.parametrize("name", NAMES[1:])
def test_program_killed_in_a_step_goes_on_without_doubles(registrar: Registrar, truth: Truth, name: str) -> None:
    with as_staff():
        tenant = whole(registrar)
        with pytest.raises(KilledError):
            provision(registrar, tenant.id, reason=WHY, steps=crashing(name, with_error=KilledError()))

        provision(registrar, tenant.id, reason=WHY)

    assert left(truth, tenant.id) == WHOLE


def test_program_killed_after_each_commit_goes_on_without_doubles(registrar: Registrar, truth: Truth) -> None:
    wanted: dict[str, Any] = {"tenant_id": new_id(), "slug": new_slug(), "owner_email": "olivia@initech.test"}
    wanted["domain"] = f"crm.{wanted['slug']}.example"
    with as_staff():
        for commits in (1, 2):
            with pytest.raises(KilledError), killed_after(commits):
                make(registrar, wanted)

        make(registrar, wanted)

    assert left(truth, wanted["tenant_id"]) == WHOLE


def make(registrar: Registrar, wanted: Mapping[str, Any]) -> None:
    """The two calls that make a ready tenant, as a program does that begins again after a crash."""
    provision(registrar, new_tenant(registrar, **wanted).id, reason=WHY)


def test_made_tenant_has_everything_once_and_is_open(registrar: Registrar, truth: Truth) -> None:
    slug = new_slug()

    with as_staff():
        tenant, steps = made(registrar, slug=slug)

    assert tenant.status == "active"
    assert [(step.step, step.state, step.attempts) for step in steps] == [(name, "done", 1) for name in NAMES]
    assert all(step.finished_at for step in steps)
    assert left(truth, tenant.id) == WHOLE


@pytest.mark.parametrize("name", NAMES[1:])
def test_step_that_fails_while_a_tenant_is_made_says_why_and_goes_on(
    registrar: Registrar, truth: Truth, name: str
) -> None:
    slug, own = new_slug(), new_id()

    with as_staff():
        failing = crashing(name, with_error=ValueError("secret"))
        _, failed = made(registrar, slug=slug, tenant_id=own, steps=failing)
        between = left(truth, own)
        _, done = made(registrar, slug=slug, tenant_id=own)

    assert by_name(failed)[name].error == "ValueError"
    assert [step.state for step in failed[: NAMES.index(name)]] == ["done"] * NAMES.index(name)
    assert between["status"] == ["pending"]
    assert {step.state for step in done} == {"done"}
    assert left(truth, own) == WHOLE


@pytest.mark.parametrize("name", NAMES[1:])
def test_program_killed_while_it_makes_a_tenant_goes_on_without_doubles(
    registrar: Registrar, truth: Truth, name: str
) -> None:
    slug, own = new_slug(), new_id()
    with as_staff():
        with pytest.raises(KilledError):
            made(registrar, slug=slug, tenant_id=own, steps=crashing(name, with_error=KilledError()))
        with pytest.raises(KilledError), killed_after(1):
            made(registrar, slug=slug, tenant_id=own)

        made(registrar, slug=slug, tenant_id=own)

    assert left(truth, own) == WHOLE


def test_tenant_made_by_many_at_once_is_one(registrar: Registrar, truth: Truth) -> None:
    slug, own, together = new_slug(), new_id(), threading.Barrier(4)
    found: list[str] = []

    def try_it() -> None:
        with as_staff():
            together.wait()
            found.extend(step.state for step in made(registrar, slug=slug, tenant_id=own)[1])

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == ["done"] * 20
    assert left(truth, own) == WHOLE


def test_made_tenant_whose_slug_is_in_use_is_refused(registrar: Registrar, truth: Truth) -> None:
    """T109"""
    slug, own = new_slug(), new_id()
    with as_staff():
        made(registrar, slug=slug)

        with pytest.raises(ProblemError) as refused:
            make_tenant(registrar, name="Other", plan="basic", slug=slug, tenant_id=own, reason=WHY)

    assert refused.value.kind == "taken"
    assert left(truth, own)["steps"] == []


def made(registrar: Registrar, *, slug: str, **given: Any) -> tuple[TenantRecord, Any]:
    """A tenant made by the one call that creates it and takes its steps."""
    wanted: dict[str, Any] = {"owner_email": "Olivia@Initech.Test", "domain": f"crm.{slug}.example"}
    return make_tenant(registrar, name="Initech", plan="basic", slug=slug, reason=WHY, **wanted, **given)


def by_name(steps: Any) -> dict[str, Progress]:
    return {step.step: step for step in steps}


def test_many_at_once_do_each_step_once(registrar: Registrar, truth: Truth) -> None:
    with as_staff():
        tenant = whole(registrar)
    together = threading.Barrier(4)

    def try_it() -> None:
        with as_staff():
            together.wait()
            provision(registrar, tenant.id, reason=WHY)

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert left(truth, tenant.id) == WHOLE


def test_ready_tenant_is_provisioned_no_more(registrar: Registrar, truth: Truth) -> None:
    with as_staff():
        tenant = whole(registrar)
        provision(registrar, tenant.id, reason=WHY)

        again = provision(registrar, tenant.id, reason=WHY)
        suspend(registrar, tenant.id, reason=WHY)
        with pytest.raises(InvalidTransitionError):
            provision(registrar, tenant.id, reason=WHY)

    assert [step.attempts for step in again] == [1, 1, 1, 1, 1]


def test_same_call_with_an_id_of_ones_own_makes_one_tenant(registrar: Registrar, truth: Truth) -> None:
    slug, own = new_slug(), new_id()

    with as_staff():
        first = new_tenant(registrar, slug=slug, tenant_id=own)
        second = new_tenant(registrar, slug=slug, tenant_id=own)

    assert first == second
    assert truth.execute("SELECT count(*) FROM tenants WHERE slug = %s", [slug]).fetchone() == (1,)


def test_owner_waits_where_nobody_can_be_invited(registrar: Registrar, truth: Truth) -> None:
    closed = replace(registrar, hooks=Hooks())
    with as_staff():
        tenant = new_tenant(closed, owner_email="olivia@initech.test")

        steps = provision(closed, tenant.id, reason=WHY)

    assert by_name(steps)["owner"].error == "Nobody can be invited here: no way to invite is set up."
    assert left(truth, tenant.id)["status"] == ["pending"]


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("slug", {"slug": "асме"}),
        ("slug", {"slug": "x" * 64}),
        ("slug", {"slug": "xn--acme"}),
        ("slug", {"slug": "acme\n"}),
        ("slug", {"slug": "admin"}),
        ("slug", {"slug": "support"}),
        ("slug", {"slug": "12345"}),
        ("owner_email", {"owner_email": "nobody"}),
        ("domain", {"domain": "localhost"}),
    ],
)
def test_unusable_value_is_named_and_nothing_is_made(
    registrar: Registrar, truth: Truth, field: str, given: dict[str, str]
) -> None:
    """T109"""
    before = truth.execute("SELECT count(*) FROM tenants").fetchone()

    with as_staff(), pytest.raises(InvalidInputError) as refused:
        new_tenant(registrar, **given)

    assert [error.field for error in refused.value.errors] == [field]
    assert truth.execute("SELECT count(*) FROM tenants").fetchone() == before


def test_slug_in_use_is_refused_also_in_another_case(registrar: Registrar) -> None:
    """T109"""
    slug = new_slug()
    with as_staff():
        new_tenant(registrar, slug=slug)

        with pytest.raises(ProblemError) as refused:
            new_tenant(registrar, slug=slug.upper())

    assert (refused.value.code, refused.value.kind) == (409, "taken")


Count = Callable[[Callable[[], object]], tuple[list[str], int]]


@pytest.fixture
def count(app: Flask) -> Count:
    """Run something once to open what is opened once, then again; give the second time's statements and commits.

    What the audit says is not among them: it goes with the COMMIT.
    """
    engine, statements, commits = registrar_of(app).database.platform_engine, list[str](), list[object]()

    def note_statement(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    def note_commit(connection: object) -> None:
        commits.append(connection)

    def run(call: Callable[[], object]) -> tuple[list[str], int]:
        with app.app_context(), as_staff():
            call()
            event.listen(engine, "before_cursor_execute", note_statement)
            event.listen(engine, "commit", note_commit)
            try:
                call()
            finally:
                event.remove(engine, "before_cursor_execute", note_statement)
                event.remove(engine, "commit", note_commit)
        return statements, len(commits)

    return run


def test_making_a_tenant_with_an_owner_takes_7_statements_in_one_transaction(app: Flask, count: Count) -> None:
    def make_one() -> None:
        given: Any = {"slug": new_slug(), "owner_email": "olivia@initech.test", "reason": WHY}
        make_tenant(registrar_of(app), name="Initech", plan="basic", **given)

    statements, commits = count(make_one)

    assert (len(statements), commits) == (7, 1), "\n".join(statements)


def test_creating_and_provisioning_apart_takes_11_statements_in_two_transactions(app: Flask, count: Count) -> None:
    registrar = registrar_of(app)

    statements, commits = count(
        lambda: provision(registrar, new_tenant(registrar, owner_email="olivia@initech.test").id, reason=WHY)
    )

    assert (len(statements), commits) == (11, 2), "\n".join(statements)


def test_work_for_one_reason_is_one_entry_in_the_platforms_log(app: Flask, truth: Truth) -> None:
    registrar, why, other = registrar_of(app), f"because of {new_id()}", f"because of {new_id()}"

    def entries(reason: str) -> Any:
        return truth.execute("SELECT count(*) FROM tenancy.platform_session WHERE reason = %s", [reason]).fetchone()

    with as_staff(), registrar.at_work(reason=why):
        made = [new_tenant(registrar, reason=why) for _ in range(2)]
        for tenant in made:
            provision(registrar, tenant.id, reason=why)
        suspend(registrar, made[0].id, reason=other)
        with acting_as(Actor(ActorKind.SYSTEM, "night", "night")):
            suspend(registrar, made[1].id, reason=why)

    assert (entries(why), entries(other)) == ((2,), (1,))


@pytest.mark.parametrize(("with_examples", "is_filled"), [(True, True), (False, False)])
def test_examples_are_there_for_who_asked_for_them(
    app: Flask, truth: Truth, with_examples: bool, is_filled: bool
) -> None:
    registrar = registrar_of(app)

    with as_staff():
        tenant = new_tenant(registrar, with_examples=with_examples)
        provision(registrar, tenant.id, reason=WHY)

    row = truth.execute("SELECT count(*) > 0 FROM opportunities WHERE tenant_id = %s", [tenant.id]).fetchone()
    assert row == (is_filled,)
