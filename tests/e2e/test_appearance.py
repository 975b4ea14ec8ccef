"""How pages look, as pictures for a person to judge, and the few things about it that a program can judge."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from app.seed import OWNER
from tests.e2e.conftest import PASSWORD, Organisation, Site, fill_in, follow, take_screenshot

MISSING = "01890000-0000-7000-8000-000000000000"


@pytest.fixture
def example(site: Site) -> Organisation:
    """The tenant that `make run` shows, so that the pictures show what people see first."""
    return site.example()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["wide", "narrow"])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param  # type: ignore[no-any-return]


def test_no_page_scrolls_sideways_or_breaks_its_own_policy(
    site: Site, example: Organisation, open_window: Callable[..., Page], scheme: str, size: tuple[int, int]
) -> None:
    width, height = size
    page = open_window(color_scheme=scheme, viewport={"width": width, "height": height})
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None)
    too_wide: list[str] = []

    def look(name: str, path: str | None = None) -> None:
        if path is not None:
            page.goto(site.at(example, path))
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            too_wide.append(name)
        take_screenshot(page, f"{name}-{scheme}-{width}")

    look("sign-in", "/sign-in")
    fill_in(page, OWNER, "not the password")
    look("sign-in-refused")
    fill_in(page, OWNER)
    look("people")
    page.get_by_label("Acme: switch tenant").click()
    look("switcher")
    look("people-searched", "/people?q=nobody+of+this+name")
    look("person-added", "/people/new")
    page.get_by_label("E-mail address").fill("not an address")
    follow(page.get_by_role("button", name="Add person"))
    look("person-refused")
    page.goto(site.at(example, "/people"))
    follow(page.locator(".row-name").first)
    look("person")
    follow(page.get_by_role("link", name="Delete"))
    look("person-deleted")
    look("companies", "/companies")
    look("opportunities", "/opportunities")
    look("opportunity", "/opportunities/new")
    look("not-found", f"/people/{MISSING}")
    look("bad-address", "/people/nonsense")
    page.goto(site.bare("/"))
    fill_in(page, OWNER)
    look("tenants")
    follow(page.get_by_role("link", name="Globex"))
    look("people-of-globex")

    assert complaints == []
    assert too_wide == []


def test_a_page_can_be_used_from_the_keyboard_alone(site: Site, example: Organisation, page: Page) -> None:
    page.goto(site.at(example, "/sign-in"))
    expect(page.get_by_label("E-mail address")).to_be_focused()
    page.keyboard.type(OWNER)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    with page.expect_navigation():
        page.keyboard.press("Enter")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")

    expect(page.get_by_role("link", name="Globex")).to_be_focused()


def test_the_viewer_of_the_api_needs_nothing_from_elsewhere(site: Site, page: Page) -> None:
    asked_for: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda sent: asked_for.append(sent.url))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)

    page.goto(site.bare("/api/docs"))
    expect(page.get_by_text("/api/v1/me", exact=True).first).to_be_visible(timeout=20_000)
    take_screenshot(page, "api-docs")

    assert [address for address in asked_for if not address.startswith((site.bare("/"), "data:"))] == []
    assert complaints == []
