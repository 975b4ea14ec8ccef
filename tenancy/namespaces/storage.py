"""Object storage: each tenant's objects lie in a folder of its own, on a disk or in S3, Google's or Azure's cloud."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import IO, Any, Literal, Protocol
from uuid import UUID

from tenancy.context import current_scope, require_tenant
from tenancy.errors import (
    ConfigurationError,
    KeyRefusedError,
    NamespaceError,
    ObjectNotFoundError,
    ObjectTooLargeError,
    PlatformAccessError,
)
from tenancy.namespaces.keys import TENANTS, name_of, object_key, storage_prefix
from tenancy.namespaces.local_folder import check_place, is_no_place, is_reached_by_link, remove_folder, root_of

_CHUNK_BYTES = 65_536
_LONGEST_LINK_S = 3_600


class ObjectStore(Protocol):
    """What holds the objects, in the shape of a store of `obstore`."""

    def put(self, path: str, file: Any, /) -> Any: ...
    def get(self, path: str, /) -> Any: ...
    def head(self, path: str, /) -> Any: ...
    def delete(self, paths: Any, /) -> Any: ...
    def list(self, prefix: str | None = ..., /) -> Any: ...
    def list_with_delimiter(self, prefix: str | None = ..., /) -> Any: ...
    def copy(self, from_: str, to: str, /) -> Any: ...


@dataclass(frozen=True)
class StoredObject:
    """One object. name: as it was stored under. sha256: in hexadecimal; None where the content was not read."""

    name: str
    size_bytes: int
    modified_at: datetime
    sha256: str | None = None


@dataclass(frozen=True)
class OpenedObject:
    """An object and its content, which is read once and may be read after the scope has ended."""

    found: StoredObject
    chunks: Iterator[bytes]


class TenantStorage:
    """Stores objects for the tenant in scope; a name reaches no other tenant's, however it is spelled."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._root = root_of(store)

    def put(self, name: str, content: bytes | IO[bytes] | Iterable[bytes], *, max_bytes: int) -> StoredObject:
        """Store the content under the name, in place of what is there; it is read in chunks and counted on the way.

        max_bytes: what is longer is refused before its end is read; what was there stays.
        Raises: ObjectTooLargeError, KeyRefusedError, NoTenantError
        """
        key = self._key(name)
        if self._root is not None and is_no_place(self._root, key):
            raise KeyRefusedError(
                f"{name!r} is a folder here, or goes on from the name of an object", hint="store it under another name"
            )
        measured = _Measured(_chunks_of(content), max_bytes)
        self._store.put(key, iter(measured))
        return StoredObject(name, measured.size_bytes, self._head(name, key).modified_at, measured.digest.hexdigest())

    def get(self, name: str) -> OpenedObject:
        """Open the tenant's object.

        Raises: ObjectNotFoundError - the same, whether nobody or somebody else has one of that name.
        """
        key = self._readable(name)
        try:
            opened = self._store.get(key)
        except FileNotFoundError:
            raise _not_found(name) from None
        return OpenedObject(_described(name, opened.meta), map(bytes, opened.stream(min_chunk_size=_CHUNK_BYTES)))

    def head(self, name: str) -> StoredObject:
        """Return size and time of the tenant's object, without its content.

        Raises: ObjectNotFoundError
        """
        return self._head(name, self._readable(name))

    def delete(self, name: str) -> None:
        """Remove the tenant's object; one that is not there is as good as removed."""
        key = self._key(name)
        if self._root is not None and is_no_place(self._root, key):
            return
        try:
            self._store.delete(key)
        except FileNotFoundError:
            return

    def list(self, folder: str = "") -> Iterator[StoredObject]:
        """Give the tenant's objects, or those below one folder, in no order. A key that no name makes is left out."""
        tenant = require_tenant()
        prefix = storage_prefix(tenant) if not folder else f"{object_key(tenant, folder.rstrip('/'))}/"
        return self._listed(tenant, prefix)

    def copy(self, name: str, to: str) -> StoredObject:
        """Copy an object within the tenant, in place of what is there.

        Raises: ObjectNotFoundError
        """
        source, target = self._readable(name), self._key(to)
        try:
            self._store.copy(source, target)
        except FileNotFoundError:
            raise _not_found(name) from None
        return self._head(to, target)

    def erase(self) -> int:
        """Remove every object of the tenant in scope, and return how many there were."""
        count = 0
        for found in list(self.list()):
            self.delete(found.name)
            count += 1
        if self._root is not None:
            remove_folder(self._root, storage_prefix(require_tenant()))
        return count

    def signed_url(self, name: str, *, expires_in_s: int, method: Literal["GET", "PUT"] = "GET") -> str:
        """Return an address at which whoever has it may read or write this one object, without signing in.

        expires_in_s: up to an hour. It cannot be taken back earlier, not even by suspending the tenant.
        Raises: NamespaceError - the store signs nothing, as on a local disk. ObjectNotFoundError - for GET.
        """
        if not 0 < expires_in_s <= _LONGEST_LINK_S:
            raise ConfigurationError(
                f"a link that is good for {expires_in_s!r} seconds",
                hint=f"1 to {_LONGEST_LINK_S}: it cannot be taken back",
            )
        key = self._readable(name) if method == "GET" else self._key(name)
        if method == "GET":
            self._head(name, key)
        try:
            signed: str = _obstore().sign(self._store, method, key, timedelta(seconds=expires_in_s))
        except ValueError:
            raise NamespaceError(
                f"a {type(self._store).__name__} signs no links", hint="serve the object through the application"
            ) from None
        return signed

    def _key(self, name: str) -> str:
        key = object_key(require_tenant(), name)
        if self._root is not None:
            check_place(self._root, key)
        return key

    def _readable(self, name: str) -> str:
        """Return the key of what may be an object, as a folder on a disk may not."""
        key = self._key(name)
        if self._root is not None and is_no_place(self._root, key):
            raise _not_found(name)
        return key

    def _head(self, name: str, key: str) -> StoredObject:
        try:
            return _described(name, self._store.head(key))
        except FileNotFoundError:
            raise _not_found(name) from None

    def _listed(self, tenant: UUID, prefix: str) -> Iterator[StoredObject]:
        for chunk in self._store.list(prefix):
            for meta in chunk:
                key = meta["path"]
                name = name_of(tenant, key)
                if name is None or not key.startswith(prefix):
                    continue
                if self._root is None or not is_reached_by_link(self._root, key):
                    yield _described(name, meta)


def stored_tenants(store: ObjectStore) -> set[UUID]:
    """Return the tenants that have objects, for the platform: to compare with the tenants there are.

    Raises: PlatformAccessError - the platform is not in scope.
    """
    scope = current_scope()
    if scope is None or scope.platform is None:
        raise PlatformAccessError(
            "who has objects is the platform's to know", hint="open platform_scope(actor=..., reason=...)"
        )
    found = set()
    for prefix in store.list_with_delimiter(f"{TENANTS}/")["common_prefixes"]:
        try:
            found.add(UUID(prefix.rstrip("/").rpartition("/")[2]))
        except ValueError:
            continue
    return found


class _Measured:
    """Chunks that are counted and hashed as they pass, up to a limit."""

    def __init__(self, chunks: Iterable[bytes], max_bytes: int) -> None:
        self.size_bytes = 0
        self.digest = sha256()
        self._chunks = chunks
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.size_bytes += len(chunk)
            if self.size_bytes > self._max_bytes:
                raise ObjectTooLargeError(
                    f"the content is longer than {self._max_bytes:,} bytes", hint="send less, or raise the limit"
                )
            self.digest.update(chunk)
            yield bytes(chunk)


def _chunks_of(content: bytes | IO[bytes] | Iterable[bytes]) -> Iterable[bytes]:
    if isinstance(content, bytes):
        return (content,)
    read = getattr(content, "read", None)
    return content if read is None else iter(lambda: read(_CHUNK_BYTES), b"")


def _described(name: str, meta: Any) -> StoredObject:
    return StoredObject(name, meta["size"], meta["last_modified"])


def _not_found(name: str) -> ObjectNotFoundError:
    return ObjectNotFoundError(f"no object is named {name!r}", hint="list the tenant's objects to see what is there")


def _obstore() -> Any:
    """Import obstore, which only signing needs by name: it is no dependency of the library."""
    return importlib.import_module("obstore")
