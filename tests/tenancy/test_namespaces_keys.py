"""Keys of caches and objects: different names make different keys, and none leads out of the tenant's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenancy.errors import KeyRefusedError
from tenancy.namespaces import cache_key, object_key, storage_prefix
from tenancy.namespaces.keys import encode_part, name_of
from tests.tenancy.tenants import ACME, GLOBEX

USABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60).filter(
    lambda text: text not in (".", "..")
)
NAMES = st.lists(USABLE.filter(lambda text: "/" not in text), min_size=1, max_size=4)


@given(st.lists(USABLE, min_size=1, max_size=4), st.lists(USABLE, min_size=1, max_size=4))
def test_two_keys_are_the_same_only_if_their_parts_are(one: list[str], other: list[str]) -> None:
    """T091, T114"""
    assert (cache_key("app", ACME, one) == cache_key("app", ACME, other)) == (one == other)


@given(NAMES)
def test_object_lies_in_the_tenants_folder_and_its_name_comes_back(parts: list[str]) -> None:
    """T113"""
    name = "/".join(parts)
    try:
        key = object_key(ACME, name)
    except KeyRefusedError:
        assert len(name.encode()) * 3 > 240
        return

    inner = key.removeprefix(storage_prefix(ACME)).split("/")
    assert key.startswith(storage_prefix(ACME))
    assert len(inner) == len(parts)
    assert not {"", ".", ".."} & set(inner)
    assert name_of(ACME, key) == name
    assert name_of(GLOBEX, key) is None


@given(USABLE, USABLE)
def test_spelling_keeps_names_apart_on_a_disk_that_ignores_case(one: str, other: str) -> None:
    assert (encode_part(one).lower() == encode_part(other).lower()) == (one == other)
    assert encode_part(one).isascii()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/etc/passwd",
        "../other",
        "a/../../other",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "a\0b",
        "\ud800",
        "x" * 241,
        "ß" * 50,
        "/".join(["folder"] * 200),
    ],
)
def test_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    """T113"""
    with pytest.raises(KeyRefusedError):
        object_key(ACME, name)


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("photo.png", "photo.png"),
        ("Photo.PNG", "=50hoto.=50=4e=47"),
        ("..\\other", "=2e.=5cother"),
        ("C:\\x", "=43=3a=5cx"),
        ("‥", "=e2=80=a5"),
        ("．．", "=ef=bc=8e=ef=bc=8e"),
        (".hidden", "=2ehidden"),
        ("tail.", "tail=2e"),
        ("a=2fb", "a=3d2fb"),
        ("*[x]\n:#", "=2a=5bx=5d=0a=3a=23"),
    ],
)
def test_strange_name_is_spelled_out_in_the_tenants_folder(name: str, spelled: str) -> None:
    """T113"""
    assert object_key(ACME, name) == f"tenants/{ACME}/{spelled}"


def test_key_of_one_tenant_is_spelled_by_no_key_of_another() -> None:
    """T114: the separator, the patterns and the newline of the other tenant's key come out as text."""
    theirs = cache_key("app", GLOBEX, ("a", "b"))

    tricks = ["../" + theirs, theirs, f"x\n{theirs}", f"x:{theirs}", "*", "[a-z]*", f"tenants:{GLOBEX.hex}:a:b"]

    for trick in tricks:
        ours = cache_key("app", ACME, trick)
        assert ours.startswith(f"app:tenants:{ACME.hex}:")
        assert ours.count(":") == 3
        assert not set(ours) & set("*[\n/\\")


def test_long_key_ends_in_its_digest_and_stays_apart() -> None:
    """T114"""
    one, other = cache_key("app", ACME, "x" * 500), cache_key("app", ACME, "x" * 501)

    assert one != other
    assert len(one) == len(other) < 200
    assert one.startswith(f"app:tenants:{ACME.hex}:#")
    assert cache_key("app", ACME, one.rpartition(":")[2]) != one


def test_everyones_key_is_no_tenants() -> None:
    assert cache_key("app", None, "rates") == "app:everyone:rates"
    assert cache_key("app", ACME, "rates") == f"app:tenants:{ACME.hex}:rates"


@pytest.mark.parametrize("key", [(), "", ("a", ""), ("a", "..")])
def test_key_without_a_usable_part_is_refused(key: tuple[str, ...] | str) -> None:
    with pytest.raises(KeyRefusedError):
        cache_key("app", ACME, key)


def test_part_that_is_no_text_is_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match="not int"):
        cache_key("app", ACME, (7,))  # type: ignore[arg-type]


@pytest.mark.parametrize("spelled", ["x=zz", "x=4", "x=FF", "X", "=70hoto", "..", "a//b"])
def test_key_that_no_name_makes_has_no_name(spelled: str) -> None:
    assert name_of(ACME, storage_prefix(ACME) + spelled) is None
