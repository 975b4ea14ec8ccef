"""What a directory is asked and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable
from uuid import UUID


class Reference(NamedTuple):
    """What a request calls a tenant by; `value` is already in its one canonical spelling."""

    kind: Literal["id", "slug", "domain"]
    value: str


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant as the directory last read it; a snapshot, so it never touches a session.

    extra: the columns named in the model's `__directory_columns__`.
    """

    id: UUID
    slug: str
    name: str
    status: str
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


class Answer(NamedTuple):
    """A remembered answer; `tenant` is None when nobody is known by the reference. Times are monotonic."""

    tenant: TenantRecord | None
    loaded_at: float
    expires_at: float


@runtime_checkable
class Directory(Protocol):
    """Turns references into tenants."""

    def peek(self, reference: Reference) -> Answer | None:
        """Return the remembered answer, without I/O or waiting; None when it must be looked up."""
        ...

    def find(self, reference: Reference) -> TenantRecord | None:
        """Return the tenant, whatever its status; None when nobody is known by the reference.

        Raises: DirectoryError - no answer could be had; never to be taken for "unknown".
        """
        ...
