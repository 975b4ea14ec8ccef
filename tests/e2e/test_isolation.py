"""What one tenant's people see of another's: nothing, and not even that there is something."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Organisation, Site, take_screenshot

SignIn = Callable[[Page, Organisation], None]
RANDOM_ID = UUID("01890000-0000-7000-8000-000000000000")


def test_two_browsers_each_see_only_their_own_people(
    site: Site, acme: Organisation, globex: Organisation, open_window: Callable[..., Page], sign_in: SignIn
) -> None:
    site.add_people(acme, "Ada Lovelace", "Alan Turing")
    site.add_people(globex, "Grace Hopper")
    at_acme, at_globex = open_window(), open_window()

    sign_in(at_acme, acme)
    sign_in(at_globex, globex)

    assert at_acme.locator("tbody .row-name").all_inner_texts() == ["AL\nAda Lovelace", "AT\nAlan Turing"]
    assert at_globex.locator("tbody .row-name").all_inner_texts() == ["GH\nGrace Hopper"]
    assert (at_acme.title(), at_globex.title()) == ("People · Acme", "People · Globex")


@pytest.mark.parametrize("path", ["/people/{}", "/people/{}/delete"])
def test_a_foreign_id_answers_the_same_page_as_a_random_one(
    path: str, site: Site, acme: Organisation, globex: Organisation, page: Page, sign_in: SignIn
) -> None:
    """T118"""
    (theirs,) = site.add_people(globex, "Grace Hopper")
    (ours,) = site.add_people(acme, "Ada Lovelace")
    sign_in(page, acme)

    foreign = page.goto(site.at(acme, path.format(theirs)))
    foreign_page = page.content()
    random = page.goto(site.at(acme, path.format(RANDOM_ID)))
    random_page = page.content()
    own = page.goto(site.at(acme, path.format(ours)))

    assert foreign is not None
    assert random is not None
    assert own is not None
    assert (foreign.status, random.status, own.status) == (404, 404, 200)
    assert foreign_page == random_page
    assert "Nothing is here" in foreign_page


def test_a_page_of_another_tenant_asks_for_a_sign_in_there(
    site: Site, acme: Organisation, globex: Organisation, page: Page, sign_in: SignIn
) -> None:
    sign_in(page, acme)

    page.goto(site.at(globex, "/people"))

    expect(page.get_by_role("heading", name="Globex")).to_be_visible()
    assert page.url == site.at(globex, "/sign-in")


def test_a_cookie_of_one_tenant_is_worth_nothing_at_another(
    site: Site, acme: Organisation, globex: Organisation, page: Page, sign_in: SignIn
) -> None:
    """T105"""
    sign_in(page, acme)
    (stolen,) = page.context.cookies(site.at(acme, "/"))
    page.context.add_cookies([{"name": stolen["name"], "value": stolen["value"], "url": site.at(globex, "/")}])

    page.goto(site.at(globex, "/people"))

    assert page.url == site.at(globex, "/sign-in")


def test_a_suspended_tenant_tells_its_members_and_nobody_else(
    site: Site, acme: Organisation, open_window: Callable[..., Page], sign_in: SignIn
) -> None:
    """T111"""
    member, stranger = open_window(), open_window()
    sign_in(member, acme)
    site.set_status(acme, "suspended")
    member.wait_for_timeout(1_000)

    told = member.goto(site.at(acme, "/people"))
    untold = stranger.goto(site.at(acme, "/people"))

    assert told is not None
    assert untold is not None
    assert (told.status, untold.status) == (403, 404)
    take_screenshot(member, "suspended")
    expect(member.get_by_text("This tenant is suspended.")).to_be_visible()
    expect(stranger.get_by_role("heading", name="Nothing is here")).to_be_visible()
