"""Sealed bytes open in the one place they were sealed for, even under the same key."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tenancy.encryption.ciphers import Place, label_of, row_of, seal, unseal, version_of
from tenancy.errors import EncryptionError, InvalidCiphertextError

KEY = AESGCM(bytes(range(32)))
TENANT, ROW = UUID(int=1), UUID(int=2)
HERE = Place(TENANT, "patients.note", (ROW,))


@pytest.mark.parametrize(
    "there",
    [
        Place(UUID(int=9), "patients.note", (ROW,)),
        Place(TENANT, "patients.remark", (ROW,)),
        Place(TENANT, "letters.note", (ROW,)),
        Place(TENANT, "patients.note", (UUID(int=9),)),
        Place(TENANT, "patients.note", (str(ROW),)),
        Place(TENANT, "patients.note", (ROW, ROW)),
    ],
)
def test_bytes_do_not_open_in_another_place(there: Place) -> None:
    data = seal(KEY, 1, b"a secret", HERE)
    assert unseal(KEY, data, HERE) == b"a secret"

    with pytest.raises(InvalidCiphertextError):
        unseal(KEY, data, there)


def test_bytes_do_not_open_as_those_of_another_version() -> None:
    data = bytearray(seal(KEY, 1, b"a secret", HERE))

    data[4] = 2

    assert version_of(bytes(data)) == 2
    with pytest.raises(InvalidCiphertextError):
        unseal(KEY, bytes(data), HERE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc"), ("ab", "c")),
        ((1,), ("1",)),
        ((UUID(int=0x61 << 120),), (UUID(int=0x61 << 120).bytes.decode("latin-1"),)),
    ],
)
def test_parts_of_a_key_do_not_run_into_each_other(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert Place(TENANT, "a.b", one).bound_to(1) != Place(TENANT, "a.b", other).bound_to(1)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x02" + bytes(40), bytes(40), b"\x01" * 32])
def test_bytes_of_another_format_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidCiphertextError, match="not in the format"):
        version_of(data)


def test_row_without_a_whole_key_is_no_place() -> None:
    for key in ((), (None,), (1, None)):
        with pytest.raises(EncryptionError):
            row_of(key)
    with pytest.raises(EncryptionError, match="key of type float"):
        Place(TENANT, "a.b", (1.5,)).bound_to(1)
    with pytest.raises(EncryptionError, match="dot"):
        label_of("patients", "no.te")
