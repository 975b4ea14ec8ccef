"""Celery: a task class that signs the scope when a task is asked for, and opens it where the task runs.

Importing it needs Celery, which is no dependency of the library.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from celery import Task, current_task
from celery.exceptions import Ignore, Reject

from tenancy.context import current_account, current_tenant, require_tenant, tenant_scope
from tenancy.directory import Directory
from tenancy.errors import DiscardedJobError, EnvelopeRefusedError, ParkedJobError
from tenancy.jobs.carrying import Carrier
from tenancy.jobs.running import SERVED, run_carried

HEADER = "tenancy_envelope"
log = logging.getLogger(__name__)


class _Ran(NamedTuple):
    """Whom a task was run for, on its request. A message's headers are attributes there too, but of no such type."""

    tenant: UUID
    account: UUID | None


def tenant_task(
    carrier: Carrier, directory: Directory, *, park_s: float = 300.0, served: Collection[str] = SERVED
) -> type[Task]:
    """Return a base class for tasks, for `Celery(task_cls=...)` or `@app.task(base=...)`.

    Asking for a task needs a tenant in scope; what follows a task in a chain runs for the same tenant. Where the task
    runs, a message that is not signed for it is rejected, and one of a tenant that is gone ignored; both are logged.
    park_s: after this long, in seconds, the task of a suspended tenant is looked at again, and so until it runs.
    """
    return type(
        "TenantTask",
        (_TenantTask,),
        {"carrier": carrier, "directory": directory, "park_s": park_s, "served": frozenset(served), "abstract": True},
    )


class _TenantTask(Task):  # type: ignore[misc]  # Celery is published without types
    abstract = True
    carrier: Carrier
    directory: Directory
    park_s: float
    served: frozenset[str]

    def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        headers = self._sealed(args, kwargs, options.pop("headers", None))
        return super().apply_async(args, kwargs, *more, headers=headers, **options)

    def apply(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        headers = self._sealed(args, kwargs, options.pop("headers", None))
        return super().apply(args, kwargs, *more, headers=headers, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.request.called_directly:  # a plain call, in the scope of whoever makes it
            return super().__call__(*args, **kwargs)
        envelope, arguments = _envelope_of(self.request), _arguments(args, kwargs)
        try:
            return run_carried(
                partial(self._run, args, kwargs),
                envelope=envelope,
                carrier=self.carrier,
                directory=self.directory,
                task=str(self.name),
                arguments=arguments,
                served=self.served,
            )
        except EnvelopeRefusedError as error:
            log.error("task.refused", extra={"task": self.name, "why": error.message})
            raise Reject(error.message, requeue=False) from error
        except DiscardedJobError as error:
            log.warning("task.discarded", extra={"task": self.name, "why": error.message})
            raise Ignore(error.message) from error
        except ParkedJobError as error:
            if self.request.is_eager:
                raise
            self._park(self.carrier.renew(envelope, task=str(self.name), arguments=arguments))
            raise Ignore(error.message) from error

    def _run(self, args: Any, kwargs: Any) -> Any:
        # For what Celery asks for in this task's name after it has returned, such as the next of a chain.
        self.request.tenancy_ids = _Ran(require_tenant(), current_account())
        return self.run(*args, **kwargs)

    def _park(self, envelope: str) -> None:
        log.info("task.parked", extra={"task": self.name})
        again: Any = self.signature_from_request(countdown=self.park_s, retries=self.request.retries)
        super().apply_async(
            again.args, again.kwargs, **{**again.options, "headers": {**(self.request.headers or {}), HEADER: envelope}}
        )

    def _sealed(self, args: Any, kwargs: Any, headers: dict[str, Any] | None) -> dict[str, Any]:
        """Add the envelope of the tenant in scope, or else of the task that Celery has just run.

        Raises: NoTenantError - there is neither.
        """
        arguments = _arguments(args, kwargs)
        ids = getattr(current_task.request, "tenancy_ids", None) if current_task else None
        if current_tenant() is None and isinstance(ids, _Ran):
            with tenant_scope(ids.tenant, ids.account):
                envelope = self.carrier.carry(str(self.name), arguments=arguments)
        else:
            envelope = self.carrier.carry(str(self.name), arguments=arguments)
        return {**(headers or {}), HEADER: envelope}


def _envelope_of(request: Any) -> object:
    return (request.headers or {}).get(HEADER) or getattr(request, HEADER, None)


def _arguments(args: Any, kwargs: Any) -> list[Any]:
    return [list(args or ()), dict(kwargs or {})]
