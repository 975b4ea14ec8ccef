"""Holdings: what a tenant has of each quota that is of having, counted from its rows."""

from __future__ import annotations

from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.cards.models import Card
from app.files.models import File
from app.members.models import Invitation, Member
from app.plans.changes import register_counter
from app.plans.terms import Quota


def init_app(app: Flask) -> None:
    """Say how each is counted: for a counter's beginning, for counting again, and before a change of plan."""
    register_counter(app, Quota.USERS, count_seats)
    register_counter(app, Quota.STORAGE_BYTES, count_bytes)
    register_counter(app, Quota.CARDS, count_cards)


def count_seats(session: Session) -> int:
    """Return how many members there are, and open invitations, which each keep a seat until they are ended."""
    members = select(func.count()).select_from(Member).scalar_subquery()
    is_open = (Invitation.accepted_at.is_(None), Invitation.revoked_at.is_(None))
    invited = select(func.count()).select_from(Invitation).where(*is_open).scalar_subquery()
    return session.scalar(select(members + invited)) or 0


def count_bytes(session: Session) -> int:
    """Return how many bytes the files of the session's tenant have together."""
    return int(session.scalar(select(func.coalesce(func.sum(File.size_bytes), 0))) or 0)


def count_cards(session: Session) -> int:
    """Return how many cards the session's tenant has."""
    return session.scalar(select(func.count()).select_from(Card)) or 0
