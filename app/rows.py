"""What routes of one row have in common: finding, adding, changing, deleting it, and narrowing a list of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

from app.db import session
from app.errors import RowNotFoundError
from app.schemas import Body

Row = TypeVar("Row")


def found(model: type[Row], row_id: UUID) -> Row:
    """Return the tenant's row.

    Raises: RowNotFoundError - the same whether nobody or somebody else has it.
    """
    row: Row | None = session().get(model, row_id)
    if row is None:
        raise RowNotFoundError
    return row


def added(row: Row) -> Row:
    """Add a row and commit."""
    session().add(row)
    session().commit()
    return row


def changed(row: Row, change: Body) -> Row:
    """Set the fields that the body names, and commit."""
    for field, value in change.model_dump(exclude_unset=True).items():
        setattr(row, field, value)
    session().flush()
    session().refresh(row)  # for `updated_at`, which the server sets
    session().commit()
    return row


def deleted(row: object) -> tuple[str, int]:
    """Delete a row and commit; returns the answer that says so."""
    session().delete(row)
    session().commit()
    return "", 204


def narrowed(rows: Select[Row], name: InstrumentedAttribute[str], part: str | None) -> Select[Row]:
    """Keep the rows whose name has this part, in either case; None keeps all."""
    return rows if part is None else rows.where(name.icontains(part, autoescape=True))


def equal(rows: Select[Row], wanted: Mapping[InstrumentedAttribute[Any], object]) -> Select[Row]:
    """Keep the rows that have each wanted value; None wants any."""
    return rows.where(*(column == value for column, value in wanted.items() if value is not None))
