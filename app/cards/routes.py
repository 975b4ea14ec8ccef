"""The card collection over HTTP."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, Response, url_for
from sqlalchemy import select

from app.auth.access import permits
from app.caches import tenant_cache
from app.cards import operations
from app.cards import schemas as shapes
from app.cards.models import Card, Manufacturer, Player, Team
from app.db import release_connection, session
from app.files.downloads import download
from app.http import gives_file, takes_file
from app.members.permissions import Permission
from app.openapi import answers
from app.paging import Sorts
from app.rows import added, changed, deleted, equal, found, narrowed
from app.usage.quotas import Quota, consume

blueprint = Blueprint("cards", __name__, url_prefix="/api/v1")

CARDS = Sorts(Card, ("number", "year", "created_at"))
MANUFACTURERS = Sorts(Manufacturer, ("name", "created_at"))
TEAMS = Sorts(Team, ("name", "created_at"))
PLAYERS = Sorts(Player, ("name", "created_at"))
_SUMMARY_S = 30


def _location(endpoint: str, row: Card | Manufacturer | Team | Player) -> dict[str, str]:
    return {"Location": url_for(f".{endpoint}", row_id=row.id)}


# Cards ------------------------------------------------------------------------------------------------


@blueprint.get("/cards")
@permits(Permission.CARDS_READ)
@answers(200, shapes.CardList, tag="cards")
def list_cards(query: shapes.CardQuery) -> shapes.CardList:
    """List cards, a page at a time."""
    wanted = {
        Card.year: query.year,
        Card.condition: query.condition,
        Card.manufacturer_id: query.manufacturer_id,
        Card.team_id: query.team_id,
        Card.player_id: query.player_id,
    }
    rows = equal(narrowed(select(Card), Card.number, query.q), wanted)
    page = CARDS.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return shapes.CardList.model_validate({"items": page.rows, "next_cursor": page.next_cursor})


@blueprint.post("/cards")
@permits(Permission.CARDS_WRITE)
@answers(201, shapes.CardAnswer, tag="cards")
def create_card(json: shapes.NewCard) -> tuple[shapes.CardAnswer, int, dict[str, str]]:
    """Add a card, if the plan allows one more."""
    consume(session(), Quota.CARDS)
    card = added(Card(**json.model_dump()))
    return shapes.CardAnswer.model_validate(card), 201, _location("read_card", card)


@blueprint.get("/cards/summary")
@permits(Permission.CARDS_READ)
@answers(200, shapes.SummaryAnswer, tag="cards")
def summarize_cards() -> shapes.SummaryAnswer:
    """Count the collection; the figures may be 30 seconds old."""
    figures = tenant_cache().cached(timeout_s=_SUMMARY_S)(operations.summarize)
    return shapes.SummaryAnswer.model_validate(figures())


@blueprint.get("/cards/<uuid:row_id>")
@permits(Permission.CARDS_READ)
@answers(200, shapes.CardAnswer, tag="cards")
def read_card(row_id: UUID) -> shapes.CardAnswer:
    """Read one card."""
    return shapes.CardAnswer.model_validate(found(Card, row_id))


@blueprint.patch("/cards/<uuid:row_id>")
@permits(Permission.CARDS_WRITE)
@answers(200, shapes.CardAnswer, tag="cards")
def change_card(row_id: UUID, json: shapes.CardChange) -> shapes.CardAnswer:
    """Change some fields of a card."""
    return shapes.CardAnswer.model_validate(changed(found(Card, row_id), json))


@blueprint.delete("/cards/<uuid:row_id>")
@permits(Permission.CARDS_DELETE)
@answers(204, None, tag="cards")
def delete_card(row_id: UUID) -> tuple[str, int]:
    """Delete a card, and its picture."""
    operations.delete_card(row_id)
    return "", 204


@blueprint.put("/cards/<uuid:row_id>/image")
@permits(Permission.CARDS_WRITE)
@takes_file
@answers(200, shapes.ImageAnswer, tag="cards")
def put_image(row_id: UUID, query: shapes.ImageQuery) -> shapes.ImageAnswer:
    """Make the body the picture of a card: a PNG, JPEG, WebP or GIF, as it is."""
    return shapes.ImageAnswer.model_validate(operations.replace_image(row_id, query.filename))


@blueprint.get("/cards/<uuid:row_id>/image")
@permits(Permission.CARDS_READ)
@gives_file
@answers(200, None, tag="cards")
def read_image(row_id: UUID) -> Response:
    """Read the picture of a card."""
    image = operations.image_of(row_id)
    release_connection()
    return download(image)


@blueprint.delete("/cards/<uuid:row_id>/image")
@permits(Permission.CARDS_WRITE)
@answers(204, None, tag="cards")
def delete_image(row_id: UUID) -> tuple[str, int]:
    """Remove the picture of a card."""
    operations.remove_image(row_id)
    return "", 204


# Manufacturers --------------------------------------------------------------------------------------


@blueprint.get("/manufacturers")
@permits(Permission.CARDS_READ)
@answers(200, shapes.ManufacturerList, tag="manufacturers")
def list_manufacturers(query: shapes.ManufacturerQuery) -> shapes.ManufacturerList:
    """List manufacturers, a page at a time."""
    rows = narrowed(select(Manufacturer), Manufacturer.name, query.q)
    page = MANUFACTURERS.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return shapes.ManufacturerList.model_validate({"items": page.rows, "next_cursor": page.next_cursor})


@blueprint.post("/manufacturers")
@permits(Permission.CARDS_WRITE)
@answers(201, shapes.ManufacturerAnswer, tag="manufacturers")
def create_manufacturer(json: shapes.NewManufacturer) -> tuple[shapes.ManufacturerAnswer, int, dict[str, str]]:
    """Add a manufacturer."""
    manufacturer = added(Manufacturer(**json.model_dump()))
    return shapes.ManufacturerAnswer.model_validate(manufacturer), 201, _location("read_manufacturer", manufacturer)


@blueprint.get("/manufacturers/<uuid:row_id>")
@permits(Permission.CARDS_READ)
@answers(200, shapes.ManufacturerAnswer, tag="manufacturers")
def read_manufacturer(row_id: UUID) -> shapes.ManufacturerAnswer:
    """Read one manufacturer."""
    return shapes.ManufacturerAnswer.model_validate(found(Manufacturer, row_id))


@blueprint.patch("/manufacturers/<uuid:row_id>")
@permits(Permission.CARDS_WRITE)
@answers(200, shapes.ManufacturerAnswer, tag="manufacturers")
def change_manufacturer(row_id: UUID, json: shapes.ManufacturerChange) -> shapes.ManufacturerAnswer:
    """Change some fields of a manufacturer."""
    return shapes.ManufacturerAnswer.model_validate(changed(found(Manufacturer, row_id), json))


@blueprint.delete("/manufacturers/<uuid:row_id>")
@permits(Permission.CARDS_DELETE)
@answers(204, None, tag="manufacturers")
def delete_manufacturer(row_id: UUID) -> tuple[str, int]:
    """Delete a manufacturer."""
    return deleted(found(Manufacturer, row_id))


# Teams ----------------------------------------------------------------------------------------------


@blueprint.get("/teams")
@permits(Permission.CARDS_READ)
@answers(200, shapes.TeamList, tag="teams")
def list_teams(query: shapes.TeamQuery) -> shapes.TeamList:
    """List teams, a page at a time."""
    rows = narrowed(select(Team), Team.name, query.q)
    page = TEAMS.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return shapes.TeamList.model_validate({"items": page.rows, "next_cursor": page.next_cursor})


@blueprint.post("/teams")
@permits(Permission.CARDS_WRITE)
@answers(201, shapes.TeamAnswer, tag="teams")
def create_team(json: shapes.NewTeam) -> tuple[shapes.TeamAnswer, int, dict[str, str]]:
    """Add a team."""
    team = added(Team(**json.model_dump()))
    return shapes.TeamAnswer.model_validate(team), 201, _location("read_team", team)


@blueprint.get("/teams/<uuid:row_id>")
@permits(Permission.CARDS_READ)
@answers(200, shapes.TeamAnswer, tag="teams")
def read_team(row_id: UUID) -> shapes.TeamAnswer:
    """Read one team."""
    return shapes.TeamAnswer.model_validate(found(Team, row_id))


@blueprint.patch("/teams/<uuid:row_id>")
@permits(Permission.CARDS_WRITE)
@answers(200, shapes.TeamAnswer, tag="teams")
def change_team(row_id: UUID, json: shapes.TeamChange) -> shapes.TeamAnswer:
    """Change some fields of a team."""
    return shapes.TeamAnswer.model_validate(changed(found(Team, row_id), json))


@blueprint.delete("/teams/<uuid:row_id>")
@permits(Permission.CARDS_DELETE)
@answers(204, None, tag="teams")
def delete_team(row_id: UUID) -> tuple[str, int]:
    """Delete a team."""
    return deleted(found(Team, row_id))


# Players --------------------------------------------------------------------------------------------


@blueprint.get("/players")
@permits(Permission.CARDS_READ)
@answers(200, shapes.PlayerList, tag="players")
def list_players(query: shapes.PlayerQuery) -> shapes.PlayerList:
    """List players, a page at a time."""
    rows = narrowed(select(Player), Player.name, query.q)
    rows = equal(rows, {Player.team_id: query.team_id})
    page = PLAYERS.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return shapes.PlayerList.model_validate({"items": page.rows, "next_cursor": page.next_cursor})


@blueprint.post("/players")
@permits(Permission.CARDS_WRITE)
@answers(201, shapes.PlayerAnswer, tag="players")
def create_player(json: shapes.NewPlayer) -> tuple[shapes.PlayerAnswer, int, dict[str, str]]:
    """Add a player."""
    player = added(Player(**json.model_dump()))
    return shapes.PlayerAnswer.model_validate(player), 201, _location("read_player", player)


@blueprint.get("/players/<uuid:row_id>")
@permits(Permission.CARDS_READ)
@answers(200, shapes.PlayerAnswer, tag="players")
def read_player(row_id: UUID) -> shapes.PlayerAnswer:
    """Read one player."""
    return shapes.PlayerAnswer.model_validate(found(Player, row_id))


@blueprint.patch("/players/<uuid:row_id>")
@permits(Permission.CARDS_WRITE)
@answers(200, shapes.PlayerAnswer, tag="players")
def change_player(row_id: UUID, json: shapes.PlayerChange) -> shapes.PlayerAnswer:
    """Change some fields of a player."""
    return shapes.PlayerAnswer.model_validate(changed(found(Player, row_id), json))


@blueprint.delete("/players/<uuid:row_id>")
@permits(Permission.CARDS_DELETE)
@answers(204, None, tag="players")
def delete_player(row_id: UUID) -> tuple[str, int]:
    """Delete a player."""
    return deleted(found(Player, row_id))
