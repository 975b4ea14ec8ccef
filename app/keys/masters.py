"""The master keys of this installation, and the keyring that its sessions seal and open values with."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, current_app

from app.config import Settings
from app.db import Database
from app.keys.models import DataKey
from tenancy.encryption import FileKeys, Keyring, KeyStore, LocalKeys, MasterKeys, Wrapped
from tenancy.encryption.stores import Context
from tenancy.errors import KeyStoreError

EXTENSION = "keyring"


class NoMasterKeys:
    """The store of an installation that was given no master key: whatever needs one is refused."""

    @property
    def current_id(self) -> str:
        raise _unset()

    def wrap(self, plain: bytes, *, context: Context) -> Wrapped:
        raise _unset()

    def unwrap(self, wrapped: Wrapped, *, context: Context) -> bytes:
        raise _unset()


def _unset() -> KeyStoreError:
    return KeyStoreError(
        "this installation has no master key, so nothing can be encrypted or decrypted",
        hint="set APP_MASTER_KEYS_FILE or APP_MASTER_KEYS",
    )


def store_of(settings: Settings) -> KeyStore:
    """Return the store that the settings name. A file is read at each use, the variable once.

    Raises: ConfigurationError - APP_MASTER_KEYS holds no keys.
    """
    if settings.master_keys_file is not None:
        return FileKeys(settings.master_keys_file)
    if settings.master_keys is not None:
        keys = MasterKeys.parse(settings.master_keys.get_secret_value())
        return LocalKeys(lambda: keys)
    return NoMasterKeys()


def init_app(app: Flask, settings: Settings, database: Database) -> None:
    """Give every session of the application its keyring."""
    keyring = Keyring(DataKey, store_of(settings), ttl_s=settings.data_key_ttl_s)
    keyring.serve(database.sessions, database.staff_sessions)
    app.extensions[EXTENSION] = keyring


def keyring(app: Flask | None = None) -> Keyring:
    """Return the keyring of an application; None for the current one."""
    found = (app or current_app).extensions[EXTENSION]
    if not isinstance(found, Keyring):
        raise TypeError(f"extension {EXTENSION!r} is {type(found).__name__}, not a Keyring")
    return found


def keys_file_of(settings: Settings) -> Path | None:
    """Return the file of master keys; None when there is none."""
    return settings.master_keys_file
