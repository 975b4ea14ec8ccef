"""From the mail's link into the tenant: as somebody new, as somebody with an account, and too late."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect
from uuid_utils.compat import uuid7

from app.audit.actors import Actor, ActorKind, acting_as
from app.members.invitations import BY_THE_PLATFORM, hash_of, new_token
from app.models import Invitation
from tenancy.context import tenant_scope
from tests.e2e.conftest import PASSWORD, Organisation, Site, follow, take_screenshot
from tests.e2e.test_appearance import scheme, size

__all__ = ["scheme", "size"]  # fixtures, shared with the pictures of the other pages


@pytest.fixture
def invite(site: Site) -> Callable[[Organisation, str], str]:
    """Invite an address, and return what the mail's link leads to."""

    def put(organisation: Organisation, email: str) -> str:
        token = new_token()
        system = Actor(ActorKind.SYSTEM, "tests", "tests")
        with acting_as(system), tenant_scope(organisation.tenant), site.desk.database.sessions.begin() as session:
            session.add(
                Invitation(
                    email=email,
                    role="manager",
                    token_hash=hash_of(token),
                    expires_at=datetime.now(UTC) + timedelta(hours=1),
                    invited_by=BY_THE_PLATFORM,
                )
            )
        return site.at(organisation, f"/invitation?token={token}")

    return put


def test_invitation_is_followed_into_the_tenant(
    site: Site,
    acme: Organisation,
    globex: Organisation,
    invite: Callable[[Organisation, str], str],
    open_window: Callable[..., Page],
    scheme: str,
    size: tuple[int, int],
) -> None:
    width, height = size
    page = open_window(color_scheme=scheme, viewport={"width": width, "height": height})
    too_wide: list[str] = []
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None)

    def look(name: str) -> None:
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            too_wide.append(name)
        take_screenshot(page, f"{name}-{scheme}-{width}")

    email = f"{uuid7().hex}@people.test"
    link = invite(acme, email)
    page.goto(link)
    look("invitation")
    expect(page.get_by_label("Choose a password")).to_be_focused()
    page.keyboard.type("short")
    follow(page.get_by_role("button", name="Create account and join"))
    look("invitation-refused")
    page.get_by_label("Choose a password").fill(PASSWORD)
    follow(page.get_by_role("button", name="Create account and join"))
    assert page.url == site.at(acme, "/people")
    expect(page.locator("summary", has_text=email)).to_be_visible()

    page.goto(link)
    look("invitation-ended")
    expect(page.get_by_role("heading", name="This invitation no longer counts")).to_be_visible()

    page.goto(invite(globex, email))
    look("invitation-known")
    page.get_by_label("Your password").fill(PASSWORD)
    follow(page.get_by_role("button", name="Sign in and join"))
    assert page.url == site.at(globex, "/people")
    assert complaints == []
    assert too_wide == []
