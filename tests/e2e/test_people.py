"""Adding, changing and deleting on the pages, and who may."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Organisation, Site, follow, take_screenshot

SignIn = Callable[[Page, Organisation], None]


@pytest.fixture
def at_acme(acme: Organisation, page: Page, sign_in: SignIn) -> Page:
    sign_in(page, acme)
    return page


def test_a_person_is_added_changed_and_deleted(at_acme: Page) -> None:
    page = at_acme
    expect(page.get_by_role("heading", name="Nobody here yet")).to_be_visible()
    take_screenshot(page, "nobody-yet")

    follow(page.get_by_role("link", name="Add a person").first)
    page.get_by_label("Name").fill("Ada Lovelace")
    page.get_by_label("E-mail address").fill("ada@engines.test")
    follow(page.get_by_role("button", name="Add person"))
    expect(page.get_by_role("status")).to_have_text("Ada Lovelace was added.")

    follow(page.get_by_role("link", name="Ada Lovelace"))
    page.get_by_label("Name").fill("Ada King")
    follow(page.get_by_role("button", name="Save"))
    expect(page.get_by_role("status")).to_have_text("Ada King was saved.")
    take_screenshot(page, "saved")
    expect(page.get_by_role("link", name="ada@engines.test")).to_be_visible()

    follow(page.get_by_role("link", name="Ada King"))
    follow(page.get_by_role("link", name="Delete"))
    follow(page.get_by_role("button", name="Delete person"))
    expect(page.get_by_role("status")).to_have_text("Ada King was deleted.")
    expect(page.get_by_role("heading", name="Nobody here yet")).to_be_visible()


def test_wrong_fields_are_named_and_what_was_typed_stays(site: Site, acme: Organisation, at_acme: Page) -> None:
    at_acme.goto(site.at(acme, "/people/new"))

    at_acme.get_by_label("Phone").fill("+49 30 1")
    at_acme.get_by_label("E-mail address").fill("not an address")
    follow(at_acme.get_by_role("button", name="Add person"))

    assert at_acme.locator(".field-error").all_inner_texts() == [
        "Fill this in.",
        "This is no e-mail address: write it as name@example.com.",
    ]
    expect(at_acme.get_by_label("Phone")).to_have_value("+49 30 1")
    expect(at_acme.get_by_label("Name")).to_have_attribute("aria-describedby", "name-error")


def test_an_address_that_is_taken_is_said_beside_the_field(site: Site, acme: Organisation, at_acme: Page) -> None:
    for name in ("Ada Lovelace", "Ada King"):
        at_acme.goto(site.at(acme, "/people/new"))
        at_acme.get_by_label("Name").fill(name)
        at_acme.get_by_label("E-mail address").fill("ada@engines.test")
        follow(at_acme.get_by_role("button", name="Add person"))

    assert at_acme.locator(".field-error").all_inner_texts() == ["Somebody here has this address already."]


def test_a_form_without_its_token_changes_nothing(site: Site, acme: Organisation, at_acme: Page) -> None:
    (ada,) = site.add_people(acme, "Ada Lovelace")
    at_acme.goto(site.at(acme, f"/people/{ada}/delete"))
    at_acme.locator("input[name=csrf_token]").evaluate_all("fields => fields.forEach(field => field.remove())")

    refused = follow(at_acme.get_by_role("button", name="Delete person"))

    assert refused.status == 403
    at_acme.goto(site.at(acme, "/people"))
    expect(at_acme.get_by_role("link", name="Ada Lovelace")).to_be_visible()


def test_another_tenants_page_cannot_send_a_form_here(
    site: Site, acme: Organisation, globex: Organisation, open_window: Callable[..., Page], sign_in: SignIn
) -> None:
    """T107"""
    page = open_window(bypass_csp=True)  # or the browser would not even let the form go
    sign_in(page, acme)
    sign_in(page, globex)

    with page.expect_navigation() as refused:
        page.evaluate(
            """action => {
                const form = document.querySelector("form[action='/sign-out']");
                form.insertAdjacentHTML("beforeend", "<input name=name value=Mallory>");
                form.action = action;
                form.submit();
            }""",
            site.at(acme, "/people/new"),
        )

    assert refused.value is not None
    assert refused.value.status == 403
    page.goto(site.at(acme, "/people"))
    expect(page.get_by_role("heading", name="Nobody here yet")).to_be_visible()


def test_a_long_list_is_paged_and_searched(site: Site, acme: Organisation, at_acme: Page) -> None:
    site.add_people(acme, *(f"Person {number:02}" for number in range(30)))
    at_acme.goto(site.at(acme, "/people"))

    first = at_acme.locator(".row-name").count()
    follow(at_acme.get_by_role("link", name="Next page"))
    second = at_acme.locator(".row-name").all_inner_texts()
    at_acme.get_by_label("Search by name").fill("person 07")
    follow(at_acme.get_by_role("button", name="Search"))
    found = at_acme.locator(".row-name").count()

    assert first == 25
    assert [text.split("\n")[1] for text in second] == [f"Person {number:02}" for number in range(25, 30)]
    assert found == 1


def test_a_member_who_may_not_delete_is_offered_no_deletion(site: Site, acme: Organisation, at_acme: Page) -> None:
    (ada,) = site.add_people(acme, "Ada Lovelace")
    site.set_role(acme, "member")

    at_acme.goto(site.at(acme, f"/people/{ada}"))
    take_screenshot(at_acme, "person-of-a-member")
    offered = at_acme.get_by_role("link", name="Delete").count()
    forced = at_acme.goto(site.at(acme, f"/people/{ada}/delete"))

    assert offered == 0
    assert forced is not None
    assert forced.status == 403


def test_an_opportunity_moves_to_the_lane_of_its_stage(site: Site, acme: Organisation, at_acme: Page) -> None:
    at_acme.goto(site.at(acme, "/opportunities/new"))
    at_acme.get_by_label("Name").fill("Analytical engine")
    at_acme.get_by_label("Amount").fill("1250.50")
    follow(at_acme.get_by_role("button", name="Add opportunity"))
    expect(at_acme.get_by_role("region", name="Lead")).to_contain_text("EUR 1,250.50")

    follow(at_acme.get_by_role("link", name="Analytical engine"))
    at_acme.get_by_label("Stage").select_option("won")
    follow(at_acme.get_by_role("button", name="Save"))

    expect(at_acme.get_by_role("region", name="Won")).to_contain_text("Analytical engine")
    expect(at_acme.get_by_role("region", name="Lead")).to_contain_text("Nothing in this stage")
