"""Encryption of values, each bound to its tenant, table, column and row; needs `cryptography` (extra `encryption`)."""

from tenancy.encryption.columns import EncryptedJSON, EncryptedString, SealedValue, encrypted_column
from tenancy.encryption.keyring import Keyring
from tenancy.encryption.models import DataKeyMixin
from tenancy.encryption.stores import EnvironmentKeys, FileKeys, KeyStore, KmsKeys, LocalKeys, MasterKeys, Wrapped

__all__ = [
    "DataKeyMixin",
    "EncryptedJSON",
    "EncryptedString",
    "EnvironmentKeys",
    "FileKeys",
    "KeyStore",
    "Keyring",
    "KmsKeys",
    "LocalKeys",
    "MasterKeys",
    "SealedValue",
    "Wrapped",
    "encrypted_column",
]
