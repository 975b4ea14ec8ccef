"""Logs: one line for each thing that happened, with whose and what it was, and no secrets in it.

Code logs as anywhere in Python: `log.info("noun.verb", extra={...})`. Who acts for which tenant is added here.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO, cast

import structlog
from flask import Flask, Response, g, request, request_started
from structlog.typing import EventDict, Processor

from app.audit.redaction import REDACTED, is_secret_name
from app.config import Settings
from app.observability.tags import current_tags

log = logging.getLogger(__name__)

_BEGAN_AT = "_observed_from"
# What secrets look like wherever they turn up, as in the message of a library's exception.
_SECRETS = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?=@)"  # the password of a URL
    r"|(?P<bearer>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|(?P<named>\b(?:password|passwd|secret|token|api[_-]?key)\s*[=:]\s*)[^\s,;&'\"]+"
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # a JSON web token
    r"|\b(?:stf|once)_[A-Za-z0-9_-]{20,}|\bkey_[0-9a-f]{8}_[A-Za-z0-9_-]{20,}",  # see app/staff/secrets.py
    re.IGNORECASE,
)
# Each of the above has one of these in it, and most of what is logged has none: an id, a method, a name.
_SIGNS = frozenset(" \t\n\r\f\v:=._")
# Whoever can write a line break into a plain line writes a line of her own.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DEEPEST = 6
_OURS = ("app", "tenancy")


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to standard error as it is at that moment: tests and servers replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def configure_logging(*, level: str, as_json: bool) -> None:
    """Send what is logged in this process to standard error, a line each. Called again, the last call counts.

    level: of what this program logs; of the libraries below it, warnings at most. Handlers of others stay.
    """
    handler = _Stderr()
    handler.setFormatter(formatter(as_json=as_json))
    root = logging.getLogger()
    for former in [one for one in root.handlers if isinstance(one, _Stderr)]:
        root.removeHandler(former)
    root.addHandler(handler)
    for ours in _OURS:
        logging.getLogger(ours).setLevel(level)
    root.setLevel(max(logging.getLevelName(level), logging.WARNING))
    # Its lines hold the path as it was sent; the access line says the same without it.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    # SQLAlchemy's words about pools, said in the name of the class that rations them.
    logging.getLogger("tenancy.pools").setLevel(logging.WARNING)


def formatter(*, as_json: bool) -> logging.Formatter:
    """Return what makes a line of a record: JSON for machines, or aligned words for people."""
    first: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _add_tags,
    ]
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _redact,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        last.append(structlog.processors.JSONRenderer(default=str))
    else:
        last += [
            _escape,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), pad_event_to=28, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=first, processors=last)


def init_app(app: Flask, settings: Settings) -> None:
    """Log as the settings say, and a line for each request; before the tenancy extension, whose refusals count too."""
    configure_logging(level=settings.log_level, as_json=logs_json(settings))
    request_started.connect(_begin, app)
    app.after_request(_log_access)


def logs_json(settings: Settings) -> bool:
    """Tell whether lines are JSON: in production they are, unless the settings say otherwise."""
    if settings.log_format is None:
        return not settings.is_development
    return settings.log_format == "json"


def elapsed_s() -> float:
    """Return how long the current request has been served, in seconds."""
    return time.perf_counter() - cast("float", g.get(_BEGAN_AT, time.perf_counter()))


def _begin(_app: Flask) -> None:
    setattr(g, _BEGAN_AT, time.perf_counter())


def _log_access(response: Response) -> Response:
    if log.isEnabledFor(logging.INFO):
        served = {
            "method": request.method,
            "status": response.status_code,
            "duration_ms": round(elapsed_s() * 1000, 2),
        }
        log.info("request.served", extra=served)
    return response


def _add_tags(_logger: Any, _method: str, event: EventDict) -> EventDict:
    event.pop("message", None)  # left on the record by another handler, and no extra
    # What the code says itself is nearer to the truth than what surrounds it.
    for name, value in current_tags().items():
        event.setdefault(name, value)
    return event


def _redact(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return cast("EventDict", _cleaned(event, _DEEPEST))


def _cleaned(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value if _SIGNS.isdisjoint(value) else _SECRETS.sub(_replaced, value)
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, bytes | bytearray | memoryview) or depth == 0:
        return REDACTED
    if isinstance(value, Mapping):
        return {
            str(name): REDACTED if _is_secret_name(str(name)) and inner is not None else _cleaned(inner, depth - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(inner, depth - 1) for inner in value]
    return _SECRETS.sub(_replaced, str(value))


@functools.lru_cache(maxsize=4_096)
def _is_secret_name(name: str) -> bool:
    return is_secret_name(name)


def _replaced(found: re.Match[str]) -> str:
    return (found["scheme"] or found["bearer"] or found["named"] or "") + REDACTED


def _escape(_logger: Any, _method: str, event: EventDict) -> EventDict:
    def escaped(text: str) -> str:
        return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)

    return {
        name: escaped(value) if isinstance(value, str) and name != "exception" else value
        for name, value in event.items()
    }
