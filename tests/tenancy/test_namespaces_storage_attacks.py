"""A store on a disk, where more may lie than the store tells of; and names made to meet in one key."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import LocalStore

from tenancy import tenant_scope
from tenancy.errors import KeyRefusedError
from tenancy.namespaces.keys import cache_key, encode_part, name_of, object_key
from tenancy.namespaces.storage import TenantStorage
from tests.tenancy.tenants import ACME, GLOBEX

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda text: text not in (".", "..")
)
KEYS = st.one_of(TEXTS, st.lists(TEXTS, min_size=1, max_size=4).map(tuple))


def parts(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


@pytest.fixture
def storage(tmp_path: Path) -> TenantStorage:
    return TenantStorage(LocalStore(prefix=str(tmp_path)))


def test_half_of_an_object_whose_writer_was_killed_is_erased(tmp_path: Path, storage: TenantStorage) -> None:
    for tenant in (ACME, GLOBEX):
        with tenant_scope(tenant):
            storage.put("files/a.txt", b"whole", max_bytes=100)
        (tmp_path / "tenants" / str(tenant) / "files" / "a.txt#1").write_bytes(b"half of a secret")

    with tenant_scope(ACME):
        assert storage.erase() == 1

    assert not (tmp_path / "tenants" / str(ACME)).exists()
    assert sorted(path.name for path in (tmp_path / "tenants" / str(GLOBEX) / "files").iterdir()) == [
        "a.txt",
        "a.txt#1",
    ]
    with tenant_scope(ACME):
        assert storage.erase() == 0


def test_erasing_follows_no_link(tmp_path: Path, storage: TenantStorage) -> None:
    with tenant_scope(GLOBEX):
        storage.put("kept.txt", b"theirs", max_bytes=100)
    theirs, ours = (tmp_path / "tenants" / str(tenant) for tenant in (GLOBEX, ACME))
    ours.mkdir()
    (ours / "inside").symlink_to(theirs)

    with tenant_scope(ACME):
        storage.erase()
    os.symlink(theirs, ours)
    with tenant_scope(ACME), pytest.raises(KeyRefusedError):
        storage.erase()

    assert (theirs / "kept.txt").read_bytes() == b"theirs"


@given(KEYS, KEYS, st.sampled_from([ACME, GLOBEX, None]), st.sampled_from([ACME, GLOBEX, None]), TEXTS, TEXTS)
def test_two_keys_of_a_cache_are_one_only_if_all_of_them_is_the_same(
    key: str | tuple[str, ...],
    other: str | tuple[str, ...],
    owner: UUID | None,
    other_owner: UUID | None,
    name: str,
    other_name: str,
) -> None:
    """T114"""
    is_same = (parts(key), owner, name) == (parts(other), other_owner, other_name)

    assert (cache_key(name, owner, key) == cache_key(other_name, other_owner, other)) is is_same
    assert cache_key(name, owner, key) == cache_key(name, owner, parts(key))


@given(TEXTS)
def test_key_of_an_object_is_its_name_spelled_in_another_way(text: str) -> None:
    """T113: whatever a disk does to capitals and to composed letters."""
    spelled = encode_part(text)

    assert spelled == spelled.casefold() == unicodedata.normalize("NFKD", spelled)
    assert "/" not in spelled
    if "/" not in text:
        assert name_of(ACME, object_key(ACME, text)) == text
        assert name_of(GLOBEX, object_key(ACME, text)) is None
