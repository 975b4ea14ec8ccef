"""Signing in, choosing a tenant, going from one to another, and leaving."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import PASSWORD, Organisation, Site, fill_in, follow

SignIn = Callable[[Page, Organisation], None]


@pytest.fixture
def two_tenants(site: Site) -> tuple[Organisation, Organisation]:
    """Acme and Globex, both of one owner; a third tenant is somebody else's."""
    acme = site.found("Acme")
    site.found("Initech")
    return acme, site.found("Globex", owner=acme.owner)


def test_a_wrong_password_and_an_unknown_address_get_the_same_words(site: Site, acme: Organisation, page: Page) -> None:
    page.goto(site.at(acme, "/sign-in"))

    fill_in(page, acme.owner, "not the password")
    wrong_password = page.get_by_role("alert").inner_text()
    fill_in(page, "nobody@people.test", PASSWORD)
    unknown_address = page.get_by_role("alert").inner_text()

    assert wrong_password == unknown_address == "The e-mail address or the password is wrong."


def test_empty_fields_are_named_beside_themselves(site: Site, acme: Organisation, page: Page) -> None:
    page.goto(site.at(acme, "/sign-in"))

    fill_in(page, "", "")

    assert page.locator(".field-error").all_inner_texts() == ["Fill this in.", "Fill this in."]
    expect(page.get_by_label("E-mail address")).to_have_attribute("aria-invalid", "true")


def test_an_account_of_another_tenant_does_not_get_in(
    site: Site, acme: Organisation, globex: Organisation, page: Page
) -> None:
    page.goto(site.at(acme, "/sign-in"))

    fill_in(page, globex.owner)

    assert page.get_by_role("alert").inner_text() == "This account does not belong to Acme."


def test_signing_in_leads_back_to_the_page_that_was_asked_for(site: Site, acme: Organisation, page: Page) -> None:
    page.goto(site.at(acme, "/companies?sort=-name"))

    fill_in(page, acme.owner)

    assert page.url == site.at(acme, "/companies?sort=-name")


def test_signing_out_ends_the_sign_in(site: Site, acme: Organisation, page: Page, sign_in: SignIn) -> None:
    sign_in(page, acme)
    cookies = page.context.cookies()

    page.locator("summary", has_text=acme.owner).click()
    follow(page.get_by_role("button", name="Sign out"))
    expect(page.get_by_text("You are signed out.")).to_be_visible()
    page.context.add_cookies(cookies)  # as somebody would who had kept the old one
    page.goto(site.at(acme, "/people"))

    assert page.url == site.at(acme, "/sign-in")


def test_the_switcher_lists_her_own_tenants_and_keeps_her_signed_in(
    site: Site, two_tenants: tuple[Organisation, Organisation], page: Page, sign_in: SignIn
) -> None:
    acme, globex = two_tenants
    sign_in(page, acme)

    page.get_by_label("Acme: switch tenant").click()
    listed = page.locator(".menu[open] .two-lines > :first-child").all_inner_texts()
    follow(page.get_by_role("link", name="Globex"))

    assert listed == ["Acme", "Globex"]
    assert page.url == site.at(globex, "/people")
    assert page.title() == "People · Globex"
    expect(page.locator("summary", has_text=acme.owner)).to_be_visible()


def test_the_bare_host_asks_where_to(site: Site, two_tenants: tuple[Organisation, Organisation], page: Page) -> None:
    acme, globex = two_tenants
    page.goto(site.bare("/"))

    fill_in(page, acme.owner)
    listed = page.locator(".two-lines > :first-child").all_inner_texts()
    follow(page.get_by_role("link", name="Globex"))

    assert listed == ["Acme", "Globex"]
    assert page.url == site.at(globex, "/people")


def test_a_handover_ticket_opens_nothing_in_another_browser_and_nothing_twice(
    site: Site, two_tenants: tuple[Organisation, Organisation], open_window: Callable[..., Page], sign_in: SignIn
) -> None:
    acme, globex = two_tenants
    hers, thiefs = open_window(), open_window()
    tickets: list[str] = []
    hers.on("request", lambda sent: tickets.append(sent.url) if "/handover/accept" in sent.url else None)
    sign_in(hers, acme)
    hers.get_by_label("Acme: switch tenant").click()
    follow(hers.get_by_role("link", name="Globex"))

    thiefs.goto(tickets[0])
    hers.context.clear_cookies()
    hers.goto(tickets[0])

    assert thiefs.url == hers.url == site.at(globex, "/sign-in")
    expect(thiefs.get_by_text("began in another browser")).to_be_visible()


def test_a_handover_to_somebody_elses_tenant_ends_at_the_404_page(
    site: Site, acme: Organisation, globex: Organisation, page: Page, sign_in: SignIn
) -> None:
    sign_in(page, acme)

    answer = page.goto(site.at(globex, f"/handover?via={acme.tenant.slug}"))

    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", name="Nothing is here")).to_be_visible()
