"""Sealed bytes: AES-256-GCM over a value, bound to the one place it may be opened in."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tenancy.errors import EncryptionError, InvalidCiphertextError

KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_FORMAT = 1
_HEADER = struct.Struct(">BI")  # the format, and the version of the data key
_LENGTH = struct.Struct(">H")
_DOMAIN = b"tenancy.value.1"
# Where the version stands in the bytes, as SQL counts them: rotation finds by it what is left to do.
VERSION_FROM, VERSION_BYTES = 2, 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value belongs: moved to any other place, it does not open.

    label: table and column, as `people.note`. row: the values of the primary key but for the tenant.
    """

    tenant: UUID
    label: str
    row: tuple[Any, ...]

    def bound_to(self, version: int) -> bytes:
        """Return what is authenticated beside the value. Each part has its length, so that none runs into the next."""
        label = self.label.encode()
        parts = [_DOMAIN, self.tenant.bytes, version_bytes(version), _LENGTH.pack(len(label)), label]
        for value in self.row:
            kind, data = _key_bytes(value)
            parts += (kind, _LENGTH.pack(len(data)), data)
        return b"".join(parts)


def _key_bytes(value: object) -> tuple[bytes, bytes]:
    if isinstance(value, UUID):
        return b"u", value.bytes
    if isinstance(value, str):
        return b"s", value.encode()
    if isinstance(value, int):
        return b"i", str(int(value)).encode()
    raise EncryptionError(
        f"a row with a key of type {type(value).__name__} cannot hold sealed values",
        hint="give the row a UUID, integer or text as its key before it is sealed",
    )


def seal(cipher: AESGCM, version: int, clear: bytes, place: Place) -> bytes:
    """Encrypt a value for one place: a header, a random nonce, the ciphertext and its tag; 33 bytes longer."""
    nonce = os.urandom(_NONCE_BYTES)
    return _HEADER.pack(_FORMAT, version) + nonce + cipher.encrypt(nonce, clear, place.bound_to(version))


def version_of(data: bytes) -> int:
    """Return the version of the data key that sealed the bytes.

    Raises: InvalidCiphertextError - they were not made by `seal`.
    """
    if len(data) < _HEADER.size + _NONCE_BYTES + _TAG_BYTES or data[0] != _FORMAT:
        raise InvalidCiphertextError(
            f"a stored value of {len(data)} bytes is not in the format of sealed values",
            hint="restore the row: nothing but the library may write an encrypted column",
        )
    version: int = _HEADER.unpack_from(data)[1]
    return version


def unseal(cipher: AESGCM, data: bytes, place: Place) -> bytes:
    """Decrypt what `seal` made for this place.

    Raises: InvalidCiphertextError - it is damaged, or was sealed for another place or by another key.
    """
    version = version_of(data)
    nonce = data[_HEADER.size : _HEADER.size + _NONCE_BYTES]
    try:
        return cipher.decrypt(nonce, data[_HEADER.size + _NONCE_BYTES :], place.bound_to(version))
    except InvalidTag:
        raise InvalidCiphertextError(
            f"the value stored in {place.label} of row {', '.join(map(repr, place.row))} of tenant {place.tenant!r} "
            "was not sealed for this place, or is damaged",
            hint="find out who moved or changed it; restore the row from a backup",
        ) from None


def version_bytes(version: int) -> bytes:
    """Return a version as it stands in the bytes."""
    return version.to_bytes(VERSION_BYTES, "big")


def label_of(table: str, column: str) -> str:
    """Return the name that values of a column are bound to, when it is given no other."""
    if "." in column:
        raise EncryptionError(f"column {column!r} has a dot in its name", hint="pass encrypted_column(label=...)")
    return f"{table}.{column}"


def row_of(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values of a row's key, all of them known.

    Raises: EncryptionError - one is None: the server would make it, after the value had to be sealed.
    """
    if any(value is None for value in values) or not values:
        raise EncryptionError(
            "a value cannot be sealed for a row whose key the server will make",
            hint="give the row its id first, or let the model make it: TenantTable's own id does",
        )
    return tuple(values)
