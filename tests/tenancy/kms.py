"""A key management service in memory, with the interface, the errors and the refusals of AWS KMS."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ACCOUNT = "arn:aws:kms:eu-central-1:111122223333:key/"


class ClientError(Exception):
    """What botocore raises: the code is in `response`, the class is the same for all."""

    def __init__(self, code: str, operation: str) -> None:
        super().__init__(f"An error occurred ({code}) when calling the {operation} operation")
        self.response = {"Error": {"Code": code}}


class FakeKms:
    """Takes and gives what `boto3.client("kms")` does; ciphertexts name their key, and bind the encryption context."""

    def __init__(self, *names: str) -> None:
        self.keys = {ACCOUNT + name: os.urandom(32) for name in names}
        self.disabled: set[str] = set()
        self.calls: list[str] = []

    def encrypt(self, *, KeyId: str, Plaintext: bytes, EncryptionContext: Mapping[str, str]) -> dict[str, Any]:  # noqa: N803
        self.calls.append("Encrypt")
        arn = self._usable(KeyId, "Encrypt")
        if not 1 <= len(Plaintext) <= 4096:
            raise ClientError("ValidationException", "Encrypt")
        nonce = os.urandom(12)
        sealed = AESGCM(self.keys[arn]).encrypt(nonce, Plaintext, repr(sorted(EncryptionContext.items())).encode())
        return {"CiphertextBlob": arn.encode() + b"\0" + nonce + sealed, "KeyId": arn}

    def decrypt(
        self,
        *,
        CiphertextBlob: bytes,  # noqa: N803
        EncryptionContext: Mapping[str, str],  # noqa: N803
        KeyId: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        self.calls.append("Decrypt")
        name, _, rest = CiphertextBlob.partition(b"\0")
        if KeyId is not None and self._usable(KeyId, "Decrypt") != name.decode():
            raise ClientError("IncorrectKeyException", "Decrypt")
        arn = self._usable(name.decode(), "Decrypt")
        try:
            context = repr(sorted(EncryptionContext.items())).encode()
            plain = AESGCM(self.keys[arn]).decrypt(rest[:12], rest[12:], context)
        except InvalidTag:
            raise ClientError("InvalidCiphertextException", "Decrypt") from None
        return {"Plaintext": plain, "KeyId": arn}

    def _usable(self, key_id: str, operation: str) -> str:
        arn = key_id if key_id.startswith("arn:") else ACCOUNT + key_id
        if arn not in self.keys:
            raise ClientError("NotFoundException", operation)
        if arn in self.disabled:
            raise ClientError("DisabledException", operation)
        return arn
