"""Pictures of cards, which are a file and a card at once, and the collection in figures."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from app.cards.models import Card, Condition
from app.db import release_connection, session
from app.errors import RowNotFoundError
from app.files.images import kind_of
from app.files.models import File
from app.files.operations import add_file, discard, remove_file, stored
from app.files.uploads import max_upload_bytes, received_body
from app.rows import found
from app.usage.quotas import Quota, release


def replace_image(card_id: UUID, name: str | None) -> File:
    """Make the body of the current request the picture of a card, in place of the one it had.

    name: what its sender calls it; None names it by the card's number.
    Raises: RowNotFoundError, FileTooLargeError, UnusableImageError, StorageDownError - the card keeps what it had.
    """
    number = found(Card, card_id).number
    max_bytes = max_upload_bytes(session())
    release_connection()  # a slow sender, or a slow storage, must not hold it
    with received_body(max_bytes) as content:
        kind = kind_of(content)
        with stored(content, content_type=kind.content_type, max_bytes=max_bytes) as picture:
            card = _locked(card_id)
            former = _image_of(card)
            file = add_file(session(), picture, name=name or f"{number}.{kind.extension}")
            card.image_id = file.id
            left = [] if former is None else [remove_file(session(), former)]
            session().refresh(file)
            session().commit()
    for one in left:
        discard(one)
    return file


def remove_image(card_id: UUID) -> None:
    """Remove the picture of a card.

    Raises: RowNotFoundError - there is no such card, or it has none.
    """
    card = _locked(card_id)
    image = _image_of(card)
    if image is None:
        raise RowNotFoundError
    card.image_id = None
    left = remove_file(session(), image)
    session().commit()
    discard(left)


def image_of(card_id: UUID) -> File:
    """Return the picture of a card.

    Raises: RowNotFoundError - there is no such card, or it has none.
    """
    image = _image_of(found(Card, card_id))
    if image is None:
        raise RowNotFoundError
    return image


def delete_card(card_id: UUID) -> None:
    """Delete a card, and its picture.

    Raises: RowNotFoundError
    """
    card = _locked(card_id)
    image = _image_of(card)
    release(session(), Quota.CARDS)
    session().delete(card)
    session().flush()
    left = [] if image is None else [remove_file(session(), image)]
    session().commit()
    for one in left:
        discard(one)


def summarize() -> dict[str, Any]:
    """Return the collection in figures, as plain values."""
    by_condition = select(Card.condition, func.count()).group_by(Card.condition)
    counts = {row[0]: row[1] for row in session().execute(by_condition)}
    cards, with_image, first, last, now = (
        session()
        .execute(select(func.count(), func.count(Card.image_id), func.min(Card.year), func.max(Card.year), func.now()))
        .one()
    )
    return {
        "cards": cards,
        "with_image": with_image,
        "by_condition": dict.fromkeys(Condition, 0) | counts,
        "first_year": first,
        "last_year": last,
        "counted_at": now.isoformat(),
    }


def _locked(card_id: UUID) -> Card:
    """Return a card, locked: of two requests that change its picture, the second sees what the first has done."""
    card: Card | None = session().get(Card, card_id, with_for_update=True, populate_existing=True)
    if card is None:
        raise RowNotFoundError
    return card


def _image_of(card: Card) -> File | None:
    image: File | None = session().get(File, card.image_id) if card.image_id is not None else None
    return image
