"""Cards and pictures for tests, and a look behind them."""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID

from flask import Flask
from PIL import Image
from werkzeug.test import TestResponse

from app.files.models import File
from app.files.operations import stored_bytes
from app.files.storage import Files
from tenancy.context import tenant_scope
from tenancy.namespaces import StoredObject
from tests.app.conftest import Visitor

CARDS = "/api/v1/cards"


def picture(kind: str = "PNG", *, side: int = 3, color: str = "red") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (side, side), color).save(content, kind)
    return content.getvalue()


def add_card(visitor: Visitor, number: str = "7", **fields: Any) -> str:
    """Add a card, and return its address."""
    response = visitor.post(CARDS, json={"number": number, "year": 1990, "condition": "mint", **fields})
    assert response.status_code == 201, response.get_data(as_text=True)
    return response.headers["Location"]


def add(visitor: Visitor, kind: str, name: str, **fields: Any) -> str:
    """Add a manufacturer, team or player, and return its id."""
    response = visitor.post(f"/api/v1/{kind}", json={"name": name, **fields})
    assert response.status_code == 201, response.get_data(as_text=True)
    found: str = response.get_json()["id"]
    return found


def put_image(visitor: Visitor, card: str, content: bytes, query: str = "", **options: Any) -> TestResponse:
    return visitor.call("PUT", f"{card}/image{query}", data=content, **{"content_type": "image/png"} | options)


def files_of(app: Flask) -> Files:
    found: Files = app.extensions["files"]
    return found


def objects(app: Flask, tenant_id: UUID) -> list[StoredObject]:
    """What lies in the storage for the tenant."""
    with tenant_scope(tenant_id):
        return list(files_of(app).storage.list())


def counted_bytes(app: Flask, tenant_id: UUID) -> tuple[int, int]:
    """The tenant's sum as it is kept, and as its rows and objects have it."""
    with tenant_scope(tenant_id), app.extensions["auth"].database.sessions() as session:
        rows = sum(file.size_bytes for file in session.query(File))
        kept = stored_bytes(session)
    assert sum(one.size_bytes for one in objects(app, tenant_id)) == rows
    return kept, rows
