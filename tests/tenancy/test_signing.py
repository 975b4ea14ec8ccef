"""Signed scopes as the library uses them: keys, tokens, engines, flights, keys' rotation."""

from __future__ import annotations

import hashlib
import hmac
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, create_engine, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from tenancy.binding import create_async_tenant_engine, create_tenant_engine, guard_engine
from tenancy.cli import main
from tenancy.context import account_scope, platform_scope, tenant_scope
from tenancy.embedded import Template, start
from tenancy.errors import ConfigurationError
from tenancy.lookups import Lookup
from tenancy.rls import create_lookup_sql, guard_sql, guarded_table, install_sql, uninstall_sql, unsign_sql
from tenancy.rls.migrations import send
from tenancy.session import platform_sessionmaker, tenant_sessionmaker
from tenancy.signing import SigningKey, Tokens
from tests.conftest import FAST, ROLES, Database, bootstrap
from tests.models import Base, Person
from tests.signed import ACME, GLOBEX, KEY, add_key, as_owner, fill, filled_clone, sign
from tests.tenancy.engines import column, on_both_drivers
from tests.tenancy.test_driver_flights import CountingProxy, flights_of

NAMES = "SELECT name FROM people ORDER BY name"
OTHER = SigningKey("other", b"o" * 32)


@pytest.fixture(scope="module")
def signed(template: Template, worker: str) -> Iterator[Database]:
    with filled_clone(template, f"signing_{worker}") as database:
        sign(database)
        yield database


def names_of(engine: Engine, tenant: UUID) -> list[str]:
    with tenant_scope(tenant), engine.connect() as connection:
        return column(connection, NAMES)


# Keys and tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [b"", b"short", bytes(31), bytes(65)])
def test_secret_of_the_wrong_length_is_refused(secret: bytes) -> None:
    with pytest.raises(ConfigurationError, match="not 32 to 64"):
        SigningKey("k", secret)


@pytest.mark.parametrize("key_id", ["", "-a", "A", "a.b", "a b", "x" * 33, "a'"])
def test_id_that_could_not_be_told_apart_in_a_token_is_refused(key_id: str) -> None:
    with pytest.raises(ConfigurationError, match="not a plain name"):
        SigningKey(key_id, bytes(32))


@pytest.mark.parametrize("written", ["", "k", "k.", "k.!!", "k." + "A" * 8, "." + "A" * 44])
def test_text_that_is_no_key_is_refused_without_being_repeated(written: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SigningKey.parse(written)

    assert len(written) < 8 or written not in str(caught.value)


def test_key_is_read_back_from_its_text_and_hides_its_secret() -> None:
    key = SigningKey.generate()

    assert SigningKey.parse(f" {key.reveal()}\n") == key
    assert repr(key) == f"SigningKey(id={key.id!r})"
    assert len(key.secret) == 32
    assert SigningKey.generate() != key
    assert pickle.loads(pickle.dumps(key)) == key


def test_pads_are_those_of_hmac() -> None:
    inner, outer = KEY.pads()

    nested = hashlib.sha256(outer + hashlib.sha256(inner + b"message").digest()).hexdigest()

    assert nested == hmac.new(KEY.secret, b"message", "sha256").hexdigest()


def test_token_is_signed_over_expiry_tenant_and_account() -> None:
    tenant, account = UUID(int=1), UUID(int=2)
    message = b"1700000000|00000000-0000-0000-0000-000000000001|00000000-0000-0000-0000-000000000002"

    assert KEY.sign(tenant, account, expiry=1700000000) == (
        f"current.1700000000.{hmac.new(KEY.secret, message, 'sha256').hexdigest()}"
    )


def test_token_is_kept_for_a_third_of_its_life() -> None:
    now = [1000.0]
    tokens = Tokens(KEY, clock=lambda: now[0])
    expiries = []

    for moment in (1000.0, 1019.9, 1020.0, 1015.0):  # the last: the clock was set back
        now[0] = moment
        expiries.append(tokens.token(ACME, None).split(b".")[1])

    assert expiries == [b"1060", b"1060", b"1080", b"1075"]


def test_tokens_of_many_tenants_take_bounded_memory() -> None:
    tokens = Tokens(KEY)

    for number in range(10_000):
        tokens.token(UUID(int=number), None)

    assert len(tokens._kept) <= 4096
    assert tokens.token(None, None) == b""


# Engines ----------------------------------------------------------------------------------------------


@on_both_drivers
def test_engine_with_the_key_reads_each_tenants_rows(play: Callable[..., Any], signed: Database) -> None:
    def story(engine: Engine) -> list[list[str]]:
        return [names_of(engine, tenant) for tenant in (ACME, GLOBEX, ACME)]

    assert play(signed.url(ROLES.app), story, signing_key=KEY, pool_size=1) == [["Ada"], ["Eve"], ["Ada"]]


@on_both_drivers
def test_sessions_write_read_and_roll_back_as_at_the_standard_level(play: Callable[..., Any], signed: Database) -> None:
    def story(engine: Engine) -> list[list[str]]:
        sessions = tenant_sessionmaker(engine)
        found = []
        with tenant_scope(ACME), sessions() as session:
            session.add(Person(name="Bob", email="bob@acme.test"))
            session.flush()
            found.append(list(session.scalars(select(Person.name).order_by(Person.name))))
            with session.begin_nested():
                session.execute(text("DELETE FROM people"))
                found.append(list(session.scalars(select(Person.name))))
            session.rollback()
            found.append(list(session.scalars(select(Person.name))))
        return found

    assert play(signed.url(ROLES.app), story, signing_key=KEY) == [["Ada", "Bob"], [], ["Ada"]]


@on_both_drivers
def test_account_scope_is_signed(play: Callable[..., Any], signed: Database) -> None:
    account, email = uuid7(), f"{uuid7().hex}@test.example"
    with signed.connect("postgres") as truth:
        truth.execute("INSERT INTO accounts (id, email) VALUES (%s, %s)", [account, email])

    def story(engine: Engine) -> list[list[str]]:
        found = []
        for scope in (account_scope(account), tenant_scope(ACME, account=account)):
            with scope, engine.connect() as connection:
                found.append(column(connection, "SELECT email FROM accounts"))
        return found

    assert play(signed.url(ROLES.app), story, signing_key=KEY) == [[email], [email]]


@pytest.mark.parametrize("scope", [nullcontext, lambda: account_scope(uuid7())], ids=["none", "account"])
def test_transaction_without_a_tenant_is_told_so_rather_than_of_a_signature(
    signed: Database, scope: Callable[[], AbstractContextManager[None]]
) -> None:
    engine = create_tenant_engine(signed.url(ROLES.app), signing_key=KEY, poolclass=NullPool)

    with scope(), engine.connect() as connection, pytest.raises(DBAPIError, match="no tenant is bound"):
        column(connection, NAMES)


@on_both_drivers
def test_engine_without_a_key_is_refused_by_a_signed_database(play: Callable[..., Any], signed: Database) -> None:
    with pytest.raises(ConfigurationError, match="this engine has no key"):
        play(signed.url(ROLES.app), lambda engine: names_of(engine, ACME))


@on_both_drivers
def test_engine_with_a_key_is_refused_by_an_unsigned_database(play: Callable[..., Any], database: Database) -> None:
    with pytest.raises(ConfigurationError, match="verifies no signature"):
        play(database.url(ROLES.app), lambda engine: names_of(engine, ACME), signing_key=KEY)


@on_both_drivers
def test_key_that_the_database_does_not_know_is_refused_by_name_of_the_fault(
    play: Callable[..., Any], signed: Database
) -> None:
    with pytest.raises(DBAPIError, match="unknown or retired"):
        play(signed.url(ROLES.app), lambda engine: names_of(engine, ACME), signing_key=OTHER)


def test_key_for_an_engine_that_is_guarded_already_is_refused(signed: Database) -> None:
    engine = guard_engine(create_engine(signed.url(ROLES.app)), signing_key=KEY)

    with pytest.raises(ConfigurationError, match="guarded already"):
        guard_engine(engine, signing_key=KEY)
    assert guard_engine(engine) is engine
    assert names_of(engine, ACME) == ["Ada"]
    engine.dispose()


def test_platform_reads_across_tenants_and_writes_in_one(signed: Database) -> None:
    engine = create_tenant_engine(signed.url(ROLES.platform), signing_key=KEY)
    across, staff = platform_sessionmaker(engine), tenant_sessionmaker(engine)

    with platform_scope(actor="ana", reason="report"), across() as session:
        everyone = list(session.scalars(select(Person.name).order_by(Person.name)))
    with platform_scope(actor="ana", reason="repair"), tenant_scope(ACME), staff() as session:
        one = list(session.scalars(select(Person.name)))
    engine.dispose()

    assert (everyone, one) == (["Ada", "Eve"], ["Ada"])


def test_lookup_by_the_bound_account_lists_nothing_for_a_forged_one(template: Template, worker: str) -> None:
    """T122"""
    account = uuid7()
    lookup = Lookup("notes_of_account", "notes", "person_id", ("body",), by_account=True)
    with filled_clone(template, f"signed_lookup_{worker}") as database:
        sign(database)
        with as_owner(database) as connection:
            notes = guarded_table(Base.metadata.tables["notes"], [lookup])
            send(connection, [*guard_sql(notes, ROLES), *create_lookup_sql(lookup, ROLES)])
        with database.connect("postgres") as truth:
            truth.execute("SET session_replication_role = replica")
            truth.execute(
                "INSERT INTO notes (body, person_id, tenant_id, id) VALUES ('hello', %s, %s, %s)",
                [account, ACME, uuid7()],
            )
        engine = create_tenant_engine(database.url(ROLES.app), signing_key=KEY)
        with account_scope(account), engine.connect() as connection:
            own = [row.body for row in lookup.fetch(connection)]
        engine.dispose()
        with database.connect(ROLES.app) as app:
            app.execute("SELECT set_config('app.account_id', %s, true)", [str(account)])
            with pytest.raises(Exception, match="carries no signature"):
                app.execute("SELECT body FROM tenancy.notes_of_account()")

    assert own == ["hello"]


# Flights ----------------------------------------------------------------------------------------------


def test_signed_transaction_of_one_statement_takes_two_flights(tmp_path_factory: pytest.TempPathFactory) -> None:
    with start(data_dir=tmp_path_factory.mktemp("signed") / "postgres", tcp_port=0, settings=FAST) as server:
        bootstrap(server.url(), tables=True)
        name = str(make_url(server.url()).database)
        sign(Database(server, name))
        fill(Database(server, name))
        server.set_password(ROLES.app, "flights")
        direct = make_url(server.tcp_url(role=ROLES.app))
        proxy = CountingProxy(direct.port or 0)
        through = direct.set(port=proxy.port).update_query_dict({"sslmode": "disable", "gssencmode": "disable"})
        engine = create_tenant_engine(through, signing_key=KEY)

        assert flights_of(proxy, lambda: _read_one(engine)) == 2
        engine.dispose()
        proxy.close()


def _read_one(engine: Engine) -> None:
    with tenant_scope(ACME), tenant_sessionmaker(engine)() as session:
        assert session.scalars(select(Person.name)).all() == ["Ada"]


async def test_asynchronous_engine_takes_the_key_too(signed: Database) -> None:
    engine = create_async_tenant_engine(signed.url(ROLES.app), signing_key=KEY)

    with tenant_scope(ACME):
        async with engine.connect() as connection:
            found = list(await connection.scalars(text(NAMES)))
    await engine.dispose()

    assert found == ["Ada"]


# Installation -----------------------------------------------------------------------------------------


def test_signed_schema_is_installed_again_over_itself_and_keeps_its_keys(signed: Database) -> None:
    with as_owner(signed) as connection:
        send(connection, install_sql(ROLES, signed=True))
        kept = column(connection, "SELECT id FROM tenancy.signing_key")

    assert kept == ["current"]


def test_database_is_signed_and_unsigned_again(template: Template, worker: str) -> None:
    with filled_clone(template, f"signed_back_{worker}") as database:
        found = []
        for statements, key in ((install_sql(ROLES, signed=True), KEY), (unsign_sql(ROLES), None)):
            with as_owner(database) as connection:
                send(connection, statements)
            if key is not None:
                add_key(database, key)
            engine = create_tenant_engine(database.url(ROLES.app), signing_key=key)
            found.append(names_of(engine, ACME))
            engine.dispose()

    assert found == [["Ada"], ["Ada"]]


def test_signed_schema_is_removed_as_a_whole(template: Template, worker: str) -> None:
    with filled_clone(template, f"signed_gone_{worker}") as database:
        sign(database)
        with as_owner(database) as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            lookups = column(
                connection,
                "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'tenancy'::regnamespace"
                f" AND proowner = '{ROLES.lookup}'::regrole",
            )
            send(connection, [f"DROP FUNCTION {name}" for name in lookups])
            send(connection, uninstall_sql(ROLES, signed=True))
            left = column(connection, "SELECT to_regnamespace('tenancy')::text")

    assert left == [None]


def test_citus_is_told_that_it_cannot_be_signed() -> None:
    with pytest.raises(ConfigurationError, match="Citus workers have none"):
        install_sql(ROLES, "citus", signed=True)


def test_owner_binds_tenants_without_a_key_as_migrations_do(signed: Database) -> None:
    engine = create_engine(signed.url(ROLES.migrator), poolclass=NullPool)

    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL row_security = on")
        connection.exec_driver_sql(f"SET LOCAL app.tenant_id = '{ACME}'")
        found = column(connection, NAMES)

    assert found == ["Ada"]


# Rotation ---------------------------------------------------------------------------------------------


def keys(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments], env=environment)


def test_keys_are_rotated_without_an_error_in_between(template: Template, worker: str) -> None:
    """The new key is added, engines change over one by one, then the old key is retired."""
    with filled_clone(template, f"signed_rotated_{worker}") as database:
        sign(database)
        url = database.url(ROLES.migrator)
        old = create_tenant_engine(database.url(ROLES.app), signing_key=KEY)
        assert names_of(old, ACME) == ["Ada"]

        added = keys("add", url)
        new_key = SigningKey.parse(added.stdout.strip().splitlines()[-1])
        new = create_tenant_engine(database.url(ROLES.app), signing_key=new_key)
        both = [names_of(old, ACME), names_of(new, ACME)]
        later = keys("retire", url, "current", "--in", "3600")
        still = names_of(old, GLOBEX)
        now = keys("retire", url, "current")
        listed = keys("list", url)

        with pytest.raises(DBAPIError, match="unknown or retired"):
            names_of(old, GLOBEX)
        assert names_of(new, GLOBEX) == ["Eve"]
        for engine in (old, new):
            engine.dispose()

    assert [added.exit_code, later.exit_code, now.exit_code, listed.exit_code] == [0, 0, 0, 0]
    assert (both, still) == ([["Ada"], ["Ada"]], ["Eve"])
    assert "current" in listed.output
    assert "retired" in listed.output
    assert new_key.reveal() not in listed.output
    assert new_key.secret.hex() not in listed.output


def test_key_is_taken_from_the_environment_and_not_printed(template: Template, worker: str) -> None:
    with filled_clone(template, f"signed_env_{worker}") as database:
        sign(database)

        added = keys("add", database.url(ROLES.migrator), TENANCY_SIGNING_KEY=OTHER.reveal())
        engine = create_tenant_engine(database.url(ROLES.app), signing_key=OTHER)

        assert names_of(engine, ACME) == ["Ada"]
        engine.dispose()
    assert added.exit_code == 0
    assert OTHER.reveal().split(".")[1] not in added.output


def test_last_valid_key_is_not_retired_by_mistake(template: Template, worker: str) -> None:
    with filled_clone(template, f"signed_last_{worker}") as database:
        sign(database)
        refused = keys("retire", database.url(ROLES.migrator), "current")
        unknown = keys("retire", database.url(ROLES.migrator), "nobody")
        twice = keys("add", database.url(ROLES.migrator), TENANCY_SIGNING_KEY=KEY.reveal())

    assert [answer.exit_code for answer in (refused, unknown, twice)] == [1, 1, 1]
    assert "is the last valid key" in refused.output
    assert "no key 'nobody'" in unknown.output
    assert "there is a key 'current' already" in twice.output


def test_keys_of_an_unsigned_database_are_refused(database: Database) -> None:
    answers = [keys(*call) for call in (["add", database.url(ROLES.migrator)], ["list", database.url(ROLES.migrator)])]

    assert [answer.exit_code for answer in answers] == [1, 1]
    assert all("does not demand signed scopes" in answer.output for answer in answers)


def test_keys_by_the_app_role_are_refused_by_the_database(signed: Database) -> None:
    """T123"""
    answer = keys("list", signed.url(ROLES.app))

    assert answer.exit_code == 1
    assert "the database refused: " in answer.output
