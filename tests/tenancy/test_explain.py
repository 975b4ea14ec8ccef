"""`tenancy explain`: what each resolver saw, what the cache knew, the decision, and what callers are told."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result
from flask import Flask, Response
from flask.testing import FlaskClient
from sqlalchemy.orm import sessionmaker
from werkzeug.test import EnvironBuilder

from tenancy.binding import create_tenant_engine
from tenancy.cli import main
from tenancy.directory import Reference
from tenancy.flask import references_conflicted
from tenancy.resolvers import Evidence, from_jwt, from_subdomain
from tenancy.session import TenantSession, tenant_sessionmaker
from tests.conftest import ROLES, Database
from tests.tenancy.directories import ACME, DORMANT, GLOBEX, GONE, ListedDirectory, SilentDirectory
from tests.tenancy.flask_app import make_app, resolvers

SECRET = bytes(32)
TENANTS = (ACME, GLOBEX, DORMANT, GONE)
Explain = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def unused() -> sessionmaker[TenantSession]:
    """Sessions on a database that is not there: any statement would be an error."""
    return tenant_sessionmaker(create_tenant_engine("postgresql+psycopg://app@127.0.0.1:1/none"))


@pytest.fixture
def directory() -> ListedDirectory:
    return ListedDirectory(*TENANTS, domains={"planning.acme.test": ACME})


@pytest.fixture
def make(unused: Any, directory: ListedDirectory) -> Callable[..., Flask]:
    return lambda **options: make_app(unused, options.pop("directory", directory), **options)[0]


def explained(app: Flask, url: str, **options: Any) -> dict[str, Any]:
    host, _, path = url.partition("/")
    environ = EnvironBuilder(f"/{path}", base_url=f"http://{host}/", **options).get_environ()
    found: dict[str, Any] = app.extensions["tenancy"].explain(app, environ).as_dict()
    return found


def token(**claims: Any) -> dict[str, str]:
    known = {"iss": "i", "aud": "a", "iat": int(time.time()), "exp": int(time.time()) + 60}
    signed = jwt.encode(known | claims, SECRET, "HS256", headers={"kid": "k"})
    return {"Authorization": f"Bearer {signed}"}


def reading_tokens() -> list[Any]:
    return [from_jwt({"k": ("HS256", SECRET)}, issuer="i", audience="a"), *resolvers()]


# The resolvers


def test_every_resolver_appears_also_those_that_saw_nothing(make: Callable[..., Flask]) -> None:
    found = explained(make(resolvers=reading_tokens()), "acme.example.com/people")

    assert [(row["resolver"], row["looked_at"], row["outcome"]) for row in found["resolvers"]] == [
        ("token", "no Authorization", "absent"),
        ("subdomain", "Host: acme.example.com under example.com", "saw"),
        ("custom domain", "Host: acme.example.com", "absent"),
        ("path", "/people against /t/<slug>", "absent"),
        ("header", "no X-Tenant-ID, no X-Tenant-Slug", "absent"),
        ("query", "no tenant", "absent"),
    ]


def test_evidence_is_shown_with_its_reference_tenant_and_whether_the_cache_knew_it(make: Callable[..., Flask]) -> None:
    app = make()

    first = explained(app, "acme.example.com/")
    second = explained(app, "acme.example.com/")

    assert first["resolvers"][0] == {
        "resolver": "subdomain",
        "looked_at": "Host: acme.example.com under example.com",
        "outcome": "saw",
        "source": "subdomain",
        "reference": "slug acme",
        "memory": "looked up",
        "tenant": "0197c1a2-0000-7000-8000-00000000000a",
        "claims": None,
    }
    assert second["resolvers"][0]["memory"] == "remembered"


def test_malformed_evidence_is_shown_beside_what_the_others_saw(
    make: Callable[..., Flask], directory: ListedDirectory
) -> None:
    found = explained(make(), "acme.example.com/", headers={"X-Tenant-ID": "42"})

    header = next(row for row in found["resolvers"] if row["resolver"] == "header")
    assert (header["outcome"], header["refusal"]) == ("malformed", "the header X-Tenant-ID holds no tenant id")
    assert found["resolvers"][0]["outcome"] == "saw"
    assert (found["decision"], found["answers"][0]["status"]) == ("malformed_reference", 400)
    assert directory.lookups == 0


def test_token_is_shown_by_its_claims_and_never_itself(make: Callable[..., Flask]) -> None:
    headers = token(tenant_id=str(ACME.id), sub="ada")

    found = explained(make(resolvers=reading_tokens()), "example.com/", headers=headers)

    assert found["resolvers"][0]["claims"]["sub"] == "ada"
    assert found["decision"] == "served"
    assert headers["Authorization"].removeprefix("Bearer ") not in json.dumps(found)


def test_refused_token_is_shown_by_what_explains_it_only(make: Callable[..., Flask]) -> None:
    headers = token(tenant_id=str(ACME.id), sub="ada", aud="elsewhere")

    found = explained(make(resolvers=reading_tokens()), "example.com/", headers=headers)

    row = found["resolvers"][0]
    assert row["outcome"] == "malformed"
    assert row["unverified_claims"]["aud"] == "elsewhere"
    assert "ada" not in json.dumps(found)
    assert headers["Authorization"].removeprefix("Bearer ") not in json.dumps(found)
    assert (found["decision"], found["answers"][0]["status"]) == ("invalid_token", 401)


def test_secrets_in_headers_and_query_are_not_shown(make: Callable[..., Flask]) -> None:
    headers = {"Cookie": "session=s3cret", "X-Api-Key": "s3cret", "Authorization": "Basic s3cret"}

    found = explained(make(resolvers=reading_tokens()), "acme.example.com/?key=s3cret", headers=headers)

    assert found["decision"] == "served"
    assert "s3cret" not in json.dumps(found)


def test_resolver_of_ones_own_is_named_after_its_function(make: Callable[..., Flask]) -> None:
    def from_certificate(_request: Any) -> None: ...

    found = explained(make(resolvers=[from_certificate, from_subdomain("example.com")]), "acme.example.com/")

    assert [row["resolver"] for row in found["resolvers"]] == ["from_certificate", "subdomain"]


def test_single_tenant_setting_is_a_resolver_too(make: Callable[..., Flask]) -> None:
    found = explained(make(resolvers=(), single_tenant="acme"), "anything.test/")

    assert [(row["resolver"], row["reference"]) for row in found["resolvers"]] == [
        ("single-tenant setting", "slug acme")
    ]


# The decision


@pytest.mark.parametrize(
    ("url", "options", "decision", "status"),
    [
        ("acme.example.com/", {}, "served", None),
        ("example.com/t/acme/people", {}, "served", None),
        ("nobody.example.com/", {}, "unknown_tenant", 404),
        ("gone.example.com/", {}, "closed_tenant", 404),
        ("example.com/", {}, "no_tenant", 404),
        ("acme.example.com/", {"headers": {"X-Tenant-Slug": "globex"}}, "conflicting_references", 403),
        ("acme.example.com/nowhere", {}, "served", 404),
        ("example.com/nowhere", {}, "no_such_route", 404),
        ("acme.example.com/people", {"method": "POST"}, "served", 405),
        ("acme.example.com/folder", {}, "served", 308),
        ("example.com/health", {}, "exempt", None),
        ("nobody.example.com/health", {}, "exempt", None),
    ],
)
def test_decision_and_status_are_those_of_the_real_request(
    make: Callable[..., Flask], url: str, options: dict[str, Any], decision: str, status: int | None
) -> None:
    app = make()
    app.add_url_rule("/", view_func=lambda: "", endpoint="never")

    found = explained(app, url, **options)

    assert (found["decision"], found["answers"][0]["status"]) == (decision, status)


@pytest.mark.parametrize("host", ["nobody.example.com", "gone.example.com", "dormant.example.com", "example.com"])
def test_body_is_the_one_the_client_gets(make: Callable[..., Flask], host: str) -> None:
    app = make()

    found = explained(app, f"{host}/")
    answer = app.test_client().get("/", base_url=f"http://{host}/")

    assert answer.status_code == 404
    assert (found["answers"][0]["status"], found["answers"][0]["body"]) == (404, answer.get_data(as_text=True).strip())


def test_suspended_tenant_is_told_to_members_and_hidden_from_strangers(make: Callable[..., Flask]) -> None:
    app = make(is_member=lambda _tenant, _trace: True)

    found = explained(app, "dormant.example.com/")

    stranger, member = found["answers"]
    assert (stranger["caller"], stranger["status"]) == ("a stranger", 404)
    assert (member["caller"], member["status"]) == ("a member, as this one is", 403)
    assert found["error"]["message"] == f"tenant {DORMANT.id!r} is suspended"
    assert found["tenant"] == {"id": str(DORMANT.id), "slug": "dormant", "status": "suspended"}


def test_directory_that_is_away_is_a_503(make: Callable[..., Flask]) -> None:
    found = explained(make(directory=SilentDirectory()), "acme.example.com/")

    assert (found["decision"], found["answers"][0]["status"]) == ("directory", 503)


def test_database_that_is_away_is_a_503(make: Callable[..., Flask]) -> None:
    found = explained(make(startup_check=True), "acme.example.com/")

    assert (found["decision"], found["answers"][0]["status"]) == ("unavailable", 503)


def test_database_that_keeps_nobody_apart_is_a_503_with_its_reason_for_staff(
    fresh_database: Database, directory: ListedDirectory
) -> None:
    with fresh_database.connect("postgres") as owner:
        owner.execute("ALTER TABLE people DISABLE ROW LEVEL SECURITY")
    engine = create_tenant_engine(fresh_database.url(ROLES.app))
    app, _ = make_app(tenant_sessionmaker(engine), directory, startup_check=True)

    found = explained(app, "acme.example.com/")
    engine.dispose()

    assert (found["decision"], found["answers"][0]["status"]) == ("unsafe_database", 503)
    assert "people" in found["error"]["message"]
    assert "people" not in found["answers"][0]["body"]


def test_route_exemption_and_vary_are_named(make: Callable[..., Flask]) -> None:
    app = make()

    people, health = explained(app, "acme.example.com/people"), explained(app, "example.com/health")

    assert (people["route"], people["exempt"]) == ("people: /people", None)
    assert people["answers"][0]["vary"] == "Host, X-Tenant-ID, X-Tenant-Slug"
    assert health["exempt"] == "asked by the load balancer, which knows no tenant"
    assert (health["resolvers"][0]["outcome"], health["tenant"]) == ("absent", None)


def test_no_view_hook_or_security_event_comes_of_asking(
    make: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    app, ran = make(), []
    app.before_request(lambda: ran.append("hook"))
    app.add_url_rule("/view", view_func=lambda: ran.append("view") or "")  # type: ignore[func-returns-value]

    with references_conflicted.connected_to(lambda *_, **__: ran.append("signal")), caplog.at_level(logging.INFO):
        served = explained(app, "acme.example.com/view")
        conflict = explained(app, "acme.example.com/view?tenant=globex")
    app.test_client().get("/view", base_url="http://acme.example.com/")

    assert (served["decision"], conflict["decision"]) == ("served", "conflicting_references")
    assert (ran, caplog.records) == (["hook", "view"], [])
    assert app.extensions["tenancy"].leaks() == []


# The command


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An application that the command can import."""
    (tmp_path / "explained_shop.py").write_text(
        "from tests.tenancy.directories import ACME, ListedDirectory\n"
        "from tests.tenancy.flask_app import make_app\n"
        "from tenancy.binding import create_tenant_engine\n"
        "from tenancy.session import tenant_sessionmaker\n"
        "def create_app():\n"
        "    engine = create_tenant_engine('postgresql+psycopg://app@127.0.0.1:1/none')\n"
        "    return make_app(tenant_sessionmaker(engine), ListedDirectory(ACME))[0]\n"
        "app = create_app()\n"
        "plain = object()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "explained_shop"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments])


@pytest.mark.parametrize("name", ["create_app", "app"])
def test_command_explains_a_request_to_an_app_or_a_factory(shop: str, name: str) -> None:
    result = run("--app", f"{shop}:{name}", "-H", "X-Tenant-Slug: acme", "https://acme.example.com/people")

    assert result.exit_code == 0
    assert "GET /people -> people: /people" in result.output
    assert "decision: served" in result.output
    assert result.output.count("0197c1a2-0000-7000-8000-00000000000a") >= 2


def test_command_prints_json(shop: str) -> None:
    result = run("--app", f"{shop}:app", "--method", "post", "--json", "https://nobody.example.com/")

    found = json.loads(result.output)

    assert (found["request"], found["decision"], found["answers"][0]["status"]) == ("POST /", "unknown_tenant", 404)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--app", "shop", "http://a/"), "write it as in shop:create_app"),
        (("--app", "no_such_module:app", "http://a/"), "No module named 'no_such_module'"),
        (("--app", "explained_shop:nothing", "http://a/"), "has no attribute 'nothing'"),
        (("--app", "explained_shop:plain", "http://a/"), "is neither a Flask app nor a function that makes one"),
        (("--app", "explained_shop:app", "-H", "nonsense", "http://a/"), "write a header as in"),
    ],
)
def test_command_names_a_mistake_in_its_arguments(shop: str, arguments: tuple[str, ...], complaint: str) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert complaint in " ".join(result.output.replace("│", " ").split())


def test_flask_has_the_command_on_its_own_app(make: Callable[..., Flask]) -> None:
    result = make().test_cli_runner().invoke(args=["tenancy", "explain", "http://nobody.example.com/"])

    assert result.exit_code == 0
    assert "decision: unknown_tenant" in result.output
    assert "anybody gets: 404" in result.output


# The development header


@pytest.fixture
def debugging(make: Callable[..., Flask]) -> FlaskClient:
    app = make()
    app.debug = True
    return app.test_client()


@pytest.mark.parametrize(
    ("host", "headers", "line"),
    [
        ("acme.example.com", {}, "subdomain=acme:looked up; decision=served"),
        (
            "planning.acme.test",
            {"X-Tenant-Slug": "acme"},
            "custom domain=planning.acme.test:looked up; header X-Tenant-Slug=acme:looked up; decision=served",
        ),
        ("nobody.example.com", {}, "subdomain=nobody:looked up; decision=unknown_tenant"),
        (
            "acme.example.com",
            {"X-Tenant-ID": str(GLOBEX.id)},
            "subdomain=?:looked up; header X-Tenant-ID=?:looked up; decision=conflicting_references",
        ),
        ("acme.example.com", {"X-Tenant-ID": "1"}, "subdomain=acme; decision=malformed_reference"),
        ("example.com", {}, "decision=no_tenant"),
    ],
)
def test_development_header_tells_the_trace_in_one_line(
    debugging: FlaskClient, host: str, headers: dict[str, str], line: str
) -> None:
    answer = debugging.get("/", base_url=f"http://{host}/", headers=headers)

    assert answer.headers["X-Tenancy-Trace"] == line


def test_development_header_says_what_was_remembered(debugging: FlaskClient) -> None:
    debugging.get("/", base_url="http://acme.example.com/")

    answer = debugging.get("/", base_url="http://acme.example.com/")

    assert answer.headers["X-Tenancy-Trace"] == "subdomain=acme:remembered; decision=served"


def test_development_header_stays_one_line_whatever_a_resolver_calls_its_source(make: Callable[..., Flask]) -> None:
    app = make(resolvers=[lambda _request: Evidence("a\r\nSet-Cookie: x=é", Reference("slug", "acme"))])
    app.debug = True

    answer = app.test_client().get("/")

    assert answer.headers["X-Tenancy-Trace"] == "a??Set-Cookie: x=?=acme:looked up; decision=served"


@pytest.mark.parametrize("host", ["acme.example.com", "nobody.example.com", "gone.example.com", "example.com"])
def test_header_does_not_exist_outside_of_debugging(make: Callable[..., Flask], host: str) -> None:
    app = make()
    answers: list[Response] = []
    app.after_request(lambda response: answers.append(response) or response)  # type: ignore[func-returns-value]

    answer = app.test_client().get("/", base_url=f"http://{host}/")

    assert len(answers) == 1
    assert "X-Tenancy-Trace" not in answer.headers
