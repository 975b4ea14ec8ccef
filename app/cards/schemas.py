"""What the routes of the card collection take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from app.cards.models import FIRST_YEAR, LAST_YEAR, Condition
from app.schemas import Answer, Body, ListQuery, Name, Query, Text, omitted, storable

Notes = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000), AfterValidator(storable)
]
Number = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=50), AfterValidator(storable)]
Year = Annotated[int, Field(ge=FIRST_YEAR, le=LAST_YEAR, strict=True, description="When it was printed.")]
NameSort = Literal["name", "-name", "created_at", "-created_at"]
CardSort = Literal["number", "-number", "year", "-year", "created_at", "-created_at"]


def _is_plain_name(name: str) -> str:
    if any(sign in name for sign in "/\\") or not name.isprintable() or name in (".", ".."):
        raise ValueError("is a path or holds signs that cannot be shown: send the name alone, such as front.png")
    return name


FileName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_is_plain_name)
]


class _Row(Answer):
    id: UUID
    created_at: datetime
    updated_at: datetime


class _ListAnswer(Answer):
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class _NameQuery(ListQuery):
    sort: NameSort = "name"
    q: Text | None = Field(None, max_length=200, description="Part of the name, in either case.")


# Manufacturers ----------------------------------------------------------------------------------------


class NewManufacturer(Body):
    """A manufacturer to add."""

    name: Name


class ManufacturerChange(Body):
    """The fields of a manufacturer to change; those left out stay."""

    name: Name = omitted()


class ManufacturerAnswer(_Row):
    """A manufacturer."""

    name: str


class ManufacturerList(_ListAnswer):
    """One page of manufacturers."""

    items: list[ManufacturerAnswer]


class ManufacturerQuery(_NameQuery):
    """Which manufacturers, in which order."""


# Teams ------------------------------------------------------------------------------------------------


class NewTeam(Body):
    """A team to add."""

    name: Name


class TeamChange(Body):
    """The fields of a team to change; those left out stay."""

    name: Name = omitted()


class TeamAnswer(_Row):
    """A team."""

    name: str


class TeamList(_ListAnswer):
    """One page of teams."""

    items: list[TeamAnswer]


class TeamQuery(_NameQuery):
    """Which teams, in which order."""


# Players ----------------------------------------------------------------------------------------------


class NewPlayer(Body):
    """A player to add."""

    name: Name
    team_id: UUID | None = None


class PlayerChange(Body):
    """The fields of a player to change; those left out stay."""

    name: Name = omitted()
    team_id: UUID | None = None


class PlayerAnswer(_Row):
    """A player."""

    name: str
    team_id: UUID | None


class PlayerList(_ListAnswer):
    """One page of players."""

    items: list[PlayerAnswer]


class PlayerQuery(_NameQuery):
    """Which players, in which order."""

    team_id: UUID | None = None


# Cards ------------------------------------------------------------------------------------------------


class NewCard(Body):
    """A card to add."""

    number: Number
    year: Year
    condition: Condition
    notes: Notes | None = None
    manufacturer_id: UUID | None = None
    team_id: UUID | None = None
    player_id: UUID | None = None


class CardChange(Body):
    """The fields of a card to change; those left out stay."""

    number: Number = omitted()
    year: Year = omitted()
    condition: Condition = omitted()
    notes: Notes | None = None
    manufacturer_id: UUID | None = None
    team_id: UUID | None = None
    player_id: UUID | None = None


class CardAnswer(_Row):
    """A card."""

    number: str
    year: int
    condition: Condition
    notes: str | None
    manufacturer_id: UUID | None
    team_id: UUID | None
    player_id: UUID | None
    has_image: bool


class CardList(_ListAnswer):
    """One page of cards."""

    items: list[CardAnswer]


class CardQuery(ListQuery):
    """Which cards, in which order."""

    sort: CardSort = "-created_at"
    q: Text | None = Field(None, max_length=200, description="Part of the number, in either case.")
    year: int | None = Field(None, ge=FIRST_YEAR, le=LAST_YEAR)
    condition: Condition | None = None
    manufacturer_id: UUID | None = None
    team_id: UUID | None = None
    player_id: UUID | None = None


class ImageQuery(Query):
    """How a picture is called."""

    filename: FileName | None = Field(None, description="Shown to who downloads it; unset names it by the card.")


class ImageAnswer(Answer):
    """A card's picture, as it was found to be."""

    name: str
    content_type: str
    size_bytes: int
    sha256: str
    created_at: datetime


class SummaryAnswer(Answer):
    """The collection in figures."""

    cards: int
    with_image: int
    by_condition: dict[Condition, int]
    first_year: int | None
    last_year: int | None
    counted_at: datetime = Field(description="When this was counted; it is counted again after 30 seconds.")
