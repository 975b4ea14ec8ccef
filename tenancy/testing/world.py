"""A world to attack: one database in which two tenants have rows in every tenant table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import Engine, MetaData, Table
from sqlalchemy.orm import sessionmaker

from tenancy.rls import Roles
from tenancy.session import TenantSession

RowFactory = Callable[[Table, Mapping[str, Any]], Mapping[str, Any] | None]
RowsByTenant = Mapping[UUID, list[dict[str, Any]]]
Snapshot = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class SeededTenant:
    """One of the two tenants. Its slug is in every text that was made up for it."""

    id: UUID
    slug: str


class World:
    """One database with two seeded tenants, ready to be attacked; made by `seed`.

    url: gives the SQLAlchemy URL of a role; `postgres` stands for the superuser.
    tenants: the owner, whose rows are aimed at, and the stranger.
    rows: by the key of each table in the metadata, then by tenant id: the rows made, as the superuser reads
        them. Rows of account and platform tables stand under the tenant they were made for.
    """

    metadata: MetaData
    roles: Roles
    url: Callable[[str], str]
    tenants: tuple[SeededTenant, SeededTenant]
    rows: Mapping[str, RowsByTenant]

    @property
    def app_engine(self) -> Engine:
        """The app role's tenant engine, with one pooled connection; made when first asked for."""
        raise NotImplementedError

    @property
    def sessions(self) -> sessionmaker[TenantSession]:
        raise NotImplementedError

    @property
    def admin(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A superuser's connection in autocommit, past every policy."""
        raise NotImplementedError

    def snapshot(self, tables: Iterable[str] | None = None) -> Snapshot:
        """Return each table's rows, as sorted lines of COPY text, as the superuser sees them; None for all tables."""
        raise NotImplementedError

    def restore(self) -> list[str]:
        """Put all rows back exactly as they were seeded, past triggers; return the tables that had changed."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of every connection; the world can go on to be used, and opens new ones."""


def seed(
    metadata: MetaData, url: Callable[[str], str], *, roles: Roles | None = None, factory: RowFactory | None = None
) -> World:
    """Make two tenants with rows in every tenant table, in the order of their foreign keys.

    url: of a migrated database without rows, by role. factory: is asked about each row; gets the table and the
    guessed values, and returns the values to use instead or in addition, or None when the guess is fine.
    Raises: SeedError - the database refused a row; names the table and the constraint.
    """
    raise NotImplementedError
