"""The longest life of an impersonation, as the settings have it."""

from __future__ import annotations

from datetime import timedelta

from flask import Flask

from app.config import Settings

_EXTENSION = "impersonation_ttl"


def init_app(app: Flask, settings: Settings) -> None:
    app.extensions[_EXTENSION] = timedelta(seconds=settings.impersonation_ttl_s)


def longest_life(app: Flask) -> timedelta:
    """Return how long one impersonation may last at most."""
    found: timedelta = app.extensions[_EXTENSION]
    return found
