"""Threads and executors: the same scope, opened anew in the thread and closed when the function returns."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from tenancy.context import account_scope, current_scope, outside_any_scope, require_tenant, tenant_scope
from tenancy.errors import PlatformAccessError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class _Ids:
    """What is left of a scope when it crosses; can be pickled, for processes."""

    tenant: UUID | None
    account: UUID | None
    reads_only: bool
    after: int

    def open(self) -> AbstractContextManager[None]:
        if self.tenant is not None:
            return tenant_scope(self.tenant, self.account, reads_only=self.reads_only, after=self.after)
        if self.account is not None:
            return account_scope(self.account)
        raise AssertionError("ids of no scope")


def submit(executor: Executor, function: Callable[P, T], /, *positional: P.args, **named: P.kwargs) -> Future[T]:
    """Call the function in the executor, in the scope that is open here.

    Raises: NoTenantError - none is open. PlatformAccessError - it is the platform's, which is not carried.
    """
    return executor.submit(in_this_scope(function), *positional, **named)


def in_this_scope(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function bound to the scope that is open here, for `Thread(target=...)` and pools.

    It may be called later, elsewhere, and more than once.
    Raises: NoTenantError - none is open. PlatformAccessError - it is the platform's, which is not carried.
    """
    scope = current_scope()
    if scope is None or (scope.account is None and scope.platform is None):
        require_tenant()
    if scope is None or scope.platform is not None:
        raise PlatformAccessError(
            "a platform scope does not cross into a thread", hint="open platform_scope inside the function"
        )
    return partial(_call, _Ids(scope.tenant, scope.account, scope.reads_only, scope.after), function)


def _call(ids: _Ids, function: Callable[..., T], /, *positional: Any, **named: Any) -> T:
    # A pool's thread may have been left in a scope by what ran before.
    with outside_any_scope(), ids.open():
        return function(*positional, **named)
