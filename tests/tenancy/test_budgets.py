"""Work budgets: timeouts that ride with the binding, what they cost, and what a client is told."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import OperationalError

from tenancy.binding import create_async_tenant_engine, create_tenant_engine, guard_engine
from tenancy.budgets import WorkBudget
from tenancy.context import account_scope, tenant_scope
from tenancy.directory import SQLDirectory
from tenancy.embedded import Template, start
from tenancy.errors import ConfigurationError, StatementRefusedError
from tenancy.pools import budgets_of
from tenancy.session import tenant_sessionmaker
from tests.conftest import FAST, ROLES, Database, SomeTenant, bootstrap
from tests.models import Tenant
from tests.signed import ACME, GLOBEX, KEY, filled_clone, sign
from tests.tenancy.engines import column, on_both_drivers
from tests.tenancy.flask_app import make_app
from tests.tenancy.test_driver_flights import CountingProxy, flights_of

Play = Callable[..., Any]
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 0}
SHOWN = "SELECT current_setting('statement_timeout') || ' ' || current_setting('lock_timeout')"
OF_THE_ROLE = ["30s 5s"]


def same_for_all(**bounds: Any) -> Callable[[UUID], WorkBudget]:
    budget = WorkBudget(**bounds)
    return lambda _tenant: budget


# What a budget may be ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, -1, 0.0004, float("inf"), float("nan"), 3_000_000])
@pytest.mark.parametrize("name", ["statement_timeout_s", "lock_timeout_s"])
def test_timeout_that_the_server_would_read_as_none_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="sets no timeout"):
        WorkBudget(**{name: seconds})


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True])
def test_concurrency_that_is_no_count_is_refused(concurrency: Any) -> None:
    with pytest.raises(ConfigurationError, match="lets no transaction begin"):
        WorkBudget(concurrency=concurrency)


@pytest.mark.parametrize("wait_s", [-0.1, 61, float("nan")])
def test_wait_without_a_bound_is_refused(wait_s: float) -> None:
    with pytest.raises(ConfigurationError, match="not between 0 and 60"):
        WorkBudget(concurrency=1, wait_s=wait_s)


@pytest.mark.parametrize("waiting", [-1, 1.5, False])
def test_number_of_waiting_that_is_no_count_is_refused(waiting: Any) -> None:
    with pytest.raises(ConfigurationError, match="not a number of those who wait"):
        WorkBudget(concurrency=1, waiting=waiting)


def test_budgets_given_to_an_engine_that_is_guarded_already_are_refused(database: Database) -> None:
    engine = create_tenant_engine(database.url(ROLES.app))

    with pytest.raises(ConfigurationError, match="without the budget_of"):
        guard_engine(engine, budget_of=same_for_all(concurrency=1))


# Timeouts ---------------------------------------------------------------------------------------------


@on_both_drivers
def test_each_tenant_has_its_own_timeouts_for_the_transaction_only(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    budgets = {acme.id: WorkBudget(statement_timeout_s=1.5, lock_timeout_s=0.25)}

    def story(engine: Engine) -> list[list[str]]:
        found = []
        for tenant in (acme, globex, acme):
            with tenant_scope(tenant.id), engine.connect() as connection:
                found.append(column(connection, SHOWN))
        with engine.connect() as connection:
            found.append(column(connection, SHOWN))
        with account_scope(acme.id), engine.connect() as connection:
            found.append(column(connection, SHOWN))
        return found

    found = play(people_url, story, budget_of=budgets.get, **ONE_CONNECTION)

    assert found == [["1500ms 250ms"], OF_THE_ROLE, ["1500ms 250ms"], OF_THE_ROLE, OF_THE_ROLE]


@on_both_drivers
def test_budget_may_set_one_timeout_alone(play: Play, people_url: str, acme: SomeTenant) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.connect() as connection:
            return column(connection, SHOWN)

    assert play(people_url, story, budget_of=same_for_all(lock_timeout_s=2)) == ["30s 2s"]


@on_both_drivers
def test_timeouts_hold_in_a_connection_kept_for_several_tenants(
    play: Play, people_url: str, acme: SomeTenant, globex: SomeTenant
) -> None:
    budgets = {acme.id: WorkBudget(lock_timeout_s=1), globex.id: WorkBudget(lock_timeout_s=2)}

    def story(engine: Engine) -> list[list[str]]:
        found = []
        with engine.connect() as connection:
            for tenant in (acme, globex, acme):
                with tenant_scope(tenant.id), connection.begin():
                    found.append(column(connection, SHOWN))
        return found

    assert play(people_url, story, budget_of=budgets.get) == [["30s 1s"], ["30s 2s"], ["30s 1s"]]


@on_both_drivers
def test_first_statement_over_its_time_is_stopped_and_the_connection_serves_on(
    play: Play, people_url: str, acme: SomeTenant
) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id):
            with pytest.raises(OperationalError) as caught, engine.connect() as connection:
                column(connection, "SELECT name FROM people, pg_sleep(20)")
            assert getattr(caught.value.orig, "sqlstate", None) == "57014"
            with engine.connect() as connection:
                return column(connection, "SELECT name FROM people")

    assert play(people_url, story, budget_of=same_for_all(statement_timeout_s=0.15), **ONE_CONNECTION) == ["Ada"]


@on_both_drivers
def test_waiting_for_a_lock_ends_at_the_lock_timeout(
    play: Play, people_url: str, acme: SomeTenant, fresh_lock: int
) -> None:
    def story(engine: Engine) -> None:
        with tenant_scope(acme.id), engine.connect() as connection:
            column(connection, f"SELECT pg_advisory_xact_lock({fresh_lock})::text")

    with pytest.raises(OperationalError) as caught:
        play(people_url, story, budget_of=same_for_all(lock_timeout_s=0.15))

    assert getattr(caught.value.orig, "sqlstate", None) == "55P03"


@pytest.fixture
def fresh_lock(truth: psycopg.Connection[tuple[object, ...]]) -> int:
    """The number of an advisory lock that somebody else holds."""
    truth.execute("SELECT pg_advisory_lock(41137)")
    return 41137


@on_both_drivers
@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL statement_timeout = 0",
        "SET statement_timeout = 0",
        "RESET statement_timeout",
        "SELECT set_config('statement_timeout', '0', true)",
        "UPDATE pg_settings SET setting = 0 WHERE name = 'statement_timeout'",
        "ALTER ROLE CURRENT_USER SET statement_timeout = 0",
    ],
)
def test_statement_that_would_raise_the_budget_is_refused(
    play: Play, people_url: str, acme: SomeTenant, statement: str
) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.connect() as connection:
            with pytest.raises(StatementRefusedError):
                connection.exec_driver_sql(statement)
            return column(connection, SHOWN)

    assert play(people_url, story, budget_of=same_for_all(statement_timeout_s=1)) == ["1s 5s"]


@on_both_drivers
def test_signed_scopes_carry_budgets_too(play: Play, signed: Database) -> None:
    budgets = {ACME: WorkBudget(statement_timeout_s=2, concurrency=1)}

    def story(engine: Engine) -> list[list[str]]:
        found = []
        for tenant in (ACME, GLOBEX):
            with tenant_scope(tenant), engine.connect() as connection:
                found.append(column(connection, f"SELECT name || ' ' || ({SHOWN}) FROM people"))
        return found

    found = play(signed.url(ROLES.app), story, signing_key=KEY, budget_of=budgets.get)

    assert found == [["Ada 2s 5s"], ["Eve 30s 5s"]]


@pytest.fixture(scope="module")
def signed(template: Template, worker: str) -> Iterator[Database]:
    with filled_clone(template, f"budgets_{worker}") as database:
        sign(database)
        yield database


# What they cost ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tcp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start(data_dir=tmp_path_factory.mktemp("budgets") / "postgres", tcp_port=0, settings=FAST) as server:
        bootstrap(server.url(), tables=True)
        server.set_password(ROLES.app, "flights")
        yield server.tcp_url(role=ROLES.app)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_transaction_of_one_statement_takes_two_flights_with_every_budget(tcp_url: str, is_async: bool) -> None:
    direct = make_url(tcp_url)
    proxy = CountingProxy(direct.port or 0)
    through = direct.set(port=proxy.port).update_query_dict({"sslmode": "disable", "gssencmode": "disable"})
    budget_of = same_for_all(statement_timeout_s=1, lock_timeout_s=1, concurrency=1)

    counted = (
        asyncio.run(_async_flights(proxy, through, budget_of)) if is_async else _flights(proxy, through, budget_of)
    )

    assert counted == 2
    proxy.close()


def _flights(proxy: CountingProxy, url: Any, budget_of: Any) -> int:
    engine = create_tenant_engine(url, budget_of=budget_of)

    def work() -> None:
        with tenant_scope(ACME), engine.begin() as connection:
            assert column(connection, SHOWN) == ["1s 1s"]

    counted = flights_of(proxy, work)
    engine.dispose()
    return counted


async def _async_flights(proxy: CountingProxy, url: Any, budget_of: Any) -> int:
    engine = create_async_tenant_engine(url, budget_of=budget_of)
    for _ in range(2):
        before = proxy.flights
        with tenant_scope(ACME):
            async with engine.begin() as connection:
                assert await connection.run_sync(column, SHOWN) == ["1s 1s"]
        counted = proxy.flights - before
    await engine.dispose()
    return counted


def messages_of(engine: Engine, tenant: UUID) -> list[str]:
    """The statements that libpq sends for a transaction of one, as its own trace has them."""
    with tenant_scope(tenant), engine.connect() as connection:
        column(connection, SHOWN)
    with tempfile.TemporaryFile("w+") as trace, tenant_scope(tenant), engine.connect() as connection:
        pgconn = connection.connection.driver_connection.pgconn  # type: ignore[union-attr]
        pgconn.trace(trace.fileno())
        column(connection, SHOWN)
        connection.commit()
        pgconn.untrace()
        lines = Path(f"/proc/self/fd/{trace.fileno()}").read_text().splitlines()
    return [line.split('"" "')[1].split('"')[0] for line in lines if "\tParse\t" in line]


BARE = ["BEGIN", "CLOSE ALL", "SET LOCAL app.tenant_id", "SET LOCAL app.account_id", "SET LOCAL app.platform_session"]


@pytest.mark.parametrize(
    ("budget", "added"),
    [
        (None, []),
        (WorkBudget(), []),
        (WorkBudget(concurrency=3), []),
        (WorkBudget(statement_timeout_s=2), ["SET LOCAL statement_timeout"]),
        (
            WorkBudget(statement_timeout_s=2, lock_timeout_s=1),
            ["SET LOCAL statement_timeout", "SET LOCAL lock_timeout"],
        ),
    ],
)
def test_nothing_is_sent_for_what_no_budget_bounds(
    people_url: str, acme: SomeTenant, budget: WorkBudget | None, added: list[str]
) -> None:
    engine = create_tenant_engine(people_url, budget_of=lambda _tenant: budget)

    sent = [message.split(" = ")[0] for message in messages_of(engine, acme.id)]

    assert sent == [*BARE, *added, SHOWN]
    engine.dispose()


def test_engine_without_budgets_has_the_pool_it_would_have(people_url: str) -> None:
    engine = create_tenant_engine(people_url)

    assert budgets_of(engine) is None
    assert type(engine.pool).__module__.startswith("sqlalchemy.")


def test_budget_is_asked_for_once_a_transaction(people_url: str, acme: SomeTenant) -> None:
    asked: list[UUID] = []

    def budget_of(tenant: UUID) -> WorkBudget:
        asked.append(tenant)
        return WorkBudget(statement_timeout_s=1, concurrency=1)

    engine = create_tenant_engine(people_url, budget_of=budget_of)
    for _ in range(3):
        with tenant_scope(acme.id), engine.begin() as connection:
            column(connection, SHOWN)
            column(connection, SHOWN)

    assert asked == [acme.id] * 3
    engine.dispose()


# Over HTTP --------------------------------------------------------------------------------------------


@pytest.fixture
def served(people_url: str) -> Iterator[Any]:
    """A small app in which a tenant may do one thing at a time, for a tenth of a second."""
    engine = create_tenant_engine(
        people_url, budget_of=same_for_all(statement_timeout_s=0.1, concurrency=1, wait_s=0.05)
    )
    directory = SQLDirectory(Tenant)
    app, tenancy = make_app(tenant_sessionmaker(engine), directory)

    @app.get("/slow")
    def slow() -> list[Any]:
        return list(tenancy.session.connection().exec_driver_sql("SELECT name FROM people, pg_sleep(20)").scalars())

    yield app, engine
    directory.close()
    engine.dispose()


def at(tenant: SomeTenant) -> dict[str, Any]:
    return {"headers": {"X-Tenant-Slug": tenant.slug}}


def test_request_beyond_the_concurrency_is_told_to_come_again(
    served: Any, acme: SomeTenant, globex: SomeTenant
) -> None:
    app, engine = served
    client = app.test_client()
    assert client.get("/people", **at(acme)).json == ["Ada"]

    with tenant_scope(acme.id), engine.connect() as connection:
        column(connection, SHOWN)
        refused = client.get("/people", **at(acme))
        other = client.get("/people", **at(globex))
    after = client.get("/people", **at(acme))

    assert (refused.status_code, refused.json["code"], refused.headers["Retry-After"]) == (429, "tenant_busy", "1")
    assert str(acme.id) not in refused.text
    assert (other.json, after.json) == (["Eve"], ["Ada"])


def test_request_over_its_time_is_told_so_and_not_to_repeat_it(served: Any, acme: SomeTenant) -> None:
    app, _ = served

    answer = app.test_client().get("/slow", **at(acme))

    assert (answer.status_code, answer.json["code"]) == (503, "timed_out")
    assert "Retry-After" not in answer.headers
