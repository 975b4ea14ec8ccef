"""psycopg alone: what is left when there is no ORM, no pool and no row-level security."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import make_url

from benchmarks.contenders.protocol import serve, timed

TABLE = "people_plain"


class Driver:
    def __init__(self, url: str, tenants: list[tuple[UUID, list[UUID]]]) -> None:
        target = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self.connection, self.tenants = psycopg.connect(target), tenants

    def _read(self, sql: str, number: int, wanted: int, *, by_id: bool) -> None:
        tenant, people = self.tenants[number % len(self.tenants)]
        given = [tenant, people[number % len(people)]] if by_id else [tenant]
        rows = self.connection.execute(sql.encode(), given).fetchall()
        self.connection.commit()
        assert len(rows) == wanted

    def point(self, number: int) -> None:
        self._read(f"SELECT name FROM {TABLE} WHERE tenant_id = %s AND id = %s", number, 1, by_id=True)

    def get(self, number: int) -> None:
        self._read(f"SELECT * FROM {TABLE} WHERE tenant_id = %s AND id = %s", number, 1, by_id=True)

    def list_10(self, number: int) -> None:
        self._read(f"SELECT * FROM {TABLE} WHERE tenant_id = %s ORDER BY id LIMIT 10", number, 10, by_id=False)

    def list_1000(self, number: int) -> None:
        self._read(f"SELECT * FROM {TABLE} WHERE tenant_id = %s ORDER BY id LIMIT 1000", number, 1000, by_id=False)

    def insert(self, number: int) -> None:
        tenant, _ = self.tenants[number % len(self.tenants)]
        unique = uuid4()
        self.connection.execute(
            f"INSERT INTO {TABLE} (tenant_id, id, name, email) VALUES (%s, %s, %s, %s)".encode(),
            [tenant, unique, "Person", f"{unique.hex}@bench.test"],
        )
        self.connection.commit()

    def update(self, number: int) -> None:
        tenant, people = self.tenants[number % len(self.tenants)]
        self.connection.execute(
            f"UPDATE {TABLE} SET name = %s WHERE tenant_id = %s AND id = %s".encode(),
            [f"Person {number}", tenant, people[number % len(people)]],
        )
        self.connection.commit()


def make(question: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    tenants = [(UUID(tenant), [UUID(person) for person in people]) for tenant, people in question["tenants"]]
    found: dict[str, Callable[..., Any]] = {}
    for way, url in question["urls"].items():
        driver = Driver(url, tenants)
        for name in ("point", "get", "list_10", "list_1000", "insert", "update"):
            found[f"{name}:{way}"] = timed(getattr(driver, name))
    return found


if __name__ == "__main__":
    serve(make)
