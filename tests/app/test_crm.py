"""The CRM over HTTP: what a tenant's own people do all day."""

from __future__ import annotations

from uuid import uuid4

import pytest
from flask import Flask
from sqlalchemy import event

from tests.app.conftest import Visitor, add_person, codes, fields

PEOPLE = "/api/v1/people"


def test_person_is_created_read_changed_and_deleted(acme: Visitor) -> None:
    created = acme.post(PEOPLE, json={"name": "Ada", "email": "Ada@Example.com"})
    path = created.headers["Location"]

    changed = acme.call("PATCH", path, json={"phone": "+44 20"})
    read = acme.get(path)
    deleted = acme.call("DELETE", path)

    assert created.status_code == 201
    assert changed.status_code == 200
    assert (read.get_json()["name"], read.get_json()["email"], read.get_json()["phone"]) == (
        "Ada",
        "ada@example.com",
        "+44 20",
    )
    assert deleted.status_code == 204
    assert acme.get(path).status_code == 404


def test_change_moves_updated_at_and_leaves_the_rest(acme: Visitor) -> None:
    created = acme.post(PEOPLE, json={"name": "Ada", "phone": "1"}).get_json()

    changed = acme.call("PATCH", f"{PEOPLE}/{created['id']}", json={"name": "Ada L."}).get_json()

    assert changed["phone"] == "1"
    assert changed["created_at"] == created["created_at"]
    assert changed["updated_at"] > created["updated_at"]


def test_writing_takes_one_transaction_its_answer_included(app: Flask, acme: Visitor) -> None:
    """After the commit the tenant's slot is someone else's, and a second transaction could be refused."""
    begun: list[object] = []
    note = begun.append
    engine = app.extensions["auth"].database.engine
    path = f"{PEOPLE}/{add_person(acme)}"

    event.listen(engine, "begin", note)
    statuses = [acme.post(PEOPLE, json={"name": "Ada"}).status_code]
    statuses.append(acme.call("PATCH", path, json={"phone": "1"}).status_code)
    event.remove(engine, "begin", note)

    assert statuses == [201, 200]
    assert len(begun) == 2


def test_null_clears_an_optional_field_and_is_refused_for_a_required_one(acme: Visitor) -> None:
    path = f"{PEOPLE}/{add_person(acme, phone='1')}"

    cleared = acme.call("PATCH", path, json={"phone": None})
    refused = acme.call("PATCH", path, json={"name": None})

    assert cleared.get_json()["phone"] is None
    assert codes(refused) == (400, "invalid_input")
    assert fields(refused) == ["name"]


def test_text_of_blanks_is_refused(acme: Visitor) -> None:
    answer = acme.post(PEOPLE, json={"name": "Ada", "phone": "  "})

    assert (codes(answer), fields(answer)) == ((400, "invalid_input"), ["phone"])


def test_company_keeps_its_people_when_it_is_deleted(acme: Visitor) -> None:
    company = acme.post("/api/v1/companies", json={"name": "Engines Ltd"}).get_json()
    person = add_person(acme, company_id=company["id"])

    deleted = acme.call("DELETE", f"/api/v1/companies/{company['id']}")

    assert deleted.status_code == 204
    assert acme.get(f"{PEOPLE}/{person}").get_json()["company_id"] is None


def test_opportunity_moves_through_its_stages(acme: Visitor) -> None:
    created = acme.post("/api/v1/opportunities", json={"name": "Big deal", "amount_cents": 250_000}).get_json()

    moved = acme.call("PATCH", f"/api/v1/opportunities/{created['id']}", json={"stage": "won"})

    assert (created["stage"], created["currency"]) == ("lead", "EUR")
    assert moved.get_json()["stage"] == "won"


def test_opportunities_are_filtered_by_stage(acme: Visitor) -> None:
    for name, stage in (("One", "lead"), ("Two", "won"), ("Three", "won")):
        acme.post("/api/v1/opportunities", json={"name": name, "stage": stage})

    found = acme.get("/api/v1/opportunities?stage=won&sort=name").get_json()

    assert [item["name"] for item in found["items"]] == ["Three", "Two"]


def test_people_are_filtered_by_part_of_the_name_literally(acme: Visitor) -> None:
    for name in ("Ada Lovelace", "Grace Hopper", "100% Ada"):
        add_person(acme, name)

    by_part = acme.get(f"{PEOPLE}?q=ADA").get_json()["items"]
    by_sign = acme.get(f"{PEOPLE}?q=%25").get_json()["items"]

    assert [item["name"] for item in by_part] == ["100% Ada", "Ada Lovelace"]
    assert [item["name"] for item in by_sign] == ["100% Ada"]


def test_two_people_of_a_tenant_share_no_address_and_tenants_do_not_meet(acme: Visitor, globex: Visitor) -> None:
    """T037"""
    add_person(acme, email="ada@example.com")

    again = acme.post(PEOPLE, json={"name": "Other", "email": "ada@example.com"})
    elsewhere = globex.post(PEOPLE, json={"name": "Other", "email": "ada@example.com"})

    assert codes(again) == (409, "taken")
    assert fields(again) == ["email"]
    assert elsewhere.status_code == 201


def test_reference_to_a_foreign_row_answers_like_one_to_a_random_id(acme: Visitor, globex: Visitor) -> None:
    """T041"""
    theirs = globex.post("/api/v1/companies", json={"name": "Theirs"}).get_json()["id"]

    foreign = acme.post(PEOPLE, json={"name": "Ada", "company_id": theirs})
    random = acme.post(PEOPLE, json={"name": "Ada", "company_id": str(uuid4())})

    assert codes(foreign) == (400, "invalid_input")
    assert fields(foreign) == ["company_id"]
    assert foreign.get_json() == random.get_json()
    assert acme.get(PEOPLE).get_json()["items"] == []


@pytest.mark.parametrize("sort", ["name", "-name", "created_at", "-created_at"])
def test_pages_of_people_hold_each_person_once_and_in_order(acme: Visitor, sort: str) -> None:
    for name in ("B", "A", "C", "A", "D", "A", "E"):
        add_person(acme, name)
    whole = [item["id"] for item in acme.get(f"{PEOPLE}?sort={sort}").get_json()["items"]]

    seen: list[str] = []
    cursor = ""
    while True:
        page = acme.get(f"{PEOPLE}?sort={sort}&limit=2{cursor}").get_json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert len(seen) == 7
    assert seen == whole


def test_opportunities_page_by_amount(acme: Visitor) -> None:
    for amount in (300, 100, 2**40):
        acme.post("/api/v1/opportunities", json={"name": str(amount), "amount_cents": amount})

    first = acme.get("/api/v1/opportunities?sort=-amount_cents&limit=1").get_json()
    second = acme.get(f"/api/v1/opportunities?sort=-amount_cents&limit=2&cursor={first['next_cursor']}").get_json()

    assert [item["amount_cents"] for item in first["items"] + second["items"]] == [2**40, 300, 100]


def test_cursor_of_another_tenant_shows_only_own_rows(acme: Visitor, globex: Visitor) -> None:
    for name in ("A", "B"):
        add_person(globex, name)
    add_person(acme, "Zoe")
    cursor = globex.get(f"{PEOPLE}?limit=1").get_json()["next_cursor"]

    found = acme.get(f"{PEOPLE}?cursor={cursor}").get_json()["items"]

    assert [item["name"] for item in found] == ["Zoe"]
