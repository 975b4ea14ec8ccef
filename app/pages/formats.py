"""How values look on a page."""

from __future__ import annotations

from datetime import date, datetime
from zlib import crc32

from flask import Flask

_HUES = 8  # as many as app.css has


def init_app(app: Flask) -> None:
    """Teach templates these formats."""
    for shown in (day, hue, initials, money):
        app.add_template_filter(shown)


def day(value: date | datetime) -> str:
    """Write a day so that no country reads it in another order: 5 Jan 2026."""
    return f"{value.day} {value:%b %Y}"


def money(amount_cents: int, currency: str) -> str:
    """Write an amount with its currency; the cents only where there are any."""
    whole, cents = divmod(amount_cents, 100)
    return f"{currency} {whole:,}{f'.{cents:02}' if cents else ''}"


def initials(name: str) -> str:
    """Return one or two letters that stand for a name or an e-mail address."""
    words = [word for word in name.partition("@")[0].replace(".", " ").split() if word[0].isalnum()]
    return "".join(word[0] for word in (words[:1] + words[1:][-1:])).upper() or "?"


def hue(name: str) -> int:
    """Return which of the colours a name has; the same one everywhere."""
    return crc32(name.encode()) % _HUES
