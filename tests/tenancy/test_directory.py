"""The directory on a real database: what it finds, remembers, refuses, and how often it asks."""

import contextlib
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event, insert, inspect, make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped

from tenancy.binding import create_tenant_engine
from tenancy.context import current_scope, tenant_scope
from tenancy.directory import DomainMixin, Reference, SQLDirectory, TenantMixin
from tenancy.errors import ConfigurationError, DirectoryError
from tenancy.lookups import lookups_of
from tenancy.tables import TenantTable, check_metadata
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Domain, Tenant

Truth = psycopg.Connection[Any]


class Gate:
    """Counts the lookups an engine sends, and holds them back while closed."""

    def __init__(self, engine: Engine) -> None:
        self.keys: list[str] = []
        self.under_way = self.most_at_once = 0
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        event.listen(engine, "before_cursor_execute", self._enter)
        event.listen(engine, "after_cursor_execute", self._leave)

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def _enter(self, _c: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if "tenancy.tenant_by_" not in statement:
            return
        with self._lock:
            self.keys.append(str(parameters["key"]))
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
        assert self._open.wait(10)

    def _leave(self, _c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "tenancy.tenant_by_" in statement:
            with self._lock:
                self.under_way -= 1


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    engine = create_tenant_engine(database.url(ROLES.app), pool_size=10)
    yield engine
    engine.dispose()


@pytest.fixture
def gate(engine: Engine) -> Gate:
    return Gate(engine)


@pytest.fixture
def make_directory(engine: Engine, gate: Gate) -> Iterator[Callable[..., SQLDirectory]]:
    made: list[SQLDirectory] = []

    def make(**options: Any) -> SQLDirectory:
        directory = SQLDirectory(Tenant, domains=Domain, **options)
        directory.bind(engine)
        made.append(directory)
        return directory

    yield make
    for directory in made:
        directory.close()


@pytest.fixture
def deaf(make_directory: Callable[..., SQLDirectory]) -> SQLDirectory:
    """A directory that hears of no change, and whose floor is out of the way."""
    directory = make_directory(floor_ttl_s=60.0)
    directory.close()
    return directory


def slug_of(tenant: SomeTenant) -> Reference:
    return Reference("slug", tenant.slug)


def until(condition: Callable[[], object], *, within_s: float = 5.0) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within_s, "it did not come true in time"
        time.sleep(0.005)
    return time.monotonic() - started


def listening(directory: SQLDirectory, tenant: SomeTenant) -> SQLDirectory:
    """Wait until changes are heard, and the tenant is remembered since."""
    directory.find(slug_of(tenant))
    until(lambda: directory.is_listening)
    directory.find(slug_of(tenant))
    return directory


# Finding


def test_tenant_is_found_by_slug_id_and_verified_domain(deaf: SQLDirectory, acme: SomeTenant, truth: Truth) -> None:
    name = f"{acme.slug}.test"
    truth.execute(
        "INSERT INTO domains (tenant_id, id, domain, verified_at) VALUES (%s, %s, %s, now())", [acme.id, uuid4(), name]
    )

    found = [deaf.find(Reference("domain", name)), deaf.find(Reference("id", str(acme.id))), deaf.find(slug_of(acme))]

    assert [(tenant.id, tenant.status) for tenant in found if tenant] == [(acme.id, "active")] * 3


def test_domain_that_is_not_verified_finds_nobody(deaf: SQLDirectory, acme: SomeTenant, truth: Truth) -> None:
    """T110"""
    name = f"{acme.slug}.waiting.test"
    truth.execute("INSERT INTO domains (tenant_id, id, domain) VALUES (%s, %s, %s)", [acme.id, uuid4(), name])

    assert deaf.find(Reference("domain", name)) is None

    truth.execute("UPDATE domains SET verified_at = now() WHERE domain = %s", [name])
    assert deaf._memory.forget_all() is None
    assert deaf.find(Reference("domain", name)) is not None


def test_models_made_from_the_mixins_are_isolated_and_declare_their_lookups() -> None:
    class Base(DeclarativeBase):
        pass

    class Shop(TenantMixin, Base):
        __tablename__ = "shops"
        __directory_columns__ = ("plan",)
        plan: Mapped[str]

    class Address(DomainMixin, TenantTable, Base):
        __tablename__ = "addresses"

    check_metadata(Base.metadata)

    declared = {lookup.name: (lookup.table, lookup.returns, lookup.requires) for lookup in lookups_of(Base.metadata)}
    assert declared == {
        "tenant_by_id": ("shops", ("tenant_id", "slug", "name", "status", "plan"), ()),
        "tenant_by_slug": ("shops", ("tenant_id", "slug", "name", "status", "plan"), ()),
        "tenant_by_domain": ("addresses", ("tenant_id",), ("verified_at",)),
    }
    assert Shop(slug="acme", name="Acme", plan="basic").plan == "basic"
    assert [index.name for index in inspect(Address).local_table.indexes] == ["addresses_verified_domain_key"]


@pytest.mark.parametrize("status", ["pending", "active", "suspended", "archived", "deleting", "deleted"])
def test_tenant_is_found_whatever_its_status(
    deaf: SQLDirectory, make_tenant: Callable[..., SomeTenant], status: str
) -> None:
    tenant = make_tenant("acme", status=status)

    found = deaf.find(slug_of(tenant))

    assert found is not None
    assert found.status == status


def test_callers_scope_has_no_part_in_who_is_found(deaf: SQLDirectory, acme: SomeTenant, globex: SomeTenant) -> None:
    with tenant_scope(globex.id):
        found = deaf.find(slug_of(acme))
        scope = current_scope()

    assert found is not None
    assert found.id == acme.id
    assert scope is not None
    assert scope.tenant == globex.id


@pytest.mark.parametrize("slug", ["", "-a", "a--b", "A", "42", "acme\n", "é", "a" * 64])
def test_database_refuses_what_is_no_slug(truth: Truth, slug: str) -> None:
    """T109"""
    with pytest.raises(psycopg.errors.CheckViolation):
        truth.execute("INSERT INTO tenants (tenant_id, slug, name) VALUES (%s, %s, 'x')", [uuid4(), slug])


def test_slug_is_unique(truth: Truth, acme: SomeTenant) -> None:
    """T109"""
    with pytest.raises(psycopg.errors.UniqueViolation):
        truth.execute("INSERT INTO tenants (tenant_id, slug, name) VALUES (%s, %s, 'x')", [uuid4(), acme.slug])


def test_new_tenant_is_pending(truth: Truth) -> None:
    row = truth.execute(
        "INSERT INTO tenants (tenant_id, slug, name) VALUES (%s, %s, 'x') RETURNING status",
        [uuid4(), f"t-{uuid4().hex}"],
    ).fetchone()

    assert row == ("pending",)


# Remembering


def test_tenant_found_once_is_known_by_slug_and_id(deaf: SQLDirectory, gate: Gate, acme: SomeTenant) -> None:
    assert deaf.peek(slug_of(acme)) is None
    deaf.find(slug_of(acme))

    deaf.find(slug_of(acme))
    deaf.find(Reference("id", str(acme.id)))

    assert gate.keys == [acme.slug]
    answer = deaf.peek(slug_of(acme))
    assert answer is not None
    assert answer.tenant is not None


def test_unknown_name_is_remembered_as_unknown(deaf: SQLDirectory, gate: Gate) -> None:
    nobody = Reference("slug", "nobody")

    found = [deaf.find(nobody) for _ in range(5)]

    assert found == [None] * 5
    assert gate.keys == ["nobody"]


def test_unknown_names_end_sooner_than_tenants(
    make_directory: Callable[..., SQLDirectory], gate: Gate, acme: SomeTenant
) -> None:
    directory = make_directory(floor_ttl_s=60.0, negative_ttl_s=0.0)
    directory.close()

    for _ in range(2):
        directory.find(slug_of(acme))
        directory.find(Reference("slug", "nobody"))

    assert gate.keys == [acme.slug, "nobody", "nobody"]


def test_memory_is_bounded_and_a_scan_pushes_out_no_tenant(
    make_directory: Callable[..., SQLDirectory], gate: Gate, acme: SomeTenant
) -> None:
    directory = make_directory(floor_ttl_s=60.0, max_entries=20)
    directory.close()
    directory.find(slug_of(acme))

    for number in range(100):
        directory.find(Reference("slug", f"scan-{number}"))
    directory.find(slug_of(acme))

    assert gate.keys.count(acme.slug) == 1
    assert len(directory._memory._unknown) == 20


# Asking


def test_one_name_asked_at_once_by_many_is_looked_up_once(deaf: SQLDirectory, gate: Gate, acme: SomeTenant) -> None:
    gate.close()
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(deaf.find, slug_of(acme)) for _ in range(20)]
        until(lambda: gate.under_way)
        time.sleep(0.05)
        gate.open()
        found = [future.result() for future in asked]

    assert {tenant.id for tenant in found if tenant} == {acme.id}
    assert gate.keys == [acme.slug]


def test_scan_of_made_up_names_runs_few_lookups_at_once(
    make_directory: Callable[..., SQLDirectory], gate: Gate
) -> None:
    directory = make_directory(floor_ttl_s=60.0, max_lookups=3, wait_s=10.0)
    with ThreadPoolExecutor(30) as pool:
        found = list(pool.map(lambda n: directory.find(Reference("slug", f"scan-{n}")), range(200)))

    assert found == [None] * 200
    assert gate.most_at_once <= 3
    assert len(gate.keys) == 200


def test_lookup_that_waits_too_long_for_its_turn_is_an_error_and_not_unknown(
    make_directory: Callable[..., SQLDirectory], gate: Gate, acme: SomeTenant
) -> None:
    directory = make_directory(max_lookups=1, wait_s=0.1)
    gate.close()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(directory.find, slug_of(acme))
        until(lambda: gate.under_way)
        with pytest.raises(DirectoryError):
            directory.find(Reference("slug", "other"))
        with pytest.raises(DirectoryError):
            directory.find(slug_of(acme))
        gate.open()

        assert first.result() is not None
    assert directory.find(Reference("slug", "other")) is None


def test_database_that_is_away_is_an_error_that_is_not_remembered(acme: SomeTenant, engine: Engine) -> None:
    away = create_engine("postgresql+psycopg://app@127.0.0.1:1/none", connect_args={"connect_timeout": 1})
    directory = SQLDirectory(Tenant)
    directory.close()
    directory.bind(away)
    with pytest.raises(DirectoryError, match="OperationalError"):
        directory.find(slug_of(acme))

    directory.bind(engine)

    assert directory.find(slug_of(acme)) is not None


def test_directory_without_an_engine_says_so() -> None:
    with pytest.raises(ConfigurationError, match="no engine"):
        SQLDirectory(Tenant).find(Reference("slug", "acme"))


def test_domain_asked_of_a_directory_without_domains_says_so(engine: Engine) -> None:
    directory = SQLDirectory(Tenant)
    directory.close()
    directory.bind(engine)

    with pytest.raises(ConfigurationError, match="domains=Domain"):
        directory.find(Reference("domain", "planning.acme.test"))


# Hearing of changes


def test_suspension_is_known_within_a_second(
    make_directory: Callable[..., SQLDirectory], acme: SomeTenant, truth: Truth
) -> None:
    """T112"""
    directory = listening(make_directory(floor_ttl_s=1.0), acme)

    truth.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = %s", [acme.id])
    took_s = until(lambda: (found := directory.find(slug_of(acme))) and found.status == "suspended")

    assert took_s < 1.0


def test_change_is_heard_long_before_the_floor(
    make_directory: Callable[..., SQLDirectory], acme: SomeTenant, truth: Truth
) -> None:
    """T112"""
    directory = listening(make_directory(floor_ttl_s=30.0), acme)

    truth.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = %s", [acme.id])

    assert until(lambda: (found := directory.find(slug_of(acme))) and found.status == "suspended") < 1.0


def test_new_tenant_is_found_though_its_name_was_unknown(
    make_directory: Callable[..., SQLDirectory], acme: SomeTenant, truth: Truth
) -> None:
    directory = listening(make_directory(floor_ttl_s=30.0, negative_ttl_s=30.0), acme)
    late = Reference("slug", f"late-{uuid4().hex[:8]}")
    assert directory.find(late) is None

    truth.execute("INSERT INTO tenants (tenant_id, slug, name) VALUES (%s, %s, 'x')", [uuid4(), late.value])

    assert until(lambda: directory.find(late)) < 1.0


def test_other_tenants_stay_remembered_when_one_changes(
    make_directory: Callable[..., SQLDirectory], gate: Gate, acme: SomeTenant, globex: SomeTenant, truth: Truth
) -> None:
    directory = listening(make_directory(floor_ttl_s=30.0), acme)
    directory.find(slug_of(globex))
    gate.keys.clear()

    truth.execute("UPDATE tenants SET name = 'New' WHERE tenant_id = %s", [acme.id])
    until(lambda: (found := directory.find(slug_of(acme))) and found.name == "New")
    directory.find(slug_of(globex))

    assert gate.keys == [acme.slug]


def test_answer_read_before_a_change_is_not_remembered_after_it(
    make_directory: Callable[..., SQLDirectory], gate: Gate, acme: SomeTenant, truth: Truth
) -> None:
    directory = listening(make_directory(floor_ttl_s=30.0), acme)
    directory._memory.forget_all()
    generation = directory._memory.generation
    event.listen(
        directory._require_engine(),
        "after_cursor_execute",
        lambda *_: (
            truth.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = %s", [acme.id]),
            until(lambda: directory._memory.generation > generation),
        ),
        once=True,
    )

    old = directory.find(slug_of(acme))
    now = directory.find(slug_of(acme))

    assert old is not None
    assert now is not None
    assert (old.status, now.status) == ("active", "suspended")


def test_answers_live_only_the_floor_time_without_a_listener(
    make_directory: Callable[..., SQLDirectory], gate: Gate, acme: SomeTenant, truth: Truth
) -> None:
    directory = make_directory(ttl_s=60.0, floor_ttl_s=0.3, listen_url="postgresql+psycopg://app@127.0.0.1:1/none")
    directory.find(slug_of(acme))
    truth.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = %s", [acme.id])

    still = directory.find(slug_of(acme))
    took_s = until(lambda: (found := directory.find(slug_of(acme))) and found.status == "suspended")

    assert still is not None
    assert still.status == "active"
    assert took_s < 1.0
    assert not directory.is_listening
    assert len(gate.keys) == 2


def test_listener_killed_by_the_server_comes_back_having_forgotten_everything(
    make_directory: Callable[..., SQLDirectory], acme: SomeTenant, truth: Truth
) -> None:
    directory = listening(make_directory(floor_ttl_s=1.0), acme)

    truth.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'tenancy directory' AND datname = current_database()"
    )
    until(lambda: directory.peek(slug_of(acme)) is None)
    until(lambda: directory.is_listening)
    truth.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = %s", [acme.id])

    assert until(lambda: (found := directory.find(slug_of(acme))) and found.status == "suspended") < 1.0


class Pooler:
    """Relays one connection to the server, and like a pooler tells the client a process id of its own."""

    def __init__(self, server_socket: str) -> None:
        self._server_socket = server_socket
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        client, _address = self._listening.accept()
        # Whichever side hangs up first, the relay is over.
        with (
            contextlib.suppress(BrokenPipeError, ConnectionResetError),
            client,
            socket.socket(socket.AF_UNIX) as server,
        ):
            server.connect(self._server_socket)
            while ready := select.select([client, server], [], [], 5)[0]:
                data = ready[0].recv(65536)
                if not data:
                    return
                if ready[0] is client:
                    server.sendall(data)
                else:
                    client.sendall(re.sub(rb"(?<=K\x00\x00\x00\x0c).{4}", b"1234", data, flags=re.DOTALL))

    def close(self) -> None:
        self._thread.join()
        self._listening.close()


def test_listener_behind_a_pooler_is_no_listener(
    make_directory: Callable[..., SQLDirectory], database: Database, acme: SomeTenant, caplog: pytest.LogCaptureFixture
) -> None:
    query = make_url(database.url(ROLES.app)).query
    pooler = Pooler(f"{query['host']}/.s.PGSQL.{query.get('port', 5432)}")
    url = f"postgresql+psycopg://{ROLES.app}@127.0.0.1:{pooler.port}/{database.name}?sslmode=disable"
    directory = make_directory(listen_url=url)

    directory.find(slug_of(acme))
    pooler.close()
    until(lambda: caplog.records)

    assert not directory.is_listening
    assert caplog.records[0].message == "directory.listener_down"
    assert caplog.records[0].__dict__["reason"] == "the listening connection is not a direct one"


def test_closed_directory_has_no_thread_and_no_connection(
    make_directory: Callable[..., SQLDirectory], acme: SomeTenant, truth: Truth
) -> None:
    others = set(threading.enumerate())
    directory = listening(make_directory(), acme)
    assert {thread.name for thread in set(threading.enumerate()) - others} == {"tenancy-directory"}

    directory.close()

    assert not directory.is_listening
    assert set(threading.enumerate()) - others == set()
    found = directory.find(slug_of(acme))
    assert found is not None


def test_application_cannot_make_a_tenant_with_an_unknown_status(app_engine: Engine) -> None:
    tenant = uuid4()
    with tenant_scope(tenant), app_engine.begin() as connection, pytest.raises(IntegrityError):
        connection.execute(insert(Tenant).values(id=tenant, slug=f"t-{tenant.hex}", name="x", status="vip"))
