"""The pages, without a browser: what they refuse, and what their headers say."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.pages.handover import TICKET_TTL_S
from tests.app.conftest import PASSWORD, Visitor, add_person

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class Window:
    """A browser window on one host, as far as cookies and forms go."""

    def __init__(self, client: FlaskClient, host: str) -> None:
        self._client = client
        self._origin = f"http://{host}"

    def get(self, path: str) -> TestResponse:
        return self._client.get(path, base_url=self._origin, headers=HTML)

    def send(self, path: str, **fields: str) -> TestResponse:
        """Send the form of a page, with the token that the page gives."""
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.get(path).get_data(as_text=True))
        assert token is not None
        data = {**fields, "csrf_token": token[1]}
        return self._client.post(path, base_url=self._origin, headers=HTML, data=data)


@pytest.fixture
def open_window(app: Flask) -> Callable[[str], Window]:
    return lambda host: Window(app.test_client(), host)


@pytest.fixture
def window(open_window: Callable[[str], Window], acme: Visitor) -> Window:
    """Acme's owner, signed in."""
    made = open_window(f"{acme.slug}.localhost")
    answer = made.send("/sign-in", email=acme.email, password=PASSWORD)
    assert (answer.status_code, answer.location) == (303, "/people")
    return made


# Where sign-in leads ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "/\\evil.example",
        "///evil.example",
        "https:evil.example",
        "https://evil.example/people",
        "javascript:alert(1)",
        "/\t/evil.example",
        "\\\\evil.example",
        "people",
        "/péople",
        "",
        "//{other}.localhost/people",
        "http://{other}.localhost/people",
        "{other}.localhost/people",
        "/\\{other}.localhost/people",
    ],
)
@pytest.mark.parametrize(
    ("host", "sign_in", "first_page"),
    [("{own}.localhost", "/sign-in", "/people"), ("localhost", "/tenants/sign-in", "/tenants")],
    ids=["tenant", "bare"],
)
def test_sign_in_leads_nowhere_but_to_a_path_of_this_host(
    wanted: str,
    host: str,
    sign_in: str,
    first_page: str,
    open_window: Callable[[str], Window],
    acme: Visitor,
    globex: Visitor,
) -> None:
    """T116: {other} is another tenant's slug; nor does its host count as this one."""
    window = open_window(host.format(own=acme.slug))
    token = re.search(r'value="([^"]+)"', window.get(sign_in).get_data(as_text=True).partition("csrf_token")[2])
    assert token is not None

    answer = window._client.post(
        sign_in,
        base_url=window._origin,
        query_string={"next": wanted.replace("{other}", globex.slug)},
        data={"email": acme.email, "password": PASSWORD, "csrf_token": token[1]},
    )

    assert (answer.status_code, answer.location) == (303, first_page)


def test_a_page_asked_for_before_sign_in_is_remembered(open_window: Callable[[str], Window], acme: Visitor) -> None:
    window = open_window(f"{acme.slug}.localhost")

    answer = window.get("/people?q=ada&sort=-name")

    assert answer.location == "/sign-in?next=/people?q%3Dada%26sort%3D-name"


@pytest.mark.parametrize("host", ["{}.localhost", "localhost"])
def test_the_first_page_of_a_host_is_its_own(host: str, open_window: Callable[[str], Window], acme: Visitor) -> None:
    window = open_window(host.format(acme.slug))

    answer = window.get("/")

    assert answer.location == ("/tenants" if host == "localhost" else "/people")


def test_a_path_prefix_names_the_tenant_and_stays_in_every_link(
    open_window: Callable[[str], Window], acme: Visitor
) -> None:
    window = open_window("localhost")
    add_person(acme, "Ada Lovelace")

    answer = window.send(f"/t/{acme.slug}/sign-in", email=acme.email, password=PASSWORD)
    page = window.get(answer.location).get_data(as_text=True)

    assert answer.location == f"/t/{acme.slug}/people"
    assert "Ada Lovelace" in page
    assert 'href="/people' not in page


def test_the_only_tenant_of_a_site_has_no_other_to_go_to(make_app: Callable[..., Flask], acme: Visitor) -> None:
    window = Window(make_app(single_tenant=acme.slug).test_client(), "crm.example.com")

    signing_in = window.get("/sign-in").get_data(as_text=True)
    answer = window.send("/sign-in", email=acme.email, password=PASSWORD)
    page = window.get(answer.location).get_data(as_text=True)

    assert "Find yours" not in signing_in
    assert "<title>People · Acme</title>" in page
    assert "/handover" not in page


# From one tenant's host to another's ------------------------------------------------------------------


@pytest.fixture
def two_tenants(register: Callable[..., Visitor]) -> tuple[Visitor, Visitor]:
    """Acme and Globex, both of one owner."""
    acme = register("Acme")
    return acme, register("Globex", acme.email)


def _path(answer: TestResponse, host: str) -> str:
    assert answer.status_code == 303
    assert answer.location.startswith(f"http://{host}/")
    return answer.location.removeprefix(f"http://{host}")


def test_a_handover_goes_to_the_new_host_back_for_a_ticket_and_in(
    app: Flask, two_tenants: tuple[Visitor, Visitor]
) -> None:
    acme, globex = (f"{tenant.slug}.localhost" for tenant in two_tenants)
    client = app.test_client()
    here, there = Window(client, acme), Window(client, globex)
    here.send("/sign-in", email=two_tenants[0].email, password=PASSWORD)

    asked = _path(there.get(f"/handover?via={two_tenants[0].slug}"), acme)
    answered = _path(here.get(asked), globex)
    first = there.get(answered)
    second = there.get(answered)

    assert asked.startswith("/handover/ticket?")
    assert answered.startswith("/handover/accept?ticket=")
    assert first.location == "/people"
    assert second.location == "/sign-in"
    assert "<title>People · Globex</title>" not in second.get_data(as_text=True)


def test_a_ticket_for_one_tenant_opens_no_other(app: Flask, two_tenants: tuple[Visitor, Visitor]) -> None:
    acme, globex = (f"{tenant.slug}.localhost" for tenant in two_tenants)
    client = app.test_client()
    here, there = Window(client, acme), Window(client, globex)
    here.send("/sign-in", email=two_tenants[0].email, password=PASSWORD)
    answered = _path(here.get(_path(there.get(f"/handover?via={two_tenants[0].slug}"), acme)), globex)

    misled = Window(app.test_client(), acme).get(answered)

    assert misled.location == "/sign-in"


def test_an_old_ticket_is_refused(
    app: Flask, two_tenants: tuple[Visitor, Visitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    acme, globex = (f"{tenant.slug}.localhost" for tenant in two_tenants)
    client = app.test_client()
    here, there = Window(client, acme), Window(client, globex)
    here.send("/sign-in", email=two_tenants[0].email, password=PASSWORD)
    asked = _path(there.get(f"/handover?via={two_tenants[0].slug}"), acme)
    answered = _path(here.get(asked), globex)
    real_time = time.time
    monkeypatch.setattr(time, "time", lambda: real_time() + TICKET_TTL_S + 2)

    assert there.get(answered).location == "/sign-in"


@pytest.mark.parametrize("changed", ["to=acme-nobody", "challenge=x", "challenge=" + "0" * 63])
def test_a_ticket_is_given_for_a_tenant_of_hers_and_a_true_challenge_only(changed: str, window: Window) -> None:
    query = {"to": "acme", "challenge": "0" * 64} | dict([changed.split("=")])

    answer = window.get(f"/handover/ticket?to={query['to']}&challenge={query['challenge']}")

    assert answer.status_code == 404


@pytest.mark.parametrize("via", ["no-such-tenant", "", "evil.example", "%00", "acme/../x"])
def test_a_handover_comes_from_a_tenant_that_exists(via: str, window: Window) -> None:
    assert window.get(f"/handover?via={via}").status_code == 404


# What forms and addresses refuse ----------------------------------------------------------------------


def test_a_form_that_names_a_tenant_is_refused_and_writes_nothing(window: Window, globex: Visitor) -> None:
    """T083, T119"""
    answer = window.send("/people/new", name="Mallory", tenant_id=str(globex.tenant_id))

    assert answer.status_code == 400
    assert "does not belong there: &#39;tenant_id&#39;" in answer.get_data(as_text=True)
    assert "Mallory" not in window.get("/people").get_data(as_text=True)


@pytest.mark.parametrize(
    "path", ["/people?sort=email", "/people?cursor=x", "/people?colour=red", "/people?limit=0", "/people/nonsense"]
)
def test_an_address_that_no_list_has_answers_400(path: str, window: Window) -> None:
    assert window.get(path).status_code == 400


def test_a_company_of_another_tenant_cannot_be_chosen(window: Window, globex: Visitor) -> None:
    """T041"""
    theirs = globex.post("/api/v1/companies", json={"name": "Theirs"}).get_json()["id"]

    foreign = window.send("/people/new", name="Ada Lovelace", company_id=theirs)
    random = window.send("/people/new", name="Ada Lovelace", company_id=str(uuid4()))

    assert (foreign.status_code, random.status_code) == (409, 409)
    assert "This company is gone. Choose another." in foreign.get_data(as_text=True)
    assert _without_values(foreign) == _without_values(random)


def _without_values(answer: TestResponse) -> str:
    return re.sub(r'(name="csrf_token" value=")[^"]+', r"\1", answer.get_data(as_text=True))


def test_what_was_typed_is_shown_as_text(window: Window) -> None:
    window.send("/people/new", name="<script>alert(1)</script>")

    page = window.get("/people").get_data(as_text=True)

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>" not in page


def test_an_amount_is_stored_to_the_cent(window: Window, acme: Visitor) -> None:
    window.send("/opportunities/new", name="Engine", stage="lead", amount="19.99", currency="EUR")

    (stored,) = acme.get("/api/v1/opportunities").get_json()["items"]
    assert stored["amount_cents"] == 1999


@pytest.mark.parametrize("amount", ["-1", "1.001", "NaN", "Infinity", "1e30", "twelve"])
def test_an_amount_that_is_none_is_said_beside_the_field(amount: str, window: Window) -> None:
    answer = window.send("/opportunities/new", name="Engine", stage="lead", amount=amount, currency="EUR")

    assert answer.status_code == 400
    assert 'id="amount-error"' in answer.get_data(as_text=True)


# Headers ----------------------------------------------------------------------------------------------


def test_pages_let_nothing_in_and_are_kept_by_nobody(window: Window) -> None:
    """T108"""
    headers = window.get("/people").headers

    assert headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert headers["Cache-Control"] == "private, no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "Host" in headers["Vary"]


def test_only_https_is_promised_outside_development(make_app: Callable[..., Flask]) -> None:
    live = make_app(environment="production").test_client()

    headers = live.get("/", base_url="https://localhost").headers

    assert headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


def test_files_are_kept_for_as_long_as_they_are_the_same(window: Window) -> None:
    page = window.get("/people").get_data(as_text=True)
    address = re.search(r'href="(/static/app\.css\?v=[0-9a-f]{12})"', page)
    assert address is not None

    with window.get(address[1]) as answer:
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("path", ["/people/01890000-0000-7000-8000-000000000000", "/no/such/page"])
def test_a_browser_gets_a_page_and_a_program_a_problem(path: str, window: Window, acme: Visitor) -> None:
    page = window.get(path)
    problem = window._client.get(path, base_url=window._origin, headers={"Accept": "application/json"})

    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert (problem.status_code, problem.mimetype) == (404, "application/problem+json")
