"""The development server: takes its port before anything slow begins, and stops cleanly when asked."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

_HOST = "127.0.0.1"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class PortError(Exception):
    """The port cannot be had; says which, and what to do."""


class StopAsked(BaseException):
    """Ctrl-C or SIGTERM; unwinds the program from wherever it is, and no `except Exception` swallows it."""


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def version_string(self) -> str:
        return "crm"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.log("info", "%s %r %s", self.command, self.path, code)


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into StopAsked. Later ones are ignored, so that nothing interrupts the end."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise StopAsked

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def listen(port: int) -> Iterator[socket.socket]:
    """Take the port on this machine only; 0 takes a free one.

    Raises: PortError - someone else has it, or this account may not have it.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
            listener.listen(128)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            raise PortError(
                f"Port {port} {reason}. Stop what has it, or choose another: make run APP_PORT=5001."
            ) from None
        yield listener


def serve(app: Flask, listener: socket.socket) -> None:
    """Serve the application, a thread for each request, until StopAsked."""
    port: int = listener.getsockname()[1]
    with make_server(_HOST, port, app, threaded=True, request_handler=_Handler, fd=listener.fileno()) as server:
        server.serve_forever()
