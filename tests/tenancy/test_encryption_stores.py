"""Key stores: what they refuse to read, to wrap and to unwrap."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tenancy.encryption import EnvironmentKeys, FileKeys, KeyStore, KmsKeys, LocalKeys, MasterKeys, Wrapped
from tenancy.encryption.stores import read_keys, write_keys
from tenancy.errors import ConfigurationError, KeyStoreError
from tests.tenancy.kms import ACCOUNT, ClientError, FakeKms

DATA_KEY = bytes(range(32))
CONTEXT = {"tenant": "acme", "version": "1"}


def file_store(folder: Path) -> KeyStore:
    write_keys(folder / "keys.json", MasterKeys.generate("a"))
    return FileKeys(folder / "keys.json")


def environment_store(_folder: Path) -> KeyStore:
    return EnvironmentKeys("KEYS", {"KEYS": MasterKeys.generate("a").reveal()})


def kms_store(_folder: Path) -> KeyStore:
    return KmsKeys(FakeKms("a"), ACCOUNT + "a")


@pytest.fixture(params=[file_store, environment_store, kms_store])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    make: Callable[[Path], KeyStore] = request.param
    return make(tmp_path)


# What every store does --------------------------------------------------------------------------------


def test_wrapped_key_is_another_each_time_and_unwraps(store: KeyStore) -> None:
    one, two = store.wrap(DATA_KEY, context=CONTEXT), store.wrap(DATA_KEY, context=CONTEXT)

    assert one.data != two.data
    assert DATA_KEY not in one.data
    assert one.master_key_id == store.current_id
    assert store.unwrap(one, context=dict(reversed(CONTEXT.items()))) == DATA_KEY


@pytest.mark.parametrize("context", [{"tenant": "globex", "version": "1"}, {"tenant": "acme", "version": "2"}, {}])
def test_key_wrapped_for_something_else_does_not_unwrap(store: KeyStore, context: dict[str, str]) -> None:
    wrapped = store.wrap(DATA_KEY, context=CONTEXT)

    with pytest.raises(KeyStoreError):
        store.unwrap(wrapped, context=context)


@pytest.mark.parametrize("data", [b"", b"\0", b"short", bytes(60)])
def test_damaged_key_does_not_unwrap(store: KeyStore, data: bytes) -> None:
    with pytest.raises(KeyStoreError):
        store.unwrap(Wrapped(store.current_id, data), context=CONTEXT)


def test_unknown_master_key_is_named(store: KeyStore) -> None:
    with pytest.raises(KeyStoreError, match="other-key"):
        store.unwrap(Wrapped("other-key", bytes(60)), context=CONTEXT)


# Files ------------------------------------------------------------------------------------------------


def test_file_is_made_for_its_owner_only(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.json", MasterKeys.generate())

    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o602])
def test_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, MasterKeys.generate())
    assert read_keys(path).keys
    path.chmod(mode)

    with pytest.raises(KeyStoreError, match="others than its owner"):
        FileKeys(path).wrap(DATA_KEY, context=CONTEXT)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"current": "a"}', b'{"current": "a", "keys": {"a": 7}}', b"\xff"]
)
def test_damaged_file_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(KeyStoreError, match=r"keys\.json"):
        FileKeys(path).unwrap(Wrapped("a", bytes(60)), context=CONTEXT)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match=r"none\.json.*No such file"):
        _ = FileKeys(tmp_path / "none.json").current_id


def test_new_key_in_the_file_is_used_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, MasterKeys.generate("a"))
    store = FileKeys(path)
    old = store.wrap(DATA_KEY, context=CONTEXT)

    write_keys(path, read_keys(path).with_new("b"))

    assert store.wrap(DATA_KEY, context=CONTEXT).master_key_id == "b"
    assert store.unwrap(old, context=CONTEXT) == DATA_KEY


# Texts ------------------------------------------------------------------------------------------------


def text_of(**keys: bytes) -> str:
    return json.dumps({"current": "a", "keys": {name: base64.b64encode(key).decode() for name, key in keys.items()}})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (text_of(a=b"short"), "5 bytes"),
        (text_of(b=bytes(32)), "not among the keys"),
        (text_of(a=bytes(32)).replace('"a"', '"a b"'), "cannot be the id"),
        ("not json", "holds no master keys"),
        ('{"current": "a", "keys": {"a": "not base64!"}}', "holds no master keys"),
    ],
)
def test_text_that_holds_no_usable_key_is_refused(text: str, found: str) -> None:
    with pytest.raises(ConfigurationError, match=found):
        EnvironmentKeys("KEYS", {"KEYS": text})


def test_variable_that_is_unset_is_named() -> None:
    with pytest.raises(KeyStoreError, match="CLINIC_KEYS is not set"):
        EnvironmentKeys("CLINIC_KEYS", {})


def test_keys_are_shown_by_nothing_but_reveal() -> None:
    keys = MasterKeys("a", {"a": DATA_KEY})

    assert base64.b64encode(DATA_KEY).decode() in keys.reveal()
    assert "\\x01" not in repr(keys) + repr(LocalKeys(lambda: keys)) + repr(Wrapped("a", DATA_KEY))
    with pytest.raises(ConfigurationError) as refused:
        EnvironmentKeys("KEYS", {"KEYS": '{"current": "b", "keys": {"a": "c2VjcmV0"}}'})
    assert "c2VjcmV0" not in str(refused.value)


def test_id_of_a_new_key_may_not_be_taken() -> None:
    with pytest.raises(ConfigurationError, match="already"):
        MasterKeys.generate("a").with_new("a")


# The key service --------------------------------------------------------------------------------------


def test_service_is_asked_with_the_context(tmp_path: Path) -> None:
    service = FakeKms("a")
    store = KmsKeys(service, ACCOUNT + "a")

    wrapped = store.wrap(DATA_KEY, context=CONTEXT)

    assert service.decrypt(CiphertextBlob=wrapped.data, EncryptionContext=CONTEXT)["Plaintext"] == DATA_KEY
    with pytest.raises(ClientError):
        service.decrypt(CiphertextBlob=wrapped.data, EncryptionContext={})


def test_key_of_before_is_used_for_what_it_wrapped() -> None:
    service = FakeKms("a", "b")
    wrapped = KmsKeys(service, ACCOUNT + "a").wrap(DATA_KEY, context=CONTEXT)

    now = KmsKeys(service, ACCOUNT + "b")

    assert now.current_id == ACCOUNT + "b"
    assert now.unwrap(wrapped, context=CONTEXT) == DATA_KEY


def test_refusal_of_the_service_is_told_by_its_code() -> None:
    service = FakeKms("a")
    store = KmsKeys(service, ACCOUNT + "a")
    wrapped = store.wrap(DATA_KEY, context=CONTEXT)
    service.disabled.add(ACCOUNT + "a")

    with pytest.raises(KeyStoreError, match="DisabledException"):
        store.wrap(DATA_KEY, context=CONTEXT)
    with pytest.raises(KeyStoreError, match="DisabledException"):
        store.unwrap(wrapped, context=CONTEXT)


def test_service_that_does_not_answer_is_a_failing_store() -> None:
    class Away:
        def encrypt(self, **_given: object) -> None:
            raise ConnectionError("no route to host")

    with pytest.raises(KeyStoreError, match="ConnectionError"):
        KmsKeys(Away(), "key-1").wrap(DATA_KEY, context=CONTEXT)


@pytest.mark.parametrize("key_id", ["alias/app", "arn:aws:kms:eu-central-1:111122223333:alias/app", ""])
def test_alias_is_refused(key_id: str) -> None:
    with pytest.raises(ConfigurationError, match="names no one key"):
        KmsKeys(FakeKms("a"), key_id)


# Imports ----------------------------------------------------------------------------------------------


def test_importing_the_library_does_not_import_cryptography() -> None:
    program = (
        "import sys, tenancy, tenancy.errors, tenancy.session\n"
        "assert 'cryptography' not in sys.modules\n"
        "import tenancy.encryption\n"
        "assert 'boto3' not in sys.modules and 'flask' not in sys.modules\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True)
