"""One request: what it holds open, how long, and the WSGI layer that leaves nothing of it behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any
from uuid import UUID

from tenancy.context import current_scope, outside_any_scope, tenant_scope
from tenancy.directory import TenantRecord
from tenancy.errors import NoTenantError
from tenancy.resolvers import ORIGINAL_PATH, PathPrefix, Resolver, Trace
from tenancy.session import TenantSession

VISIT = "tenancy.visit"


class Opened:
    """What the visits of one application share: how a session is made, and who has not closed yet."""

    def __init__(self, make_session: Callable[[], TenantSession]) -> None:
        self.make_session = make_session
        self.visits: set[Visit] = set()


class Visit:
    """What one request holds open: its tenant's scope and, once asked for, a session in it."""

    def __init__(
        self,
        opened: Opened,
        trace: Trace,
        tenant: TenantRecord,
        account: UUID | None,
        *,
        reads_only: bool,
        after: int | None,
    ) -> None:
        self.trace = trace
        self.tenant = tenant
        self.is_streaming = False
        self._open_scope = partial(tenant_scope, tenant.id, account, reads_only=reads_only, after=after)
        self._opened = opened
        self._session: TenantSession | None = None
        self._block: AbstractContextManager[Any] | None = self._open_scope()
        self._block.__enter__()
        self._scope = current_scope()
        opened.visits.add(self)

    @property
    def session(self) -> TenantSession:
        if self._session is None:
            if self._block is None and not self.is_streaming:
                raise NoTenantError("the request has ended", hint="use tenancy.session while it is served")
            self._session = self._opened.make_session()
        return self._session

    def scope_again(self) -> AbstractContextManager[Any]:
        """The scope for one part of a streamed body: the request's own has usually ended by then."""
        if self._scope is not None and current_scope() is self._scope:
            return nullcontext()
        return self._open_scope()

    def close(self, error: BaseException | None = None) -> None:
        """Close the session, unless a streamed body still needs it, then the scope. May be called again."""
        try:
            if not self.is_streaming:
                self.close_session()
        finally:
            block, self._block = self._block, None
            if block is not None:
                block.__exit__(type(error) if error else None, error, None)

    def close_session(self) -> None:
        self.is_streaming = False
        self._opened.visits.discard(self)
        session, self._session = self._session, None
        if session is not None:
            session.close()


class Body(Iterator[Any]):
    """A streamed body, each part of which is made inside the tenant's scope. Closing it closes the session."""

    def __init__(self, parts: Iterable[Any], visit: Visit) -> None:
        self._parts = parts
        self._rest = iter(parts)
        self._visit = visit

    def __next__(self) -> Any:
        with self._visit.scope_again():
            return next(self._rest)

    def close(self) -> None:
        with self._visit.scope_again():
            try:
                close = getattr(self._parts, "close", None)
                if close is not None:
                    close()
            finally:
                self._visit.close_session()


class Door:
    """The outermost WSGI layer: a request begins in no scope, and whatever fails inside leaves none behind."""

    def __init__(self, inner: Callable[..., Iterable[bytes]], resolvers: Iterable[Resolver]) -> None:
        self._inner = inner
        self._prefixes = [resolver.prefix_of for resolver in resolvers if isinstance(resolver, PathPrefix)]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        prefix = next(filter(None, (prefix_of(path) for prefix_of in self._prefixes)), "")
        if prefix:
            environ[ORIGINAL_PATH] = path
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
            environ["PATH_INFO"] = path[len(prefix) :]
        with outside_any_scope():
            try:
                return self._inner(environ, start_response)
            except BaseException:
                if VISIT in environ:
                    environ[VISIT].is_streaming = False  # nobody will close a body that was not handed over
                raise
            finally:
                if VISIT in environ:
                    environ[VISIT].close()
