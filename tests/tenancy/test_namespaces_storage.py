"""Object storage: a tenant's objects are its own, whatever it calls them. In memory and on a disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from obstore.store import LocalStore, MemoryStore, S3Store

from tenancy import account_scope, platform_scope, tenant_scope
from tenancy.errors import (
    ConfigurationError,
    KeyRefusedError,
    NamespaceError,
    NoTenantError,
    ObjectNotFoundError,
    ObjectTooLargeError,
    PlatformAccessError,
    TenancyError,
)
from tenancy.namespaces import ObjectStore, TenantStorage, storage_prefix, stored_tenants
from tests.tenancy.tenants import ACME, ADA, GLOBEX

MANY = 10_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, folder: Path) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else LocalStore(prefix=folder, mkdir=True)


@pytest.fixture
def storage(store: ObjectStore) -> TenantStorage:
    return TenantStorage(store)


@pytest.fixture
def on_disk(folder: Path) -> TenantStorage:
    return TenantStorage(LocalStore(prefix=folder, mkdir=True))


def content_of(storage: TenantStorage, name: str) -> bytes:
    return b"".join(storage.get(name).chunks)


def names(storage: TenantStorage, folder: str = "") -> list[str]:
    return sorted(found.name for found in storage.list(folder))


def answer_to(use: Callable[[], Any]) -> str:
    try:
        return str(use())
    except TenancyError as error:
        return f"{type(error).__name__}: {error}"


def test_object_is_stored_described_read_and_removed(storage: TenantStorage) -> None:
    with tenant_scope(ACME):
        stored = storage.put("files/Grüße.txt", b"hello", max_bytes=5)
        opened = storage.get("files/Grüße.txt")

        assert (stored.name, stored.size_bytes) == ("files/Grüße.txt", 5)
        assert stored.sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        assert (opened.found.size_bytes, opened.found.modified_at) == (5, stored.modified_at)
        assert b"".join(opened.chunks) == b"hello"

        storage.delete("files/Grüße.txt")
        with pytest.raises(ObjectNotFoundError):
            storage.head("files/Grüße.txt")


def test_same_name_in_two_tenants_is_two_objects(storage: TenantStorage) -> None:
    """T113"""
    for tenant, content in ((ACME, b"ours"), (GLOBEX, b"theirs")):
        with tenant_scope(tenant):
            storage.put("logo", content, max_bytes=9)

    with tenant_scope(ACME):
        ours = content_of(storage, "logo")
        storage.delete("logo")
    with tenant_scope(GLOBEX):
        assert (ours, content_of(storage, "logo")) == (b"ours", b"theirs")


def test_list_shows_own_objects_only(storage: TenantStorage) -> None:
    for tenant, found in ((ACME, ("a/1", "a/2", "ab/3")), (GLOBEX, ("a/1", "b/4"))):
        with tenant_scope(tenant):
            for name in found:
                storage.put(name, b"x", max_bytes=1)

    with tenant_scope(ACME):
        assert names(storage) == ["a/1", "a/2", "ab/3"]
        assert names(storage, "a") == names(storage, "a/") == ["a/1", "a/2"]
        assert names(storage, "b") == []


@pytest.mark.parametrize("verb", ["get", "head", "copy"])
def test_foreign_object_is_refused_in_the_same_words_as_an_absent_one(storage: TenantStorage, verb: str) -> None:
    """T113"""
    with tenant_scope(GLOBEX):
        storage.put("theirs", b"secret", max_bytes=9)
    calls = {
        "get": lambda name: storage.get(name),
        "head": lambda name: storage.head(name),
        "copy": lambda name: storage.copy(name, "mine"),
    }

    with tenant_scope(ACME):
        foreign = answer_to(lambda: calls[verb]("theirs"))
        spelled = answer_to(lambda: calls[verb](f"tenants/{GLOBEX}/theirs"))
        absent = answer_to(lambda: calls[verb]("nobody"))

    assert foreign.startswith("ObjectNotFoundError")
    assert foreign.replace("theirs", "nobody") == absent
    assert spelled.replace(f"tenants/{GLOBEX}/theirs", "nobody") == absent


def test_removal_of_a_foreign_object_touches_nothing_and_says_nothing(storage: TenantStorage) -> None:
    """T113"""
    with tenant_scope(GLOBEX):
        storage.put("theirs", b"secret", max_bytes=9)

    with tenant_scope(ACME):
        storage.delete("theirs")
        storage.delete("nobody")

    with tenant_scope(GLOBEX):
        assert content_of(storage, "theirs") == b"secret"


@pytest.mark.parametrize(
    "trick",
    [
        "../{other}/logo",
        "a/../../{other}/logo",
        "/tenants/{other}/logo",
        "..\\{other}\\logo",
        "．．/{other}/logo",
        "‥/{other}/logo",
        "%2e%2e/{other}/logo",
        "..;/{other}/logo",
        "=2e=2e/{other}/logo",
        "logo\0",
    ],
)
def test_no_spelling_reaches_the_other_tenants_object(storage: TenantStorage, trick: str) -> None:
    """T113"""
    with tenant_scope(GLOBEX):
        storage.put("logo", b"theirs", max_bytes=9)
    name = trick.format(other=GLOBEX)

    with tenant_scope(ACME):
        read = answer_to(lambda: storage.get(name))
        answer_to(lambda: storage.put(name, b"overwritten", max_bytes=99))
        answer_to(lambda: storage.copy(name, "mine"))
        answer_to(lambda: storage.delete(name))

    assert read.startswith(("KeyRefusedError", "ObjectNotFoundError"))
    with tenant_scope(GLOBEX):
        assert (names(storage), content_of(storage, "logo")) == (["logo"], b"theirs")


@pytest.mark.parametrize(
    "use",
    [
        lambda storage: storage.put("x", b"", max_bytes=1),
        lambda storage: storage.get("x"),
        lambda storage: storage.head("x"),
        lambda storage: storage.delete("x"),
        lambda storage: storage.list(),
        lambda storage: storage.copy("x", "y"),
        lambda storage: storage.erase(),
        lambda storage: storage.signed_url("x", expires_in_s=1),
    ],
)
def test_storage_refuses_outside_of_a_tenants_scope(
    storage: TenantStorage, use: Callable[[TenantStorage], object]
) -> None:
    with pytest.raises(NoTenantError):
        use(storage)
    with account_scope(ADA), pytest.raises(NoTenantError):
        use(storage)


def test_list_goes_on_for_the_tenant_it_was_begun_for(storage: TenantStorage) -> None:
    with tenant_scope(ACME):
        storage.put("ours", b"", max_bytes=1)
        listing = storage.list()
    with tenant_scope(GLOBEX):
        storage.put("theirs", b"", max_bytes=1)

        assert [found.name for found in listing] == ["ours"]


# Content ----------------------------------------------------------------------------------------------


def pieces(count: int, read: list[int]) -> Iterator[bytes]:
    for number in range(count):
        read.append(number)
        yield b"x" * 100_000


@pytest.mark.parametrize("given", [lambda: b"hello", lambda: io.BytesIO(b"hello"), lambda: [b"he", b"", b"llo"]])
def test_content_is_taken_as_bytes_as_a_file_and_in_pieces(storage: TenantStorage, given: Callable[[], Any]) -> None:
    with tenant_scope(ACME):
        stored = storage.put("x", given(), max_bytes=5)

        assert (stored.size_bytes, content_of(storage, "x")) == (5, b"hello")


def test_empty_content_is_an_object(storage: TenantStorage) -> None:
    with tenant_scope(ACME):
        assert [storage.put("x", empty, max_bytes=1).size_bytes for empty in (b"", [], io.BytesIO())] == [0, 0, 0]
        assert content_of(storage, "x") == b""


def test_content_beyond_the_limit_is_refused_before_its_end_is_read(storage: TenantStorage, folder: Path) -> None:
    read: list[int] = []

    with tenant_scope(ACME):
        with pytest.raises(ObjectTooLargeError, match="longer than 6,000,000 bytes"):
            storage.put("x", pieces(1_000, read), max_bytes=6_000_000)

        assert names(storage) == []
    assert len(read) < 200
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_refused_content_leaves_what_was_there(storage: TenantStorage) -> None:
    with tenant_scope(ACME):
        storage.put("x", b"first", max_bytes=9)

        with pytest.raises(ObjectTooLargeError):
            storage.put("x", b"far too long", max_bytes=9)

        assert content_of(storage, "x") == b"first"


def test_sender_who_breaks_off_leaves_nothing(storage: TenantStorage, folder: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 6_000_000
        raise ConnectionResetError

    with tenant_scope(ACME):
        with pytest.raises(ConnectionResetError):
            storage.put("x", broken(), max_bytes=MANY)

        assert names(storage) == []
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_large_content_is_given_back_in_pieces(on_disk: TenantStorage) -> None:
    with tenant_scope(ACME):
        on_disk.put("x", pieces(60, []), max_bytes=6_000_000)
        chunks = list(on_disk.get("x").chunks)

    assert len(chunks) > 1
    assert b"".join(chunks) == b"x" * 6_000_000


def test_copy_stays_within_the_tenant(storage: TenantStorage) -> None:
    with tenant_scope(ACME):
        storage.put("one", b"hello", max_bytes=9)

        copied = storage.copy("one", "two")

        assert (copied.name, copied.size_bytes, content_of(storage, "two")) == ("two", 5, b"hello")
    with tenant_scope(GLOBEX):
        assert names(storage) == []


def test_erase_removes_everything_of_one_tenant(storage: TenantStorage) -> None:
    for tenant in (ACME, GLOBEX):
        with tenant_scope(tenant):
            for name in ("a", "b/c", "B/c", "." * 3):
                storage.put(name, b"x", max_bytes=1)

    with tenant_scope(ACME):
        assert storage.erase() == 4
        assert names(storage) == []
    with tenant_scope(GLOBEX):
        assert len(names(storage)) == 4


# A disk -----------------------------------------------------------------------------------------------


@pytest.fixture
def linked(on_disk: TenantStorage, folder: Path) -> Path:
    """In acme's folder, a link to globex's folder and one to its object."""
    for tenant in (ACME, GLOBEX):
        with tenant_scope(tenant):
            on_disk.put("own", b"secret", max_bytes=9)
    theirs, ours = folder / storage_prefix(GLOBEX), folder / storage_prefix(ACME)
    (ours / "folder").symlink_to(theirs, target_is_directory=True)
    (ours / "object").symlink_to(theirs / "own")
    return theirs / "own"


@pytest.mark.parametrize("name", ["object", "folder/own"])
def test_symbolic_link_is_not_followed(on_disk: TenantStorage, linked: Path, name: str) -> None:
    """T113"""
    uses: list[Callable[[], object]] = [
        lambda: on_disk.get(name),
        lambda: on_disk.head(name),
        lambda: on_disk.put(name, b"overwritten", max_bytes=99),
        lambda: on_disk.delete(name),
        lambda: on_disk.copy(name, "mine"),
        lambda: on_disk.copy("own", name),
    ]

    for use in uses:
        with tenant_scope(ACME), pytest.raises(KeyRefusedError, match="symbolic link"):
            use()

    assert linked.read_bytes() == b"secret"


def test_what_lies_behind_a_link_is_not_listed(on_disk: TenantStorage, linked: Path) -> None:
    """T113"""
    with tenant_scope(ACME):
        assert names(on_disk) == ["own"]
        assert names(on_disk, "folder") == []


def test_tenants_folder_that_is_a_link_is_refused(on_disk: TenantStorage, folder: Path, tmp_path: Path) -> None:
    """T113"""
    (tmp_path / "elsewhere").mkdir()
    (folder / "tenants").mkdir()
    (folder / storage_prefix(ACME).rstrip("/")).symlink_to(tmp_path / "elsewhere")

    with tenant_scope(ACME), pytest.raises(KeyRefusedError, match="symbolic link"):
        on_disk.put("x", b"", max_bytes=1)

    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_folder_is_no_object(on_disk: TenantStorage) -> None:
    with tenant_scope(ACME):
        on_disk.put("a/b", b"x", max_bytes=1)

        for use in (on_disk.get, on_disk.head, lambda name: on_disk.copy(name, "c")):
            for name in ("a", "a/b/c"):
                with pytest.raises(ObjectNotFoundError):
                    use(name)
        on_disk.delete("a")
        on_disk.delete("a/b/c")
        with pytest.raises(KeyRefusedError):
            on_disk.put("a", b"", max_bytes=1)
        with pytest.raises(KeyRefusedError):
            on_disk.put("a/b/c", b"", max_bytes=1)
        assert names(on_disk) == ["a/b"]


def test_strangers_file_in_the_folder_is_not_listed(on_disk: TenantStorage, folder: Path) -> None:
    with tenant_scope(ACME):
        on_disk.put("own", b"x", max_bytes=1)
        (folder / storage_prefix(ACME) / "Put by Hand").write_text("x")

        assert names(on_disk) == ["own"]


def test_store_of_the_whole_disk_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="without a folder"):
        TenantStorage(LocalStore())


# Links ------------------------------------------------------------------------------------------------


@pytest.fixture
def cloud() -> TenantStorage:
    return TenantStorage(
        S3Store("bucket", prefix="crm", region="eu-west-1", access_key_id="id", secret_access_key="secret")
    )


def test_signed_link_is_for_one_object_of_the_tenant_and_one_method(cloud: TenantStorage) -> None:
    with tenant_scope(ACME):
        link = cloud.signed_url("../x".replace("../", "Up "), expires_in_s=60, method="PUT")

    assert f"/bucket/crm/tenants/{ACME}/%3D55p%3D20x?" in link
    assert "X-Amz-Expires=60" in link
    assert "secret" not in link


@pytest.mark.parametrize("expires_in_s", [0, -1, 3_601])
def test_link_that_lives_too_long_is_refused(cloud: TenantStorage, expires_in_s: int) -> None:
    with tenant_scope(ACME), pytest.raises(ConfigurationError):
        cloud.signed_url("x", expires_in_s=expires_in_s, method="PUT")


def test_link_to_a_foreign_name_is_refused(cloud: TenantStorage) -> None:
    """T113"""
    with tenant_scope(ACME), pytest.raises(KeyRefusedError):
        cloud.signed_url(f"../{GLOBEX}/x", expires_in_s=60, method="PUT")


def test_store_that_signs_nothing_says_so(storage: TenantStorage) -> None:
    with tenant_scope(ACME):
        storage.put("x", b"", max_bytes=1)

        with pytest.raises(NamespaceError, match="signs no links"):
            storage.signed_url("x", expires_in_s=60)
        with pytest.raises(ObjectNotFoundError):
            storage.signed_url("nobody", expires_in_s=60)


# The platform -----------------------------------------------------------------------------------------


def test_platform_learns_which_tenants_have_objects(store: ObjectStore, storage: TenantStorage) -> None:
    for tenant in (ACME, GLOBEX):
        with tenant_scope(tenant):
            storage.put("a/b", b"", max_bytes=1)
    store.put("tenants/no-tenant/x", b"")

    with platform_scope(actor="ana", reason="test"):
        found: set[UUID] = stored_tenants(store)

    assert found == {ACME, GLOBEX}


def test_nobody_else_learns_which_tenants_have_objects(store: ObjectStore) -> None:
    with tenant_scope(ACME), pytest.raises(PlatformAccessError):
        stored_tenants(store)
    with pytest.raises(PlatformAccessError):
        stored_tenants(store)
