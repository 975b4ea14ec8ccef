"""Where the contents of files lie, and what is answered while nobody can reach them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flask import Flask, current_app
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from app.config import Settings
from app.errors import ProblemError
from tenancy.namespaces import ObjectStore, TenantStorage

EXTENSION = "files"
_PATIENCE = timedelta(seconds=10)

log = logging.getLogger(__name__)


class StorageDownError(ProblemError):
    """The storage does not answer, or not well; nothing was stored or removed."""

    code = 503
    kind = "storage_unavailable"

    def __init__(self) -> None:
        super().__init__("The file storage does not answer; try again shortly.", headers={"Retry-After": "10"})


@dataclass(frozen=True)
class Files:
    """What files take: the store, each tenant's part of it, and the longest file of all."""

    store: ObjectStore
    storage: TenantStorage
    max_bytes: int


def init_app(app: Flask, settings: Settings) -> None:
    """Give the application its storage; a cloud is not asked before the first use."""
    app.extensions[EXTENSION] = open_files(settings)


def open_files(settings: Settings) -> Files:
    """Return the storage that the settings name; a folder is made, for the eyes of this user only.

    Raises: OSError - the folder cannot be made.
    """
    store = _store_of(settings.storage_url.get_secret_value())
    return Files(store, TenantStorage(store), settings.max_upload_bytes)


def _store_of(url: str) -> ObjectStore:
    parts = urlsplit(url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LocalStore(prefix=folder)
    if parts.scheme == "memory":
        return from_url(url)
    return from_url(
        url,
        client_options={"connect_timeout": _PATIENCE, "timeout": _PATIENCE},
        retry_config={"max_retries": 2, "retry_timeout": _PATIENCE},
    )


def files() -> Files:
    """Return the storage of the current application."""
    found = current_app.extensions[EXTENSION]
    if not isinstance(found, Files):
        raise TypeError(f"extension {EXTENSION!r} is {type(found).__name__}, not Files")
    return found


@contextmanager
def answering_outages() -> Iterator[None]:
    """Answer 503 when the storage fails inside the block, and log why.

    Raises: StorageDownError
    """
    try:
        yield
    except (BaseError, OSError) as error:
        log.error("storage.failed", exc_info=error)
        raise StorageDownError from error
