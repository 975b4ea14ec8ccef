"""Slugs that names lead to: DNS labels that imitate nobody."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from app.tenants.slugs import slug_candidates
from tenancy.resolvers import RESERVED_SLUGS, valid_slug


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Acme", "acme"),
        ("  Acme & Sons, Ltd. ", "acme-sons-ltd"),
        ("Café Zoë", "cafe-zoe"),
        ("ACME", "acme"),
        ("xn--acme", "xn-acme"),
        ("acme\n", "acme"),
        ("a--b", "a-b"),
        ("x" * 200, "x" * 48),
    ],
)
def test_name_leads_to_this_slug_first(name: str, slug: str) -> None:
    """T109"""
    assert next(slug_candidates(name)) == slug


@pytest.mark.parametrize("name", ["аcme", "12345", "東京", "---", "", "www", "Admin", "\u202eemca"])
def test_name_that_could_mislead_gets_a_random_suffix_or_loses_its_letters(name: str) -> None:
    """T109"""
    for slug in islice(slug_candidates(name), 5):
        assert valid_slug(slug)
        assert slug not in RESERVED_SLUGS
        assert slug != "acme"


def test_further_candidates_differ() -> None:
    found = list(slug_candidates("Acme"))

    assert found[0] == "acme"
    assert len(set(found)) == len(found) == 9
    assert all(re.fullmatch("acme-[0-9a-f]{6}", slug) for slug in found[1:])
