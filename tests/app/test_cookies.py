"""Cookies: worth something at one tenant, in one browser, to that tenant's own pages."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.app.conftest import PASSWORD, Truth, Visitor, codes

ME = "/api/v1/me"
PEOPLE = "/api/v1/people"


class Browser:
    """One browser: keeps cookies, sends what a browser sends."""

    def __init__(self, app: Flask, *, scheme: str = "http") -> None:
        self.client = app.test_client()
        self.scheme = scheme

    def url(self, slug: str) -> str:
        return f"{self.scheme}://{slug}.localhost"

    def get(self, slug: str, path: str) -> TestResponse:
        return self.client.get(path, base_url=self.url(slug))

    def post(self, slug: str, path: str, **options: object) -> TestResponse:
        headers = {"Origin": self.url(slug), "Referer": self.url(slug) + "/"} | options.pop("headers", {})  # type: ignore[operator]
        return self.client.post(path, base_url=self.url(slug), headers=headers, **options)  # type: ignore[arg-type]

    def csrf_token(self, slug: str, path: str = "/sign-in") -> str:
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.get(slug, path).get_data(as_text=True))
        assert found is not None
        return found[1]

    def sign_in(self, visitor: Visitor, *, at: str | None = None) -> TestResponse:
        slug = at or visitor.slug
        form = {"email": visitor.email, "password": PASSWORD, "csrf_token": self.csrf_token(slug)}
        return self.post(slug, "/sign-in", data=form)

    def cookie(self, slug: str, name: str = "session") -> str | None:
        found = self.client.get_cookie(name, domain=f"{slug}.localhost")
        return found.value if found else None


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app)


def test_signed_in_browser_is_known_at_its_tenant(browser: Browser, acme: Visitor) -> None:
    response = browser.sign_in(acme)

    assert response.status_code == 303
    assert browser.get(acme.slug, ME).get_json()["user"]["email"] == acme.email


def test_cookie_of_one_tenant_is_anonymous_at_another(
    browser: Browser, acme: Visitor, globex: Visitor, app: Flask
) -> None:
    """T105"""
    browser.sign_in(acme)
    stolen = browser.cookie(acme.slug)
    thief = app.test_client(use_cookies=False)
    headers = {"Cookie": f"session={stolen}"}
    assert thief.get(ME, base_url=browser.url(acme.slug), headers=headers).status_code == 200

    elsewhere = thief.get(ME, base_url=browser.url(globex.slug), headers=headers)

    assert codes(elsewhere) == (401, "not_signed_in")


def test_cookie_of_someone_in_both_tenants_counts_at_the_one_it_was_made_for(
    browser: Browser, register: Callable[..., Visitor], app: Flask
) -> None:
    """T105"""
    first = register("First")
    second = register("Second", first.email)
    browser.sign_in(first)

    headers = {"Cookie": f"session={browser.cookie(first.slug)}"}
    elsewhere = app.test_client(use_cookies=False).get(ME, base_url=browser.url(second.slug), headers=headers)

    assert codes(elsewhere) == (401, "not_signed_in")


def test_session_fixed_before_sign_in_is_not_the_one_after(browser: Browser, acme: Visitor, app: Flask) -> None:
    """T105"""
    browser.csrf_token(acme.slug)
    planted = browser.cookie(acme.slug)
    assert planted is not None

    browser.sign_in(acme)

    attacker = app.test_client(use_cookies=False)
    still = attacker.get(ME, base_url=browser.url(acme.slug), headers={"Cookie": f"session={planted}"})
    assert browser.cookie(acme.slug) != planted
    assert codes(still) == (401, "not_signed_in")


def test_cookie_copied_before_sign_out_is_worth_nothing_after(browser: Browser, acme: Visitor, app: Flask) -> None:
    browser.sign_in(acme)
    copied = browser.cookie(acme.slug)

    token = browser.csrf_token(acme.slug, "/people")
    signed_out = browser.post(acme.slug, "/sign-out", data={"csrf_token": token})

    again = app.test_client(use_cookies=False).get(
        ME, base_url=browser.url(acme.slug), headers={"Cookie": f"session={copied}"}
    )
    assert signed_out.status_code == 303
    assert codes(again) == (401, "not_signed_in")


def test_two_cookies_of_the_same_name_are_anonymous(browser: Browser, acme: Visitor, app: Flask) -> None:
    """T106"""
    browser.sign_in(acme)
    value = browser.cookie(acme.slug)

    twice = app.test_client(use_cookies=False).get(
        ME, base_url=browser.url(acme.slug), headers={"Cookie": f"session=planted; session={value}"}
    )

    assert codes(twice) == (401, "not_signed_in")


def test_tampered_cookie_is_anonymous(browser: Browser, acme: Visitor, app: Flask) -> None:
    browser.sign_in(acme)
    value = browser.cookie(acme.slug) or ""

    changed = app.test_client(use_cookies=False).get(
        ME, base_url=browser.url(acme.slug), headers={"Cookie": f"session={value[:-2]}xx"}
    )

    assert codes(changed) == (401, "not_signed_in")


def test_live_cookie_is_host_only_secure_and_hidden_from_scripts(make_app: Callable[..., Flask], acme: Visitor) -> None:
    """T106"""
    live = make_app(environment="production")
    browser = Browser(live, scheme="https")
    form = {"email": acme.email, "password": PASSWORD, "csrf_token": browser.csrf_token(acme.slug)}

    header = browser.post(acme.slug, "/sign-in", data=form).headers["Set-Cookie"]

    attributes = {part.strip() for part in header.split(";")[1:]}
    assert header.startswith("__Host-session=")
    assert attributes == {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"}


# Requests that another site made the browser send ------------------------------------------------------


@pytest.fixture
def signed_in(browser: Browser, acme: Visitor) -> Browser:
    browser.sign_in(acme)
    return browser


def people_of(visitor: Visitor, truth: Truth) -> int:
    row = truth.execute("SELECT count(*) FROM people WHERE tenant_id = %s", [visitor.tenant_id]).fetchone()
    assert row is not None
    return int(row[0])


def test_post_by_cookie_with_the_pages_token_is_accepted(signed_in: Browser, acme: Visitor) -> None:
    headers = {"X-CSRFToken": signed_in.csrf_token(acme.slug, "/people/new")}

    response = signed_in.post(acme.slug, PEOPLE, json={"name": "Ada"}, headers=headers)

    assert response.status_code == 201


def test_post_by_cookie_without_a_token_is_refused(signed_in: Browser, acme: Visitor, truth: Truth) -> None:
    response = signed_in.post(acme.slug, PEOPLE, json={"name": "Ada"})

    assert codes(response) == (403, "cross_site")
    assert people_of(acme, truth) == 0


def test_post_by_cookie_with_the_token_of_another_tenant_is_refused(
    signed_in: Browser, acme: Visitor, globex: Visitor, truth: Truth, app: Flask
) -> None:
    """T107"""
    theirs = Browser(app)
    theirs.sign_in(globex)
    headers = {"X-CSRFToken": theirs.csrf_token(globex.slug, "/people/new")}

    response = signed_in.post(acme.slug, PEOPLE, json={"name": "Ada"}, headers=headers)

    assert codes(response) == (403, "cross_site")
    assert people_of(acme, truth) == 0


@pytest.mark.parametrize("origin", ["http://globex.localhost", "https://evil.example", "null", "http://localhost"])
def test_post_by_cookie_from_another_origin_is_refused(
    signed_in: Browser, acme: Visitor, truth: Truth, origin: str
) -> None:
    """T107"""
    headers = {"X-CSRFToken": signed_in.csrf_token(acme.slug, "/people/new"), "Origin": origin}

    response = signed_in.post(acme.slug, PEOPLE, json={"name": "Ada"}, headers=headers)

    assert codes(response) == (403, "cross_site")
    assert people_of(acme, truth) == 0


def test_sign_in_form_sent_by_another_site_is_refused(browser: Browser, acme: Visitor) -> None:
    response = browser.post(acme.slug, "/sign-in", data={"email": acme.email, "password": PASSWORD})

    assert response.status_code == 403
    assert browser.get(acme.slug, ME).status_code == 401


def test_bearer_token_needs_no_pages_token_and_outranks_the_cookie(
    signed_in: Browser, acme: Visitor, client: FlaskClient
) -> None:
    headers = {"Authorization": f"Bearer {acme.access_token}"}

    by_token = signed_in.post(acme.slug, PEOPLE, json={"name": "Ada"}, headers=headers)
    by_bad_token = signed_in.client.get(
        ME, base_url=signed_in.url(acme.slug), headers={"Authorization": "Bearer a.b.c"}
    )

    assert by_token.status_code == 201
    assert codes(by_bad_token)[0] == 401
