"""Cards, manufacturers, teams and players."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, Integer, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Timestamped, one_of
from tenancy.tables import TenantForeignKey, TenantIndex, TenantTable, TenantUnique

FIRST_YEAR, LAST_YEAR = 1800, 2200


class Condition(StrEnum):
    """How well a card has kept, from best to worst."""

    MINT = "mint"
    NEAR_MINT = "near_mint"
    EXCELLENT = "excellent"
    GOOD = "good"
    FAIR = "fair"
    POOR = "poor"


class Manufacturer(TenantTable, Timestamped, Base):
    """Who printed a card."""

    __tablename__ = "manufacturers"
    __table_args__ = (TenantUnique("name"), TenantIndex("created_at"))

    name: Mapped[str] = mapped_column(Text)


class Team(TenantTable, Timestamped, Base):
    """A team that is on cards."""

    __tablename__ = "teams"
    __table_args__ = (TenantUnique("name"), TenantIndex("created_at"))

    name: Mapped[str] = mapped_column(Text)


class Player(TenantTable, Timestamped, Base):
    """A player who is on cards, and the team played for."""

    __tablename__ = "players"
    __table_args__ = (
        TenantForeignKey("team_id", "teams", ondelete="SET NULL"),
        TenantUnique("name"),
        TenantIndex("team_id"),
        TenantIndex("created_at"),
    )

    name: Mapped[str] = mapped_column(Text)
    team_id: Mapped[UUID | None] = mapped_column(Uuid)


class Card(TenantTable, Timestamped, Base):
    """One card of the collection. A manufacturer gives a number once a year."""

    __tablename__ = "cards"
    __table_args__ = (
        TenantForeignKey("manufacturer_id", "manufacturers", ondelete="SET NULL"),
        TenantForeignKey("team_id", "teams", ondelete="SET NULL"),
        TenantForeignKey("player_id", "players", ondelete="SET NULL"),
        TenantForeignKey("image_id", "files", ondelete="SET NULL"),
        TenantUnique("manufacturer_id", "year", "number"),
        TenantUnique("image_id"),
        TenantIndex("team_id"),
        TenantIndex("player_id"),
        TenantIndex("number"),
        TenantIndex("year"),
        TenantIndex("created_at"),
        one_of("condition", Condition),
        CheckConstraint(f"year BETWEEN {FIRST_YEAR} AND {LAST_YEAR}", name="year_possible"),
    )

    number: Mapped[str] = mapped_column(Text)
    year: Mapped[int] = mapped_column(Integer)
    condition: Mapped[str] = mapped_column(Text)
    notes: Mapped[str | None] = mapped_column(Text)
    manufacturer_id: Mapped[UUID | None] = mapped_column(Uuid)
    team_id: Mapped[UUID | None] = mapped_column(Uuid)
    player_id: Mapped[UUID | None] = mapped_column(Uuid)
    image_id: Mapped[UUID | None] = mapped_column(Uuid)

    @property
    def has_image(self) -> bool:
        return self.image_id is not None
