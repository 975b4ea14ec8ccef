"""Mail: one port, by SMTP through Flask-Mailman; without a server, development logs what it would have sent."""

from __future__ import annotations

import logging
from smtplib import SMTPException

from flask import Flask, current_app
from flask_mailman import EmailMessage, Mail

from app.config import Settings

log = logging.getLogger(__name__)

_EXTENSION = "mail_port"


class MailError(Exception):
    """A mail could not be handed over to the server."""


def init_app(app: Flask, settings: Settings) -> None:
    """Prepare the way out; nothing connects before the first mail."""
    app.extensions[_EXTENSION] = settings
    if settings.mail_server is None:
        return
    app.config.update(
        MAIL_SERVER=settings.mail_server,
        MAIL_PORT=settings.mail_port,
        MAIL_USE_TLS=settings.mail_tls == "starttls",
        MAIL_USE_SSL=settings.mail_tls == "tls",
        MAIL_USERNAME=settings.mail_username,
        MAIL_PASSWORD=settings.mail_password.get_secret_value() if settings.mail_password else None,
        MAIL_DEFAULT_SENDER=settings.mail_from,
        MAIL_TIMEOUT=settings.mail_timeout_s,
        MAIL_BACKEND="smtp",
    )
    Mail(app)


def can_send() -> bool:
    """Tell whether mail goes out of this application."""
    return _settings().mail_server is not None


def is_development() -> bool:
    """Tell whether whoever runs this application is the only one who reaches it."""
    return _settings().is_development


def send(*, to: str, subject: str, body: str) -> None:
    """Send one mail as plain text; holds no connection of the database meanwhile, if the caller has given it back.

    Raises: MailError - there is no server, or it did not take the mail.
    """
    if not can_send():
        if is_development():
            log.warning("mail.not_sent", extra={"to": to, "subject": subject, "body": body})
            return
        raise MailError("no mail server is set")
    try:
        # Closed by the block: the extension leaves a connection open whose server refuses a mail.
        with current_app.extensions["mailman"].get_connection() as connection:
            EmailMessage(subject, body, to=[to], connection=connection).send()
    except (OSError, SMTPException) as error:
        log.warning("mail.failed", extra={"error": type(error).__name__})
        raise MailError("the mail server did not take the mail") from error


def _settings() -> Settings:
    found = current_app.extensions[_EXTENSION]
    if not isinstance(found, Settings):
        raise TypeError(f"extension {_EXTENSION!r} is {type(found).__name__}")
    return found
