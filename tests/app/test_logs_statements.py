"""SQL comments: the server sees whose statement it is, where the settings ask for that, and nothing that was sent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import text

from app.auth.access import anyone
from app.db import session
from tests.app.conftest import PASSWORD, Visitor, new_email, visitor_of

SEEN = text("SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()")


@pytest.fixture
def seen_by_server(make_app: Callable[..., Flask]) -> Callable[..., tuple[str, Visitor]]:
    """Return what the server shows of the statement that a request runs, and who asked."""

    def ask(**given: bool) -> tuple[str, Visitor]:
        app = make_app(**given)

        @app.get("/api/v1/seen/<name>")
        @anyone(reason="a test")
        def seen(name: str) -> str:
            assert name == "hunter22"
            return str(session().execute(SEEN).scalar_one())

        client = app.test_client(use_cookies=False)
        body = {"organization_name": "Acme", "admin_email": new_email(), "admin_password": PASSWORD, "plan": "basic"}
        acme = visitor_of(client, client.post("/api/v1/auth/register-organization", json=body))
        answer = acme.get("/api/v1/seen/hunter22", headers={"X-Request-ID": "req-12345678"})
        return answer.get_data(as_text=True), acme

    return ask


def test_server_sees_tenant_request_and_route(seen_by_server: Callable[..., tuple[str, Visitor]]) -> None:
    statement, acme = seen_by_server(sql_comments=True)

    assert statement.startswith(SEEN.text)
    assert f"tenant_id='{acme.tenant_id}'" in statement
    assert "request_id='req-12345678'" in statement
    assert "route='/api/v1/seen/_name_'" in statement
    assert "hunter22" not in statement
    assert acme.email not in statement


def test_server_sees_the_statement_alone_unless_asked(seen_by_server: Callable[..., tuple[str, Visitor]]) -> None:
    assert seen_by_server()[0] == SEEN.text
