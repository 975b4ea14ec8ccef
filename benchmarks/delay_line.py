"""A TCP proxy that delays each byte by a fixed time each way: bytes sent back to back arrive back to back."""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65536


class DelayLine:
    """Forwards one port of 127.0.0.1 to another, `delay_s` later, and counts the client's flights.

    flights: how often the client sent after the server had last spoken: the waits a request pays for.
    """

    def __init__(self, target: tuple[str, int], *, delay_s: float) -> None:
        self._target, self._delay_s = target, delay_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.flights = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._server_spoke: dict[socket.socket, bool] = {}
        self._due: list[tuple[float, int, socket.socket, bytes]] = []
        self._order = itertools.count()
        self._is_running = True
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_running = False
        self._thread.join(timeout=5)
        for peer in (self._listener, *self._peers):
            peer.close()
        self._selector.close()

    def _run(self) -> None:
        while self._is_running:
            wait_s = min(0.05, max(0.0, self._due[0][0] - time.perf_counter())) if self._due else 0.05
            # select() sleeps too coarsely for half a millisecond, so the last stretch is polled.
            for key, _ in self._selector.select(0 if wait_s < 0.002 else wait_s):
                self._read(key.fileobj)  # type: ignore[arg-type]  # only sockets are registered
            while self._due and self._due[0][0] <= time.perf_counter():
                _, _, peer, data = heapq.heappop(self._due)
                self._deliver(peer, data)

    def _read(self, source: socket.socket) -> None:
        if source is self._listener:
            client, _ = source.accept()
            server = socket.create_connection(self._target)
            for one, other in ((client, server), (server, client)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._peers[one] = other
                self._selector.register(one, selectors.EVENT_READ)
            self._clients.add(client)
            self._server_spoke[client] = True
            return
        try:
            data = source.recv(CHUNK_BYTES)
        except OSError:
            data = b""
        peer = self._peers[source]
        if data and source in self._clients:
            self.flights += self._server_spoke[source]
            self._server_spoke[source] = False
        if not data:
            self._selector.unregister(source)
        heapq.heappush(self._due, (time.perf_counter() + self._delay_s, next(self._order), peer, data))

    def _deliver(self, peer: socket.socket, data: bytes) -> None:
        if peer in self._clients:
            self._server_spoke[peer] = True
        try:
            peer.sendall(data) if data else peer.shutdown(socket.SHUT_WR)
        except OSError:
            return
