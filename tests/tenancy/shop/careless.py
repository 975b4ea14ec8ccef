"""The shop with the mistakes people make: each route below lets a tenant reach another, or cannot be judged."""

from __future__ import annotations

from uuid import UUID

import psycopg
from flask import Flask, abort, request
from shop import create_app as create_careful_app
from sqlalchemy import make_url

SUPERUSER_URL = "set by the test"


def create_app(url: str) -> Flask:
    app = create_careful_app(url)
    admin = make_url(SUPERUSER_URL).set(drivername="postgresql", database=make_url(url).database)

    def query(statement: str, *values: object) -> list[tuple[object, ...]]:
        """Past every policy: as the platform's login, or as a superuser."""
        with psycopg.connect(admin.render_as_string(hide_password=False), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    @app.get("/orders")
    def all_orders() -> list[object]:
        return [title for (title,) in query("SELECT title FROM orders")]

    @app.get("/orders/<uuid:order_id>")
    def any_order(order_id: UUID) -> dict[str, object]:
        rows = query("SELECT title FROM orders WHERE id = %s", order_id)
        return {"title": rows[0][0]} if rows else abort(404)

    @app.delete("/orders/<uuid:order_id>")
    def remove_any_order(order_id: UUID) -> tuple[str, int]:
        query("DELETE FROM orders WHERE id = %s", order_id)
        return "", 204

    @app.get("/orders/<uuid:order_id>/exists")
    def says_forbidden(order_id: UUID) -> dict[str, str]:
        tenancy = app.extensions["tenancy"]
        rows = query("SELECT tenant_id FROM orders WHERE id = %s", order_id)
        if rows and rows[0][0] != tenancy.tenant.id:
            abort(403)
        return {"order": str(order_id)} if rows else abort(404)

    @app.post("/orders")
    def reveals_customer() -> tuple[dict[str, str], int]:
        """The database refuses the foreign customer; the answer still tells that there is one."""
        customer = request.json["customer_id"]
        if customer and not query("SELECT 1 FROM customers WHERE id = %s", customer):
            abort(404)
        return {"title": request.json["title"]}, 201

    @app.get("/things/<thing>")
    def things(thing: str) -> str:
        return thing

    @app.get("/moved")
    def sends_elsewhere() -> tuple[str, int, dict[str, str]]:
        return "", 302, {"Location": "/sign-in"}

    @app.post("/import")
    def wants_a_file() -> str:
        return request.files["file"].filename or ""

    @app.get("/vanishing/<uuid:order_id>")
    def never_there(order_id: UUID) -> str:
        abort(404, str(order_id))

    return app
