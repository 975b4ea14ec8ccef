"""The sweep's parts: which rows an address stands for, what is sent, and when two answers are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest

from tenancy.embedded import Template
from tenancy.testing.answers import Answer, marks_in, same_answers
from tenancy.testing.inputs import guessed_bodies, missing_like, own_row, renewed, unique_texts
from tenancy.testing.routes import Body, Route, find_targets, foreign_keys, table_of_route
from tenancy.testing.sweep import Ask, Sweep, Visitor
from tenancy.testing.world import OWNER, STRANGER, SeededTenant, World, seed
from tests.conftest import ROLES
from tests.models import Base

TABLES = Base.metadata.tables


@pytest.fixture(scope="module")
def seeded(template: Template, worker: str) -> Iterator[World]:
    name = template.clone(f"sweep_{worker}")
    made = seed(Base.metadata, lambda role: template.server.url(role=role, database=name), roles=ROLES)
    yield made
    made.close()
    template.drop(name)


@pytest.fixture
def world(seeded: World) -> Iterator[World]:
    yield seeded
    seeded.restore()


# Which rows an address stands for


@pytest.mark.parametrize(
    ("rule", "endpoint", "parameters", "tables"),
    [
        ("/people/<uuid:person_id>", "show", ("person_id",), ["people"]),
        ("/people/<uuid:id>", "show", ("id",), ["people"]),
        ("/api/v1/people/<uuid:row_id>/delete", "show", ("row_id",), ["people"]),
        ("/x/<uuid:id>", "read_person", ("id",), ["people"]),
        ("/x/<uuid:id>", "people.read", ("id",), ["people"]),
        ("/x/<company>", "show", ("company",), ["companies"]),
        ("/staff/<uuid:manager_id>", "show", ("manager_id",), ["people"]),
        ("/person-tags/<uuid:tag_id>", "show", ("tag_id",), ["tags"]),
        ("/companies/<uuid:company_id>/notes/<int:id>", "show", ("company_id", "id"), ["companies", "notes"]),
        ("/todos/<int:todo_id>", "show", ("todo_id",), ["todos"]),
        ("/tenants/<slug>", "show", ("slug",), ["tenants"]),
    ],
)
def test_part_of_an_address_stands_for_the_rows_it_names(
    rule: str, endpoint: str, parameters: tuple[str, ...], tables: list[str]
) -> None:
    targets = find_targets(Route(rule, "GET", endpoint, parameters), Base.metadata)

    assert [targets[name].table.name for name in parameters] == tables


@pytest.mark.parametrize(
    ("parameter", "column"), [("slug", "slug"), ("tenant_slug", "slug"), ("tenant", "tenant_id"), ("name", "name")]
)
def test_part_of_an_address_is_the_column_of_its_name(parameter: str, column: str) -> None:
    targets = find_targets(Route(f"/tenants/<{parameter}>", "GET", "show", (parameter,)), Base.metadata)

    assert (targets[parameter].table.name, targets[parameter].column) == ("tenants", column)


@pytest.mark.parametrize("rule", ["/things/<thing>", "/<uuid:id>", "/export/<format>"])
def test_part_that_names_no_rows_is_left_out(rule: str) -> None:
    parameter = rule.rpartition("<")[2].rpartition(":")[2].strip(">")

    assert find_targets(Route(rule, "GET", "show", (parameter,)), Base.metadata) == {}


def test_table_of_a_route_without_ids_is_the_one_it_names() -> None:
    named = {
        "/api/v1/people": "people",
        "/people/new": "people",
        "/companies/people/search": "people",
    }

    for rule, table in named.items():
        found = table_of_route(Route(rule, "POST", "x"), Base.metadata)
        assert found is not None
        assert found.name == table
    assert table_of_route(Route("/search", "POST", "x"), Base.metadata) is None


def test_field_of_a_body_refers_to_the_table_its_foreign_key_does() -> None:
    assert {name: table.name for name, table in foreign_keys(Base.metadata).items()} == {
        "company_id": "companies",
        "manager_id": "people",
        "person_id": "people",
        "tag_id": "tags",
    }


# What is sent


def test_row_that_is_aimed_at_belongs_to_one_tenant_only(world: World) -> None:
    mine, theirs = (own_row(world, TABLES["people"], tenant)["id"] for tenant in (OWNER, STRANGER))

    assert mine != theirs
    assert mine in [row["id"] for row in world.rows["people"][OWNER.id]]
    assert mine not in [row["id"] for row in world.rows["people"][STRANGER.id]]


def test_parent_is_the_one_the_child_has(world: World) -> None:
    note = own_row(world, TABLES["notes"], OWNER)

    person = own_row(world, TABLES["people"], OWNER, leading_to=[note])

    assert person["id"] == note["person_id"]


@pytest.mark.parametrize("value", [UUID(int=7), 7, "acme", str(UUID(int=7))])
def test_missing_id_is_of_the_same_kind_and_new_each_time(value: Any) -> None:
    first, second = missing_like(value), missing_like(value)

    assert type(first) is type(value)
    assert len({first, second, value}) == 3


def test_missing_uuid_in_text_is_a_uuid_in_text() -> None:
    assert UUID(missing_like(str(UUID(int=7)))).version == 4


def test_guessed_bodies_hold_the_columns_of_the_table_and_no_key(world: World) -> None:
    route = Route("/people", "POST", "add_person")

    whole, needed, form, nothing = guessed_bodies(world, route, TABLES["people"], STRANGER)

    assert sorted(whole.json) == ["company_id", "email", "manager_id", "name"]
    assert sorted(needed.json) == ["email", "name"]
    assert form.form is not None
    assert sorted(form.form) == sorted(whole.json)
    assert nothing == Body()
    assert "isolation-stranger" in whole.json["name"]


def test_value_of_a_unique_column_is_new_each_time_it_is_sent() -> None:
    body = Body(json={"email": "a@b.test", "name": "Ada"})
    names = unique_texts(TABLES["people"])

    first, second = renewed(body, names), renewed(body, names)

    assert first.json["email"] != second.json["email"]
    assert (first.json["name"], names) == ("Ada", frozenset({"email"}))


# Answers


def answer(body: str, status: int = 404, sent: str = "", **headers: str) -> Answer:
    given = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Answer(status, given, body, frozenset({sent} if sent else ()))


MISSING = answer("no person 1", sent="1"), answer("no person 2", sent="2")


@pytest.mark.parametrize(
    "found",
    [
        answer("no person 77", sent="77"),
        answer("no person 77", sent="77", Date="Sat, 21 Nov 2026 19:00:00 GMT", X_Request_ID="9"),
    ],
)
def test_answers_are_the_same_whichever_id_they_repeat(found: Answer) -> None:
    assert same_answers(found, *MISSING) == ""


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        (answer("no person 77", status=403, sent="77"), "403 instead of 404"),
        (
            answer("no access to 77", sent="77"),
            "'no access to <id>' instead of 'no person <id>', and of another length",
        ),
        (answer("no company 77", sent="77"), "'no company <id>' instead of 'no person <id>'"),
        (answer("no person 77", sent="77", Retry_After="9"), "header retry-after: '9' instead of ''"),
    ],
)
def test_answers_differ_in_status_words_and_headers(found: Answer, difference: str) -> None:
    assert same_answers(found, *MISSING) == difference


@pytest.mark.parametrize(
    "page",
    [
        "at 2026-11-21T19:00:0{n}Z, request 0197c1a2-0000-7000-8000-00000000000{n}",
        '<input name="csrf_token" value="ImIy{n}NjVlZDVmZGUzZjAzYTcz.awH2-g.JLdhIn7TQQvBv3OHK5">',
        "you are visitor {n}",
    ],
)
def test_what_differs_in_every_answer_tells_nothing(page: str) -> None:
    assert same_answers(*(answer(page.replace("{n}", number)) for number in "123")) == ""


def test_cookie_is_compared_by_its_name_and_not_its_value() -> None:
    one, two, three = (answer("x", Set_Cookie=f"session={n}; Path=/") for n in "abc")
    other = answer("x", Set_Cookie="found=1; Path=/")

    assert same_answers(one, two, three) == ""
    assert same_answers(other, two, three).startswith("header set-cookie")


def test_marks_are_texts_ids_and_rows_of_the_other_tenant(world: World) -> None:
    row = str(own_row(world, TABLES["people"], OWNER)["id"])

    assert marks_in(answer("by Isolation-Owner"), world, OWNER) == "text"
    assert marks_in(answer("", Location=f"/{OWNER.id}"), world, OWNER) == "the id"
    assert marks_in(answer(f"[{row}]"), world, OWNER) == "a row's id"
    assert marks_in(answer(f"no person {row}"), world, OWNER, besides={row}) == ""
    assert marks_in(answer("by isolation-stranger"), world, OWNER) == ""


# The sweep itself, on an application that is a function


class Application:
    """Answers as a given function does; notes who asked for what."""

    def __init__(self, reply: Callable[[SeededTenant, Ask], Answer]) -> None:
        self.reply = reply
        self.asked: list[tuple[SeededTenant, Mapping[str, Any]]] = []

    def visitors(self) -> tuple[Visitor, Visitor]:
        return self._visitor(OWNER), self._visitor(STRANGER)

    def _visitor(self, tenant: SeededTenant) -> Visitor:
        def send(ask: Ask) -> Answer:
            self.asked.append((tenant, ask.values))
            return self.reply(tenant, ask)

        return send


READ = Route("/people/<uuid:person_id>", "GET", "person", ("person_id",))


def swept(world: World, application: Application, route: Route = READ, **unswept: str) -> tuple[str, str]:
    verdict = Sweep(world, application.visitors, lambda _route, _tenant: None, unswept).run(route)
    return verdict.outcome, verdict.detail


def people_of(world: World, tenant: SeededTenant) -> set[Any]:
    return {row["id"] for row in world.rows["people"][tenant.id]}


def careful(world: World) -> Callable[[SeededTenant, Ask], Answer]:
    def reply(tenant: SeededTenant, ask: Ask) -> Answer:
        is_own = ask.values["person_id"] in people_of(world, tenant)
        return answer(f"of {tenant.slug}", status=200) if is_own else answer("not found")

    return reply


def test_route_that_serves_each_its_own_is_refused_to_strangers(world: World) -> None:
    """T118"""
    application = Application(careful(world))

    assert swept(world, application) == ("refused", "")
    assert [tenant.slug for tenant, _ in application.asked] == ["isolation-stranger"] * 3 + ["isolation-owner"] * 3


def test_route_that_refuses_everybody_proves_nothing(world: World) -> None:
    outcome, detail = swept(world, Application(lambda _tenant, _ask: answer("not found")))

    assert outcome == "not called"
    assert "isolation-owner itself is answered 404" in detail


def test_route_that_answers_everybody_alike_proves_nothing(world: World) -> None:
    outcome, detail = swept(world, Application(lambda _tenant, _ask: answer("hello", status=200)))

    assert outcome == "not called"
    assert "isolation-owner itself is answered as for a missing row" in detail


def test_route_that_sends_everybody_to_a_sign_in_proves_nothing(world: World) -> None:
    listed = Route("/people", "GET", "people")

    outcome, _ = swept(world, Application(lambda _tenant, _ask: answer("", status=302, Location="/sign-in")), listed)

    assert outcome == "not called"


def test_route_that_changes_the_others_rows_behind_a_404_is_seen_and_undone(world: World) -> None:
    """T118"""
    remove = Route("/people/<uuid:person_id>", "DELETE", "remove", ("person_id",))

    def reply(_tenant: SeededTenant, ask: Ask) -> Answer:
        world.admin.execute("DELETE FROM people WHERE id = %s", [ask.values["person_id"]])
        return answer("not found")

    before = world.snapshot()

    outcome, detail = swept(world, Application(reply), remove)

    assert (outcome, detail) == (
        "changes",
        "/people/<person_id of isolation-owner>: isolation-stranger changed rows of isolation-owner",
    )
    assert world.snapshot() == before


def test_leak_is_told_before_the_difference_that_comes_with_it(world: World) -> None:
    def reply(_tenant: SeededTenant, ask: Ask) -> Answer:
        found = ask.values["person_id"] in people_of(world, OWNER)
        return answer("Ada of isolation-owner", status=200) if found else answer("not found")

    outcome, detail = swept(world, Application(reply))

    assert outcome == "leaks"
    assert "holds text of isolation-owner" in detail


def test_declared_route_is_not_called(world: World) -> None:
    application = Application(careful(world))

    assert swept(world, application, person="needs a printer") == ("declared", "")
    assert application.asked == []


def test_exempt_route_is_called_and_may_hold_nothing_of_the_others(world: World) -> None:
    health = Route("/health", "GET", "health", exempt="for the load balancer")

    assert swept(world, Application(lambda _t, _a: answer("ok", status=200)), health) == ("exempt", "")
    assert swept(world, Application(lambda _t, _a: answer("isolation-owner is up")), health)[0] == "leaks"


def test_tenant_named_in_a_body_is_tried_as_well(world: World) -> None:
    switch = Route("/switch", "POST", "switch")

    def told_apart(tenant: SeededTenant, ask: Ask) -> Answer:
        wanted = ask.body.json["tenant"]
        if wanted == tenant.slug:
            return answer("welcome", status=200)
        return answer("forbidden", status=403) if wanted == OWNER.slug else answer("unknown")

    sweep = Sweep(world, Application(told_apart).visitors, lambda _route, t: Body(json={"tenant": t.slug}), {})

    verdict = sweep.run(switch)

    assert verdict.outcome == "told apart"
    assert "with tenant of isolation-owner" in verdict.detail


def test_what_a_stranger_does_to_itself_is_undone_between_calls_that_are_compared(world: World) -> None:
    remove = Route("/people/<uuid:person_id>/remove", "POST", "remove", ("person_id",))

    def reply(tenant: SeededTenant, ask: Ask) -> Answer:
        gone = world.admin.execute(
            "DELETE FROM people WHERE tenant_id = %s AND id = %s", [tenant.id, ask.values["person_id"]]
        )
        return answer("", status=303) if gone.rowcount else answer("not found")

    verdict = Sweep(world, Application(reply).visitors, lambda _route, _tenant: None, {}).run(remove)

    assert verdict.outcome == "refused"
    own = "/people/<person_id of isolation-stranger>/remove"
    assert f"isolation-stranger: POST {own} with company_id of isolation-owner -> 303" in verdict.calls
    assert f"isolation-stranger: POST {own} with a missing company_id -> 303" in verdict.calls
