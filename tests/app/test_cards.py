"""The card collection over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from flask import Flask
from sqlalchemy import update

from app.members.models import Member
from tenancy.context import tenant_scope
from tests.app.cards import CARDS, add, add_card, picture, put_image
from tests.app.conftest import Visitor, codes, fields


@pytest.fixture
def set_role(app: Flask) -> Callable[[Visitor, str], None]:
    def change(visitor: Visitor, role: str) -> None:
        with tenant_scope(visitor.tenant_id), app.extensions["auth"].database.sessions.begin() as session:
            session.execute(update(Member).values(role=role))

    return change


def test_card_is_created_read_changed_and_deleted(acme: Visitor) -> None:
    maker = add(acme, "manufacturers", "Topps")
    team = add(acme, "teams", "Yankees")
    player = add(acme, "players", "Mickey Mantle", team_id=team)
    path = add_card(acme, "311", year=1952, notes="  a dream ", manufacturer_id=maker, team_id=team, player_id=player)

    changed = acme.call("PATCH", path, json={"condition": "good", "notes": None})
    read = acme.get(path).get_json()
    deleted = acme.call("DELETE", path)

    assert changed.status_code == 200
    assert (read["number"], read["year"], read["condition"], read["notes"]) == ("311", 1952, "good", None)
    assert (read["manufacturer_id"], read["team_id"], read["player_id"]) == (maker, team, player)
    assert read["has_image"] is False
    assert deleted.status_code == 204
    assert acme.get(path).status_code == 404


@pytest.mark.parametrize("kind", ["manufacturers", "teams", "players"])
def test_name_is_taken_once_in_a_tenant_and_tenants_do_not_meet(acme: Visitor, globex: Visitor, kind: str) -> None:
    """T037"""
    path = f"/api/v1/{kind}/{add(acme, kind, 'Topps')}"

    again = acme.post(f"/api/v1/{kind}", json={"name": "Topps"})
    elsewhere = globex.post(f"/api/v1/{kind}", json={"name": "Topps"})

    assert (codes(again), fields(again)) == ((409, "taken"), ["name"])
    assert elsewhere.status_code == 201
    assert acme.call("PATCH", path, json={"name": "Fleer"}).get_json()["name"] == "Fleer"
    assert [item["name"] for item in acme.get(f"/api/v1/{kind}?q=LEE").get_json()["items"]] == ["Fleer"]
    assert acme.call("DELETE", path).status_code == 204
    assert acme.get(path).status_code == 404


def test_manufacturer_gives_a_number_once_a_year(acme: Visitor) -> None:
    maker = add(acme, "manufacturers", "Topps")
    add_card(acme, "7", manufacturer_id=maker)

    again = acme.post(CARDS, json={"number": "7", "year": 1990, "condition": "poor", "manufacturer_id": maker})

    assert (codes(again), fields(again)) == ((409, "taken"), ["manufacturer_id", "year", "number"])
    add_card(acme, "7", year=1991, manufacturer_id=maker)
    add_card(acme, "7")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("year", 1799),
        ("year", 2201),
        ("year", "1990"),
        ("year", 2**70),
        ("condition", "new"),
        ("number", " "),
        ("number", "x" * 51),
        ("notes", "a\0b"),
        ("image_id", "0190f5f1-0000-7000-8000-000000000001"),
        ("has_image", True),
        ("tenant_id", "0190f5f1-0000-7000-8000-000000000002"),
    ],
)
def test_card_that_cannot_be_is_refused_by_its_field(acme: Visitor, field: str, value: object) -> None:
    """T119"""
    answer = acme.post(CARDS, json={"number": "7", "year": 1990, "condition": "mint", field: value})

    assert (codes(answer), fields(answer)) == ((400, "invalid_input"), [field])
    assert acme.get(CARDS).get_json()["items"] == []


@pytest.mark.parametrize(
    ("field", "kind"), [("manufacturer_id", "manufacturers"), ("team_id", "teams"), ("player_id", "players")]
)
def test_reference_to_a_foreign_row_answers_like_one_to_a_random_id(
    acme: Visitor, globex: Visitor, field: str, kind: str
) -> None:
    """T041"""
    theirs = add(globex, kind, "Theirs")
    card = {"number": "7", "year": 1990, "condition": "mint"}

    foreign = acme.post(CARDS, json=card | {field: theirs})
    random = acme.post(CARDS, json=card | {field: str(uuid4())})

    assert (codes(foreign), fields(foreign)) == ((400, "invalid_input"), [field])
    assert foreign.get_json() == random.get_json()
    assert acme.get(CARDS).get_json()["items"] == []


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_foreign_card_answers_like_one_that_never_was(acme: Visitor, globex: Visitor, method: str) -> None:
    """T118"""
    theirs = add_card(globex)
    body = {"json": {"notes": "mine"}} if method == "PATCH" else {}

    foreign = acme.call(method, theirs, **body)
    missing = acme.call(method, f"{CARDS}/{uuid4()}", **body)

    assert codes(foreign) == (404, "not_found")
    assert foreign.get_json() == missing.get_json()
    assert globex.get(theirs).get_json()["notes"] is None


def test_cards_are_filtered_sorted_and_paged(acme: Visitor) -> None:
    maker, other = add(acme, "manufacturers", "Topps"), add(acme, "manufacturers", "Fleer")
    for number, year, condition, by in (
        ("1", 1990, "mint", maker),
        ("2", 1988, "good", maker),
        ("12", 1990, "good", other),
    ):
        add_card(acme, number, year=year, condition=condition, manufacturer_id=by)

    def numbers(query: str) -> list[str]:
        return [card["number"] for card in acme.get(f"{CARDS}?{query}").get_json()["items"]]

    assert numbers(f"manufacturer_id={maker}&sort=number") == ["1", "2"]
    assert numbers("year=1990&sort=-number") == ["12", "1"]
    assert numbers("condition=good&sort=year") == ["2", "12"]
    assert numbers("q=2&sort=number") == ["12", "2"]
    assert numbers(f"team_id={uuid4()}") == []
    first = acme.get(f"{CARDS}?sort=-year&limit=2").get_json()
    second = acme.get(f"{CARDS}?sort=-year&limit=2&cursor={first['next_cursor']}").get_json()
    assert [card["year"] for card in first["items"] + second["items"]] == [1990, 1990, 1988]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    "query", ["sort=notes", "sort=image_id", "year=1", "condition=new", "image_id=1", "tenant_id=1"]
)
def test_query_that_the_list_does_not_offer_is_refused(acme: Visitor, query: str) -> None:
    """T119"""
    assert codes(acme.get(f"{CARDS}?{query}")) == (400, "invalid_input")


def test_players_are_filtered_by_team(acme: Visitor) -> None:
    team = add(acme, "teams", "Yankees")
    add(acme, "players", "Mantle", team_id=team)
    add(acme, "players", "Mays")

    found = acme.get(f"/api/v1/players?team_id={team}").get_json()["items"]

    assert [player["name"] for player in found] == ["Mantle"]


def test_card_outlives_who_made_it_and_is_on_it(acme: Visitor) -> None:
    team = add(acme, "teams", "Yankees")
    rows = {
        "manufacturers": add(acme, "manufacturers", "Topps"),
        "players": add(acme, "players", "Mantle", team_id=team),
        "teams": team,
    }
    card = add_card(acme, manufacturer_id=rows["manufacturers"], team_id=team, player_id=rows["players"])

    deleted = [acme.call("DELETE", f"/api/v1/{kind}/{row}").status_code for kind, row in rows.items()]

    left = acme.get(card).get_json()
    assert deleted == [204, 204, 204]
    assert (left["manufacturer_id"], left["team_id"], left["player_id"]) == (None, None, None)


def test_summary_counts_the_tenants_own_cards(acme: Visitor, globex: Visitor) -> None:
    """T091"""
    put_image(acme, add_card(acme, "1", year=1980), picture())
    add_card(acme, "2", condition="good")
    add_card(globex)

    ours, theirs = (visitor.get(f"{CARDS}/summary").get_json() for visitor in (acme, globex))

    assert (ours["cards"], ours["with_image"], ours["first_year"], ours["last_year"]) == (2, 1, 1980, 1990)
    assert ours["by_condition"] == {
        "mint": 1,
        "near_mint": 0,
        "excellent": 0,
        "good": 1,
        "fair": 0,
        "poor": 0,
    }
    assert (theirs["cards"], theirs["with_image"]) == (1, 0)


def test_summary_of_no_cards_has_no_years(acme: Visitor) -> None:
    found = acme.get(f"{CARDS}/summary").get_json()

    assert (found["cards"], found["first_year"], found["last_year"]) == (0, None, None)


def test_summary_is_remembered_and_says_since_when(acme: Visitor) -> None:
    first = acme.get(f"{CARDS}/summary").get_json()
    add_card(acme)

    second = acme.get(f"{CARDS}/summary").get_json()

    assert second == first


def test_role_decides_who_writes_and_who_deletes(acme: Visitor, set_role: Callable[[Visitor, str], None]) -> None:
    card = add_card(acme)
    put_image(acme, card, picture())
    set_role(acme, "member")

    assert acme.get(card).status_code == 200
    assert acme.get(f"{card}/image").status_code == 200
    assert acme.call("PATCH", card, json={"notes": "x"}).status_code == 200
    assert put_image(acme, card, picture()).status_code == 200
    assert codes(acme.call("DELETE", card)) == (403, "forbidden")
    set_role(acme, "manager")
    assert acme.call("DELETE", card).status_code == 204


def test_nobody_reads_a_picture_without_signing_in(acme: Visitor) -> None:
    card = add_card(acme)
    put_image(acme, card, picture())

    for method in ("GET", "PUT", "DELETE"):
        answer = acme.client.open(f"/t/{acme.slug}{card}/image", method=method, data=picture())
        assert codes(answer) == (401, "not_signed_in")
    assert acme.get(f"{card}/image").status_code == 200
