"""The application, as the test kit's plugin takes it: by the app role's URL, with the platform's beside it."""

from __future__ import annotations

from flask import Flask
from sqlalchemy import make_url

import app
from app.auth.passwords import Passwords
from app.config import Settings, development_settings
from tests.conftest import ROLES

PASSWORD = "Correct horse battery 1"


def settings_for(url: str) -> Settings:
    platform = make_url(url).set(username=ROLES.platform).render_as_string(hide_password=False)
    return development_settings(
        database_url=url,
        platform_database_url=platform,
        argon2_time_cost=1,
        argon2_memory_kib=8,
        argon2_parallelism=1,
        sign_in_attempts=100_000,
        usage_flush_s=300,  # or one tenant's usage would be written while another's request is watched
    )


def create_app(url: str) -> Flask:
    return app.create_app(settings_for(url))


def password_hash() -> str:
    """The hash of `PASSWORD`, which the seeded accounts have."""
    return Passwords(settings_for("postgresql+psycopg://nobody@nowhere/nothing")).hash(PASSWORD)
