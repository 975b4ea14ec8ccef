"""Slugs that names lead to: DNS labels that imitate nobody."""

from __future__ import annotations

import re
from itertools import islice

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.tenants.operations import change_slug
from app.tenants.slugs import slug_candidates
from tenancy.resolvers import RESERVED_SLUGS, valid_slug
from tests.app.conftest import Visitor
from tests.app.lives import WHY, as_staff, new_slug, registrar_of


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


def availability(client: FlaskClient, slug: str) -> dict[str, object]:
    response = client.get("/api/v1/slugs/availability", query_string={"slug": slug})
    assert response.status_code == 200, response.get_data(as_text=True)
    found: dict[str, object] = response.get_json()
    return found


def test_free_slug_is_available_in_its_one_spelling(client: FlaskClient) -> None:
    slug = new_slug()

    assert availability(client, f" {slug.upper()} ") == {
        "slug": slug,
        "is_available": True,
        "reason": None,
        "suggestion": None,
    }


@pytest.mark.parametrize("slug", ["асме", "x" * 64, "xn--acme", "acme\n", "admin", "support", "12345", "a--b", "-a"])
def test_slug_that_could_mislead_is_not_available_and_another_is_offered(client: FlaskClient, slug: str) -> None:
    """T109"""
    found = availability(client, slug)

    assert found["is_available"] is False
    assert found["reason"]
    assert valid_slug(str(found["suggestion"]))


def test_slug_in_use_reserved_or_of_an_erased_tenant_is_told_of_alike(
    app: Flask, client: FlaskClient, acme: Visitor
) -> None:
    registrar, wanted = registrar_of(app), new_slug("acme")
    with as_staff():
        change_slug(registrar, acme.tenant_id, wanted, reason=WHY)

    answers = [availability(client, slug) for slug in (wanted, acme.slug)]

    assert [(one["is_available"], one["reason"]) for one in answers] == [(False, "it is in use")] * 2
