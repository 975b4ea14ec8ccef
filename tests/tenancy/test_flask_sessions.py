"""The Flask extension on a real database: sessions, streamed bodies, failures, and the other session libraries."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import flask_sqlalchemy
import flask_sqlalchemy_lite
import psycopg
import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import sessionmaker
from werkzeug.serving import make_server
from werkzeug.test import EnvironBuilder

from tenancy.context import current_scope, tenant_scope
from tenancy.directory import SQLDirectory
from tenancy.errors import ConfigurationError, ScopeError, TenancyError
from tenancy.flask import Tenancy
from tenancy.flask.visits import Door
from tenancy.resolvers import from_subdomain
from tenancy.session import TenantSession
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Base, Domain, Person, Tenant
from tests.tenancy.flask_app import make_app


@pytest.fixture
def directory() -> Iterator[SQLDirectory]:
    directory = SQLDirectory(Tenant, domains=Domain)
    yield directory
    directory.close()


@pytest.fixture
def app(sessions: sessionmaker[TenantSession], directory: SQLDirectory) -> Iterator[Flask]:
    app, tenancy = make_app(sessions, directory)
    yield app

    assert tenancy.leaks() == []
    assert current_scope() is None


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def at(tenant: SomeTenant) -> dict[str, str]:
    return {"base_url": f"http://{tenant.slug}.example.com/"}


def checked_out(engine: Engine) -> int:
    return int(engine.pool.checkedout())  # type: ignore[attr-defined]


# One request


def test_each_tenant_sees_its_own_rows(
    client: FlaskClient, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    person_of(acme, "Ada")
    person_of(globex, "Grace")

    seen = [client.get("/people", **at(tenant)).json for tenant in (acme, globex, acme)]

    assert seen == [["Ada"], ["Grace"], ["Ada"]]


def test_threads_serving_two_tenants_never_mix(
    app: Flask, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    person_of(acme, "Ada")
    person_of(globex, "Grace")
    wanted = [acme, globex] * 50

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda tenant: app.test_client().get("/people", **at(tenant)).json, wanted))

    assert seen == [["Ada"], ["Grace"]] * 50


def test_request_has_one_session_closed_before_its_scope(app: Flask, acme: SomeTenant, app_engine: Engine) -> None:
    tenancy = app.extensions["tenancy"]
    seen: list[Any] = []

    @app.get("/twice")
    def twice() -> str:
        seen.extend((tenancy.session, tenancy.session))
        tenancy.session.scalars(select(Person)).all()
        seen.append(checked_out(app_engine))
        return ""

    before = checked_out(app_engine)
    app.test_client().get("/twice", **at(acme))

    assert seen[0] is seen[1]
    assert seen[2] == before + 1
    assert checked_out(app_engine) == before


def test_route_that_asks_for_no_session_makes_none(
    acme: SomeTenant, sessions: sessionmaker[TenantSession], directory: SQLDirectory
) -> None:
    app, tenancy = make_app(sessions, directory)
    app.teardown_request(lambda _error: made.append(tenancy._visit()._session))
    made: list[Any] = []

    app.test_client().get("/", **at(acme))

    assert made == [None]


def test_unsaved_work_is_rolled_back(
    app: Flask, client: FlaskClient, acme: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    tenancy = app.extensions["tenancy"]
    person_of(acme, "Ada")

    @app.post("/unsaved")
    def unsaved() -> str:
        tenancy.session.add(Person(name="Ghost", email="g@test.example"))
        tenancy.session.flush()
        return ""

    assert client.post("/unsaved", **at(acme)).status_code == 200
    assert client.get("/people", **at(acme)).json == ["Ada"]


def test_suspended_tenant_is_refused_while_its_name_is_remembered(
    client: FlaskClient, acme: SomeTenant, truth: psycopg.Connection[Any], directory: SQLDirectory
) -> None:
    """T112"""
    assert client.get("/", **at(acme)).status_code == 200

    truth.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = %s", [acme.id])
    deadline = time.monotonic() + 1.0
    while client.get("/", **at(acme)).status_code == 200:
        assert time.monotonic() < deadline

    assert client.get("/", **at(acme)).status_code == 404


# Failures


def test_failed_request_leaves_nothing_for_the_next(
    app: Flask, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID], app_engine: Engine
) -> None:
    """T089"""
    person_of(globex, "Grace")
    before = checked_out(app_engine)

    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/broken", **at(acme))

    assert current_scope() is None
    assert checked_out(app_engine) == before
    assert app.test_client().get("/health").json == {"scope": None}
    assert app.test_client().get("/people", **at(globex)).json == ["Grace"]


@pytest.mark.parametrize("stage", ["before", "after", "teardown", "teardown_app", "url", "render"])
def test_failure_at_any_stage_leaves_no_scope_and_no_session(
    app: Flask, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID], app_engine: Engine, stage: str
) -> None:
    """T089"""
    tenancy = app.extensions["tenancy"]
    person_of(globex, "Grace")
    is_failing = [True]

    def fail(*_args: Any) -> Any:
        if is_failing[0]:
            tenancy.session.scalars(select(Person)).all()
            raise ZeroDivisionError
        return _args[0] if stage == "after" else None

    if stage == "render":
        app.get("/render")(lambda: Response(stream(), direct_passthrough=False))
    else:
        hooks: dict[str, Callable[[Any], Any]] = {
            "before": app.before_request,
            "after": app.after_request,
            "teardown": app.teardown_request,
            "teardown_app": app.teardown_appcontext,
            "url": app.url_value_preprocessor,
        }
        hooks[stage](fail)

    def stream() -> Iterator[str]:
        fail()
        yield ""

    before = checked_out(app_engine)
    with contextlib.suppress(ZeroDivisionError, TenancyError), app.test_client() as client:
        client.get("/render" if stage == "render" else "/people", buffered=True, **at(acme))
    is_failing[0] = False

    assert current_scope() is None
    assert checked_out(app_engine) == before
    assert tenancy.leaks() == []
    assert app.test_client().get("/health").json == {"scope": None}
    assert app.test_client().get("/people", **at(globex)).json == ["Grace"]


def test_scope_left_open_by_a_route_is_reported_and_does_not_reach_the_next_request(
    app: Flask, client: FlaskClient, acme: SomeTenant, globex: SomeTenant
) -> None:
    @app.get("/careless")
    def careless() -> str:
        tenant_scope(globex.id).__enter__()
        return ""

    with pytest.raises(ScopeError, match="still open"):
        client.get("/careless", **at(acme))

    assert current_scope() is None
    assert client.get("/health").json == {"scope": None}


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        ("SELECT 1 FROM no_such_table WHERE 'secret-value' = ''", 500),
        ("SELECT CAST('secret-value' AS uuid)", 400),
        ("INSERT INTO people (tenant_id, id, name, email) SELECT tenant_id, id, name, email FROM people", 409),
        ("INSERT INTO people (tenant_id, id, name) SELECT tenant_id, gen_random_uuid(), 'x' FROM people", 409),
        ("UPDATE tenants SET status = 'secret-value'", 500),
        ("UPDATE people SET tenant_id = gen_random_uuid()", 500),
        ("SELECT 1 / 0", 400),
    ],
)
def test_database_error_tells_the_client_nothing(
    app: Flask, client: FlaskClient, acme: SomeTenant, person_of: Callable[..., UUID], statement: str, status: int
) -> None:
    """T047"""
    tenancy = app.extensions["tenancy"]
    person_of(acme, "Ada")
    app.get("/run")(lambda: str(tenancy.session.execute(text(statement))))

    answer = client.get("/run", **at(acme))

    assert answer.status_code == status
    assert sorted(json.loads(answer.data)) == ["code", "status", "title", "type"]
    for word in ("secret-value", "people", "tenants", "SELECT", "UPDATE", "INSERT", "DETAIL", "psycopg"):
        assert word not in answer.text


# Streamed bodies


@pytest.mark.parametrize("path", ["/stream", "/stream-with-context"])
def test_streamed_body_keeps_scope_and_session_until_it_is_closed(
    client: FlaskClient, acme: SomeTenant, person_of: Callable[..., UUID], app_engine: Engine, path: str
) -> None:
    person_of(acme, "Ada")
    person_of(acme, "Grace")
    before = checked_out(app_engine)

    answer = client.get(path, **at(acme))
    lines = list(answer.iter_encoded())
    answer.close()

    assert [line.split()[0] for line in lines][-2:] == [b"Ada", b"Grace"]
    assert all(str(acme.id).encode() in line for line in lines)
    assert current_scope() is None
    assert checked_out(app_engine) == before


def test_streams_of_two_tenants_read_in_turn_stay_apart(
    client: FlaskClient, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    person_of(acme, "Ada")
    person_of(globex, "Grace")
    answers = [client.get("/stream", **at(tenant)) for tenant in (acme, globex)]
    streams = [answer.iter_encoded() for answer in answers]

    lines = [next(stream) for _ in range(2) for stream in streams]
    for answer in answers:
        answer.close()

    assert [line.split()[-1].decode() for line in lines] == [str(acme.id), str(globex.id)] * 2
    assert [line.split()[0] for line in lines[2:]] == [b"Ada", b"Grace"]


def test_stream_abandoned_half_way_gives_its_session_back(
    client: FlaskClient, acme: SomeTenant, person_of: Callable[..., UUID], app_engine: Engine
) -> None:
    person_of(acme, "Ada")
    before = checked_out(app_engine)

    answer = client.get("/stream", **at(acme))
    stream = answer.iter_encoded()
    next(stream)
    next(stream)
    held = checked_out(app_engine)
    answer.close()

    assert held == before + 1
    assert checked_out(app_engine) == before


def test_head_of_a_stream_holds_nothing(client: FlaskClient, acme: SomeTenant, app_engine: Engine) -> None:
    before = checked_out(app_engine)

    client.head("/stream", buffered=True, **at(acme))

    assert checked_out(app_engine) == before


def test_server_that_fails_to_take_a_stream_leaves_nothing_open(app: Flask, acme: SomeTenant) -> None:
    def start_response(*_args: Any) -> Any:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        app.wsgi_app(EnvironBuilder("/stream", **at(acme)).get_environ(), start_response)

    assert app.extensions["tenancy"].leaks() == []


def test_leak_detector_names_the_tenant_of_an_open_stream(client: FlaskClient, app: Flask, acme: SomeTenant) -> None:
    answer = client.get("/stream", **at(acme))
    leaks = app.extensions["tenancy"].leaks()
    answer.close()

    assert leaks == [f"request for tenant {acme.id!r}"]
    assert app.extensions["tenancy"].leaks() == []


# Outside a server


def test_request_context_of_a_test_is_closed_like_a_request(app: Flask, acme: SomeTenant, app_engine: Engine) -> None:
    tenancy = app.extensions["tenancy"]
    before = checked_out(app_engine)

    with app.test_request_context("/people", **at(acme)):
        app.preprocess_request()
        tenancy.session.scalars(select(Person)).all()
        inside = checked_out(app_engine)

    assert inside == before + 1
    assert checked_out(app_engine) == before


def test_kept_request_context_still_names_its_tenant(app: Flask, acme: SomeTenant) -> None:
    with app.test_client() as client:
        client.get("/people", **at(acme))

        assert app.extensions["tenancy"].tenant.slug == acme.slug


def test_header_written_with_underscores_does_not_reach_the_application(
    app: Flask, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T097"""
    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    try:
        headers = {"Host": f"{acme.slug}.example.com", "X_Tenant_ID": str(globex.id)}
        connection.request("GET", "/", headers=headers)
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
        server.shutdown()
        thread.join()
        server.server_close()

    assert answer["tenant"] == acme.slug


# Sessions of other libraries


@pytest.fixture
def make_host_app(database: Database) -> Callable[[], Flask]:
    def make() -> Flask:
        app = Flask("host")
        app.testing = True
        app.config["SQLALCHEMY_DATABASE_URI"] = database.url(ROLES.app)
        app.config["SQLALCHEMY_ENGINES"] = {"default": database.url(ROLES.app)}
        return app

    return make


@pytest.fixture(params=[flask_sqlalchemy.SQLAlchemy, flask_sqlalchemy_lite.SQLAlchemy], ids=["full", "lite"])
def db(request: pytest.FixtureRequest) -> Any:
    return request.param(model_class=Base) if request.param is flask_sqlalchemy.SQLAlchemy else request.param()


def test_db_of_flask_sqlalchemy_becomes_isolated(
    make_host_app: Callable[[], Flask], db: Any, directory: SQLDirectory, acme: SomeTenant, globex: SomeTenant,
    person_of: Callable[..., UUID],
) -> None:  # fmt: skip
    person_of(acme, "Ada")
    person_of(globex, "Grace")
    app = make_host_app()
    db.init_app(app)
    tenancy = Tenancy(sessions=db, directory=directory, resolvers=[from_subdomain("example.com")])
    tenancy.init_app(app)
    app.get("/own", endpoint="own")(lambda: list(db.session.scalars(select(Person.name))))
    app.get("/ours", endpoint="ours")(lambda: list(tenancy.session.scalars(select(Person.name))))
    client = app.test_client()

    seen = [client.get(path, **at(tenant)).json for tenant in (acme, globex) for path in ("/own", "/ours")]

    assert seen == [["Ada"], ["Ada"], ["Grace"], ["Grace"]]
    assert tenancy.leaks() == []
    with app.app_context():
        assert checked_out(db.engine) == 0
        db.engine.dispose()


def test_db_that_is_not_ready_is_refused(make_host_app: Callable[[], Flask], db: Any, directory: SQLDirectory) -> None:
    tenancy = Tenancy(sessions=db, directory=directory, resolvers=[from_subdomain("example.com")])

    with pytest.raises(ConfigurationError, match="not ready"):
        tenancy.init_app(make_host_app())


def test_door_is_the_outermost_layer(app: Flask) -> None:
    assert isinstance(app.wsgi_app, Door)
