"""The front desk: everything that signing somebody in takes, put together once by `create_app`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from flask import current_app
from sqlalchemy import Row

from app.auth.passwords import Passwords
from app.auth.tokens import AccessTokens
from app.config import Settings
from app.db import Database
from app.plans.standing import Standings
from app.tenants.registrar import Registrar
from tenancy.context import account_scope
from tenancy.directory import Directory
from tenancy.lookups import Lookup

EXTENSION = "auth"


@dataclass(frozen=True)
class Desk:
    """What the operations of `auth` work with."""

    database: Database
    directory: Directory
    passwords: Passwords
    access_tokens: AccessTokens
    standings: Standings
    refresh_token_ttl: timedelta
    sign_in_ttl: timedelta
    registrar: Registrar
    staff_sign_in_ttl: timedelta
    staff_link_ttl: timedelta

    def look_up(self, lookup: Lookup, key: Any) -> Sequence[Row[Any]]:
        """Read by exact key, before anybody is known."""
        with self.database.engine.connect() as connection:
            return lookup.fetch(connection, key)

    def look_up_for(self, account_id: UUID, lookup: Lookup) -> Sequence[Row[Any]]:
        """Read what belongs to one account, in whichever tenant."""
        with account_scope(account_id), self.database.engine.connect() as connection:
            return lookup.fetch(connection)


def open_desk(
    settings: Settings, database: Database, directory: Directory, registrar: Registrar, standings: Standings
) -> Desk:
    """Put the desk together from the settings."""
    return Desk(
        database=database,
        directory=directory,
        passwords=Passwords(settings),
        access_tokens=AccessTokens(settings),
        standings=standings,
        refresh_token_ttl=timedelta(seconds=settings.refresh_token_ttl_s),
        sign_in_ttl=timedelta(seconds=settings.sign_in_ttl_s),
        registrar=registrar,
        staff_sign_in_ttl=timedelta(seconds=settings.staff_sign_in_ttl_s),
        staff_link_ttl=timedelta(seconds=settings.staff_link_ttl_s),
    )


def desk() -> Desk:
    """Return the desk of the current application."""
    found = current_app.extensions[EXTENSION]
    if not isinstance(found, Desk):
        raise TypeError(f"extension {EXTENSION!r} is {type(found).__name__}, not a Desk")
    return found
