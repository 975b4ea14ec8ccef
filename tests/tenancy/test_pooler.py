"""A pooler in statement mode, by what it does on the wire: it cuts the connection at BEGIN."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import make_url

from tenancy.binding import create_async_tenant_engine, create_tenant_engine
from tenancy.embedded import start
from tenancy.errors import UnsafeConnectionError
from tests.conftest import FAST, ROLES, bootstrap


class StatementPooler:
    """Passes bytes between clients and the server until a client begins a transaction."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                for source, target in ((client, server), (server, client)):
                    thread = threading.Thread(target=self._pass_on, args=(source, target), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with source, contextlib.suppress(OSError):
            while (data := source.recv(65536)) and b"BEGIN" not in data:
                target.sendall(data)
            for end in (source, target):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=5)


@pytest.fixture
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start(data_dir=tmp_path_factory.mktemp("pooler") / "postgres", tcp_port=0, settings=FAST) as server:
        bootstrap(server.url(), tables=False)
        server.set_password(ROLES.app, "pooled")
        direct = make_url(server.tcp_url(role=ROLES.app))
        pooler = StatementPooler(direct.port or 0)
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        yield direct.set(port=pooler.port).update_query_dict(plain).render_as_string(hide_password=False)
        pooler.close()


async def test_statement_mode_is_refused_at_connect(url: str) -> None:
    """T074. The pooler itself is not run here."""
    asynchronous = create_async_tenant_engine(url)

    with pytest.raises(UnsafeConnectionError, match="set pool_mode = transaction"):
        create_tenant_engine(url).connect()
    with pytest.raises(UnsafeConnectionError, match="set pool_mode = transaction"):
        await asynchronous.connect()
