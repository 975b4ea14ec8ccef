"""Key stores: who holds the master keys, and wraps the tenants' data keys with them."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tenancy.encryption.ciphers import KEY_BYTES
from tenancy.errors import ConfigurationError, KeyStoreError

_NONCE_BYTES = 12
_AN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHAPE = '{"current": "<id>", "keys": {"<id>": "<32 bytes in base64>"}}'
Context = Mapping[str, str]


@dataclass(frozen=True)
class Wrapped:
    """A data key under a master key: safe to store beside the data."""

    master_key_id: str
    data: bytes = field(repr=False)


class KeyStore(Protocol):
    """Holds master keys. It may be asked from many threads at once.

    context: what the data key is for. It is authenticated: a key wrapped for one tenant opens for no other.
    Whatever goes wrong is a KeyStoreError; nothing is retried, and nothing is stored in the clear instead.
    """

    @property
    def current_id(self) -> str:
        """The id of the master key that `wrap` uses."""
        ...

    def wrap(self, plain: bytes, *, context: Context) -> Wrapped: ...

    def unwrap(self, wrapped: Wrapped, *, context: Context) -> bytes: ...


@dataclass(frozen=True)
class MasterKeys:
    """Master keys by id, and the id of the one in use. As text: JSON, `{"current": "a", "keys": {"a": "…"}}`.

    Raises: ConfigurationError - an id or a key cannot be one, or the current key is not there. No key is shown.
    """

    current: str
    keys: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if self.current not in self.keys:
            raise ConfigurationError(
                f"the current master key {self.current!r} is not among the keys", hint=f"write {_SHAPE}"
            )
        for key_id, key in self.keys.items():
            if not _AN_ID.fullmatch(key_id):
                raise ConfigurationError(
                    f"{key_id!r} cannot be the id of a master key", hint="use letters, digits, '.', '_' and '-'"
                )
            if len(key) != KEY_BYTES:
                raise ConfigurationError(
                    f"master key {key_id!r} has {len(key)} bytes, not {KEY_BYTES}",
                    hint="make one: head -c 32 /dev/urandom | base64",
                )

    @classmethod
    def parse(cls, text: str) -> MasterKeys:
        """Read keys from their text.

        Raises: ConfigurationError - it is none; the message repeats nothing of it.
        """
        try:
            found = json.loads(text)
            keys = {str(name): base64.b64decode(key, validate=True) for name, key in found["keys"].items()}
            current = str(found["current"])
        except (ValueError, TypeError, KeyError, AttributeError, binascii.Error):
            raise ConfigurationError("the text holds no master keys", hint=f"write {_SHAPE}") from None
        return cls(current, keys)

    @classmethod
    def generate(cls, key_id: str | None = None) -> MasterKeys:
        """Make a first key. key_id: None names it after today."""
        name = key_id if key_id is not None else _name_of_today()
        return cls(name, {name: os.urandom(KEY_BYTES)})

    def with_new(self, key_id: str | None = None) -> MasterKeys:
        """Return these keys and a new one, which is the current. key_id: None names it after today.

        Raises: ConfigurationError - the id is taken.
        """
        made = MasterKeys.generate(key_id)
        if made.current in self.keys:
            raise ConfigurationError(
                f"there is a master key {made.current!r} already", hint="give the new one another id"
            )
        return MasterKeys(made.current, {**self.keys, **made.keys})

    def reveal(self) -> str:
        """Return the text that `parse` reads: a secret."""
        keys = {name: base64.b64encode(key).decode() for name, key in self.keys.items()}
        return json.dumps({"current": self.current, "keys": keys}, indent=2)

    def cipher(self, key_id: str) -> AESGCM:
        key = self.keys.get(key_id)
        if key is None:
            raise KeyStoreError(
                f"the key store has no master key {key_id!r}",
                hint="put it back: what it wrapped can be opened by no other",
            )
        return AESGCM(key)


def _name_of_today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}.{os.urandom(3).hex()}"


class LocalKeys:
    """Master keys in this process. AES-256-GCM wraps, and not RFC 3394: that has no place for the context.

    read: returns the keys; asked at each use, so that a new key is used without a restart. Uses are rare: a data
    key is kept once it is unwrapped.
    """

    def __init__(self, read: Callable[[], MasterKeys]) -> None:
        self._read = read

    @property
    def current_id(self) -> str:
        return self._read().current

    def wrap(self, plain: bytes, *, context: Context) -> Wrapped:
        keys, nonce = self._read(), os.urandom(_NONCE_BYTES)
        return Wrapped(keys.current, nonce + keys.cipher(keys.current).encrypt(nonce, plain, _canonical(context)))

    def unwrap(self, wrapped: Wrapped, *, context: Context) -> bytes:
        nonce, data = wrapped.data[:_NONCE_BYTES], wrapped.data[_NONCE_BYTES:]
        cipher = self._read().cipher(wrapped.master_key_id)
        try:
            return cipher.decrypt(nonce, data, _canonical(context))
        except (InvalidTag, ValueError):
            raise KeyStoreError(
                f"master key {wrapped.master_key_id!r} does not open the data key of {dict(context)!r}",
                hint="the key under this id is another one than before, or the data key was moved or changed",
            ) from None


def _canonical(context: Context) -> bytes:
    return json.dumps(dict(context), sort_keys=True, separators=(",", ":")).encode()


class FileKeys(LocalKeys):
    """Master keys in a file that nobody but its owner may read. It is read at each use.

    Raises, when used: KeyStoreError - it is missing, unreadable, damaged, or others may read or write it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        super().__init__(lambda: read_keys(self.path))


class EnvironmentKeys(LocalKeys):
    """Master keys in an environment variable, as JSON; read when made.

    Raises: KeyStoreError - it is unset. ConfigurationError - it holds no keys.
    """

    def __init__(self, variable: str, environment: Mapping[str, str] | None = None) -> None:
        text = (os.environ if environment is None else environment).get(variable)
        if not text:
            raise KeyStoreError(f"{variable} is not set", hint=f"set it to the master keys: {_SHAPE}")
        keys = MasterKeys.parse(text)
        super().__init__(lambda: keys)


def read_keys(path: Path) -> MasterKeys:
    """Read a file of master keys.

    Raises: KeyStoreError - it cannot be read, or others may. The check is of the file that is opened.
    """
    try:
        with path.open() as file:
            status = os.fstat(file.fileno())
            if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid not in (0, os.geteuid()):
                raise KeyStoreError(
                    f"others than its owner may use the file of master keys {str(path)!r}", hint=f"chmod 600 {path}"
                )
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyStoreError(
            f"the file of master keys {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or 'no text'}",
            hint="put it back, readable by who runs the program",
        ) from error
    try:
        return MasterKeys.parse(text)
    except ConfigurationError as error:
        raise KeyStoreError(f"{str(path)!r}: {error.message}", hint=error.hint) from error


def write_keys(path: Path, keys: MasterKeys) -> None:
    """Replace a file of master keys whole, for its owner's eyes only: who is killed in between leaves the old one."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(keys.reveal() + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


class KmsKeys:
    """Master keys that never leave a key management service with the interface of AWS KMS.

    client: has `encrypt` and `decrypt`, such as `boto3.client("kms")`.
    key_id: the id or ARN of the key in use. An alias is refused: it may point at another key tomorrow, and what
        is to be wrapped anew could then not be told.
    Raises: ConfigurationError - the id is an alias, or empty.
    """

    def __init__(self, client: Any, key_id: str) -> None:
        if not key_id or key_id.startswith("alias/") or ":alias/" in key_id:
            raise ConfigurationError(f"{key_id!r} names no one key", hint="pass the id or the ARN of the key itself")
        self._client = client
        self._key_id = key_id

    @property
    def current_id(self) -> str:
        return self._key_id

    def wrap(self, plain: bytes, *, context: Context) -> Wrapped:
        answer = self._ask("encrypt", KeyId=self._key_id, Plaintext=plain, EncryptionContext=dict(context))
        return Wrapped(self._key_id, bytes(answer["CiphertextBlob"]))

    def unwrap(self, wrapped: Wrapped, *, context: Context) -> bytes:
        answer = self._ask(
            "decrypt",
            KeyId=wrapped.master_key_id,
            CiphertextBlob=wrapped.data,
            EncryptionContext=dict(context),
        )
        return bytes(answer["Plaintext"])

    def _ask(self, what: str, **given: Any) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = getattr(self._client, what)(**given)
        except Exception as error:  # each service has errors of its own, which cannot be imported here
            response = getattr(error, "response", None)
            found = response.get("Error", {}).get("Code") if isinstance(response, Mapping) else None
            raise KeyStoreError(
                f"the key service did not {what} with key {given['KeyId']!r}: {found or type(error).__name__}",
                hint="check the service, the key's state and the grants of this program",
            ) from error
        return answer
