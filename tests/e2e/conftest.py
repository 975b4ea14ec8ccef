"""A real browser on the real application: served over HTTP, on a database of its own, through its real roles."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Locator, Page, Response, sync_playwright
from sqlalchemy import update
from uuid_utils.compat import uuid7
from werkzeug.serving import make_server

from app import close_app, create_app
from app.auth.desk import Desk
from app.auth.operations import register_organization
from app.config import development_settings
from app.models import Member, Person
from app.seed import ACCOUNTS, OWNER, seed
from app.tenants.models import Plan, Tenant
from tenancy.context import platform_scope, tenant_scope
from tenancy.directory import Reference, TenantRecord
from tenancy.embedded import Template
from tests.app.conftest import app_template
from tests.conftest import ROLES, Database

PASSWORD = "Correct horse battery 1"
__all__ = ["app_template"]  # a fixture, shared with the tests of the app

SCREENSHOTS = Path(__file__).parent / "screenshots"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")


@dataclass(frozen=True)
class Organisation:
    """A tenant of a test's own, and how its owner signs in."""

    tenant: TenantRecord
    owner: str

    @property
    def name(self) -> str:
        return self.tenant.name


@dataclass(frozen=True)
class Site:
    """The application as it is served, and a way to arrange what a test starts from."""

    port: int
    desk: Desk

    def bare(self, path: str) -> str:
        return f"http://localhost:{self.port}{path}"

    def at(self, organisation: Organisation, path: str) -> str:
        return f"http://{organisation.tenant.slug}.localhost:{self.port}{path}"

    def found(self, name: str, owner: str | None = None) -> Organisation:
        """Register an organisation; `owner` is the address of somebody who has one already."""
        email = owner or f"{uuid7().hex}@people.test"
        made = register_organization(self.desk, name=name, email=email, password=PASSWORD, plan=Plan.BASIC)
        return Organisation(made.tenant, email)

    def example(self) -> Organisation:
        """Return the tenant that `make run` shows."""
        tenant = self.desk.directory.find(Reference("slug", "acme"))
        assert tenant is not None
        return Organisation(tenant, OWNER)

    def add_people(self, organisation: Organisation, *names: str) -> list[UUID]:
        with tenant_scope(organisation.tenant), self.desk.database.sessions.begin() as session:
            people = [Person(name=name) for name in names]
            session.add_all(people)
            session.flush()
            return [person.id for person in people]

    def set_status(self, organisation: Organisation, status: str) -> None:
        tenant = organisation.tenant
        with (
            platform_scope(actor="tests", reason="a test suspends a tenant"),
            tenant_scope(tenant),
            self.desk.database.staff_sessions.begin() as session,
        ):
            session.execute(update(Tenant).where(Tenant.id == tenant.id).values(status=status))

    def set_role(self, organisation: Organisation, role: str) -> None:
        with tenant_scope(organisation.tenant), self.desk.database.sessions.begin() as session:
            session.execute(update(Member).values(role=role))


@pytest.fixture(scope="session")
def site(app_template: Template, worker: str) -> Iterator[Site]:
    database = Database(app_template.server, app_template.clone(f"e2e_{worker}"))
    settings = development_settings(
        database_url=database.url(ROLES.app),
        platform_database_url=database.url(ROLES.platform),
        argon2_time_cost=1,
        argon2_memory_kib=8,
        argon2_parallelism=1,
    )
    app = create_app(settings)
    seed(app.extensions["auth"], dict.fromkeys(ACCOUNTS, PASSWORD))
    with make_server("127.0.0.1", 0, app, threaded=True) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield Site(served.port, app.extensions["auth"])
        served.shutdown()
        thread.join()
    close_app(app)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Of a module, not of the session: Playwright keeps an event loop running, which async tests forbid."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def open_window(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a window with cookies of its own, as if by another person."""
    contexts: list[BrowserContext] = []

    def open_one(**options: object) -> Page:
        contexts.append(browser.new_context(**options))  # type: ignore[arg-type]
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        return page

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_window: Callable[..., Page]) -> Page:
    return open_window()


@pytest.fixture
def acme(site: Site) -> Organisation:
    return site.found("Acme")


@pytest.fixture
def globex(site: Site) -> Organisation:
    return site.found("Globex")


def follow(target: Locator) -> Response:
    """Click what leads to another page, and return that page's answer once it has loaded."""
    with target.page.expect_navigation() as arrived:
        target.click()
    assert arrived.value is not None
    return arrived.value


def fill_in(page: Page, email: str, password: str = PASSWORD) -> None:
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    follow(page.get_by_role("button", name="Sign in"))


@pytest.fixture
def sign_in(site: Site) -> Callable[[Page, Organisation], None]:
    def go(page: Page, organisation: Organisation) -> None:
        page.goto(site.at(organisation, "/sign-in"))
        fill_in(page, organisation.owner)
        assert page.url == site.at(organisation, "/people")

    return go


def take_screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    for is_last in (False, False, True):
        try:
            page.screenshot(path=SCREENSHOTS / f"{name}.png")
            return
        except Error:  # Chromium cannot capture while it swaps the page, which a busy machine makes likely
            if is_last:
                raise
            page.wait_for_timeout(500)
