"""Mail goes out as the settings say: signed in where a server asks for it, and not waited for without an end."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from flask import Flask

from app import mail

GIVEN = {"mail_server": "127.0.0.1", "mail_tls": "none", "mail_from": "crm@service.test"}


class Postbox:
    """Keeps what it is given; lets in who knows the password."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.mails.append(envelope.content.decode())
        return "250 OK"

    @staticmethod
    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        is_known = isinstance(given, LoginPassword) and given == LoginPassword(b"crm", b"the mail secret")
        return AuthResult(success=is_known)


@pytest.fixture
def postbox() -> Iterator[tuple[Postbox, int]]:
    box = Postbox()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=port,
        authenticator=box.authenticate,
        auth_required=True,
        auth_require_tls=False,
    )
    controller.start()
    yield box, port
    controller.stop()


def send(app: Flask) -> None:
    with app.app_context():
        mail.send(to="ada@people.test", subject="Hello", body="There you are.")


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")
@pytest.mark.parametrize(
    ("username", "password", "arrives"),
    [("crm", "the mail secret", True), ("crm", "another", False), (None, None, False)],
)
def test_mail_arrives_where_the_username_and_password_set_are_right(
    make_app: Callable[..., Flask],
    postbox: tuple[Postbox, int],
    username: str | None,
    password: str | None,
    arrives: bool,
) -> None:
    box, port = postbox
    app = make_app(mail_port=port, mail_username=username, mail_password=password, **GIVEN)

    if arrives:
        send(app)
    else:
        with pytest.raises(mail.MailError):
            send(app)

    assert len(box.mails) == int(arrives)


def test_server_that_says_nothing_is_waited_for_as_long_as_set(make_app: Callable[..., Flask]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = make_app(mail_port=silent.getsockname()[1], mail_timeout_s=1, **GIVEN)
        started = time.monotonic()

        with pytest.raises(mail.MailError):
            send(app)

    assert 0.9 < time.monotonic() - started < 5
