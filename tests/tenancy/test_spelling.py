"""How a slug, a tenant id and a domain may be spelled."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenancy.errors import (
    MalformedReferenceError,
)
from tenancy.resolvers import (
    normalize_domain,
    normalize_slug,
    parse_tenant_id,
    valid_slug,
)


@pytest.mark.parametrize("text", ["a", "acme", "acme-2", "2acme", "a-b-c", "a" * 63])
def test_slug_of_letters_digits_and_inner_hyphens_is_valid(text: str) -> None:
    assert valid_slug(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "-a", "a-", "a--b", "xn--a", "123", "1-2", "Acme", "a.b", "a_b", "a b", "acme\n", "acme\x00",
        "а" + "cme", "ａｃｍｅ", "é", "a" * 64, "a/b", "'", "ſ", "١a",
    ],
)  # fmt: skip
def test_anything_else_is_no_slug(text: str) -> None:
    """T109"""
    assert not valid_slug(text)


def test_new_slug_is_trimmed_and_lowered() -> None:
    assert normalize_slug("  Acme-2 ") == "acme-2"
    assert normalize_slug("Xavier") == "xavier"


@pytest.mark.parametrize(
    "text", ["www", "Admin", "api", "acme\n", "\u212aelvin", "xn--acme", "a--b", "42", "a" * 64, "", "acme corp"]
)
def test_new_slug_that_is_reserved_or_no_slug_is_refused(text: str) -> None:
    """T109"""
    with pytest.raises(MalformedReferenceError):
        normalize_slug(text)


@given(st.text())
def test_normalized_slug_is_valid_and_stays_as_it_is(text: str) -> None:
    try:
        slug = normalize_slug(text, reserved=())
    except MalformedReferenceError:
        return

    assert valid_slug(slug)
    assert normalize_slug(slug, reserved=()) == slug


@pytest.mark.parametrize("text", ["0197C1A2-0000-7000-8000-00000000000A", "0197c1a2-0000-7000-8000-00000000000a"])
def test_tenant_id_is_read_in_either_case(text: str) -> None:
    """T064"""
    assert parse_tenant_id(text) == UUID("0197c1a2-0000-7000-8000-00000000000a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{0197c1a2-0000-7000-8000-00000000000a}",
        "urn:uuid:0197c1a2-0000-7000-8000-00000000000a",
        "0197c1a2000070008000000000000000",
        "0197c1a2-0000-7000-8000-00000000000a\n",
        " 0197c1a2-0000-7000-8000-00000000000a",
        "0197c1a2-0000-7000-8000-00000000000a\x00",
        "0197c1a2-0000-7000-8000-00000000000g",
        "0197c1a2-0000-7000-8000-00000000000a'--",
        "0197c1a2-0000-7000-8000-00000000000a,0197c1a2-0000-7000-8000-00000000000b",
        "0197c1a-20000-7000-8000-00000000000a",
        "٠197c1a2-0000-7000-8000-00000000000a",
        "[]",
    ],
)
def test_any_other_spelling_of_a_tenant_id_is_refused(text: str) -> None:
    """T064"""
    with pytest.raises(MalformedReferenceError):
        parse_tenant_id(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Planning.Acme.com.", "planning.acme.com"),
        (" Xavier.example ", "xavier.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_domain_is_spelled_as_a_host_header_spells_it(text: str, expected: str) -> None:
    assert normalize_domain(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "straße.example", "a..b", "-a.example", "a_b.example", "a b.example", "http://a.example",
     "a.example:80", "*.example.com", "a" * 64 + ".example", "ü" * 70 + ".example", "acme.example\n"],
)  # fmt: skip
def test_text_that_is_no_unambiguous_domain_is_refused(text: str) -> None:
    with pytest.raises(MalformedReferenceError):
        normalize_domain(text)
