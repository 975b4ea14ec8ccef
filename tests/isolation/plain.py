"""What the proofs at a plain driver connection share: binding by hand, and what they read and write."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg

Connection = psycopg.Connection[Any]
NAMES = "SELECT name FROM people ORDER BY name"
NEW = "INSERT INTO people (tenant_id, id, name, email) VALUES (%s, gen_random_uuid(), 'New', gen_random_uuid()::text)"


def bind(connection: Connection, tenant: UUID) -> None:
    connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])


def names(connection: Connection) -> list[str]:
    return [row[0] for row in connection.execute(NAMES).fetchall()]
