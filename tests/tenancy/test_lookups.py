from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, MetaData
from sqlalchemy.orm import sessionmaker
from uuid_utils.compat import uuid7

from tenancy.context import account_scope, tenant_scope
from tenancy.errors import ModelError
from tenancy.lookups import Lookup, declare_lookup, lookups_of
from tenancy.rls import create_lookup_sql, drop_lookup_sql, guard_sql, guarded_table
from tenancy.session import TenantSession
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import ACCOUNT_OF_EMAIL, TENANT_BY_DOMAIN, TENANT_BY_ID, TENANT_BY_SLUG, Account, Base, Domain

Sessions = sessionmaker[TenantSession]


# Declarations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        {"name": "Tenant"},
        {"name": "a b"},
        {"table": 'people"; --'},
        {"key": "lower(slug)"},
        {"returns": ("id", "1d")},
        {"requires": ("",)},
    ],
)
def test_names_that_need_quotes_are_refused(names: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="not a plain lower-case SQL name"):
        Lookup(**({"name": "found", "table": "tenants", "key": "slug", "returns": ("tenant_id",)} | names))


@pytest.mark.parametrize("kind", ["citext", "varchar", "text; drop", "int"])
def test_key_of_a_leaky_type_is_refused(kind: str) -> None:
    with pytest.raises(ModelError, match="not an exact-key read"):
        Lookup("found", "tenants", "slug", ("tenant_id",), key_type=kind)


def test_lookup_role_reads_only_the_columns_it_needs() -> None:
    lookup = Lookup("found", "domains", "domain", ("tenant_id", "domain"), requires=("verified_at", "tenant_id"))

    assert lookup.columns == ("domain", "tenant_id", "verified_at")


def test_lookup_is_declared_once() -> None:
    metadata = MetaData()
    lookup = Lookup("found", "tenants", "slug", ("tenant_id",))

    assert declare_lookup(metadata, lookup) is lookup
    declare_lookup(metadata, Lookup("found", "tenants", "slug", ("tenant_id",)))

    assert lookups_of(metadata) == (lookup,)
    assert lookups_of(MetaData()) == ()


def test_two_lookups_of_one_name_are_refused() -> None:
    metadata = MetaData()
    declare_lookup(metadata, Lookup("found", "tenants", "slug", ("tenant_id",)))

    with pytest.raises(ModelError, match="two lookups are named 'found'"):
        declare_lookup(metadata, Lookup("found", "domains", "domain", ("tenant_id",)))


# Answers ----------------------------------------------------------------------------------------------


def test_lookup_answers_an_unbound_connection(app_engine: Engine, acme: SomeTenant) -> None:
    with app_engine.connect() as connection:
        by_slug = TENANT_BY_SLUG.fetch(connection, acme.slug)
        by_id = TENANT_BY_ID.fetch(connection, acme.id)

    assert [tuple(row) for row in by_slug] == [(acme.id, acme.slug, "Acme", "active")]
    assert by_id == by_slug


def test_lookup_of_an_unknown_key_answers_nothing(app_engine: Engine) -> None:
    with app_engine.connect() as connection:
        assert TENANT_BY_SLUG.fetch(connection, "nobody") == []
        assert TENANT_BY_SLUG.fetch(connection, None) == []


def test_lookup_takes_its_key_as_a_value(app_engine: Engine, acme: SomeTenant) -> None:
    with app_engine.connect() as connection:
        assert TENANT_BY_SLUG.fetch(connection, "' OR true --") == []


def test_lookup_in_one_tenant_finds_another(app_engine: Engine, acme: SomeTenant, globex: SomeTenant) -> None:
    """It must: a request is resolved before, and members change tenants."""
    with tenant_scope(acme.id), app_engine.connect() as connection:
        assert len(TENANT_BY_SLUG.fetch(connection, globex.slug)) == 1


def test_row_without_what_a_lookup_requires_does_not_answer(
    app_engine: Engine, acme: SomeTenant, sessions: Sessions
) -> None:
    domain = f"{acme.slug}.example"
    with tenant_scope(acme.id), sessions.begin() as session:
        session.add(Domain(domain=domain))

    with app_engine.connect() as connection:
        unverified = TENANT_BY_DOMAIN.fetch(connection, domain)
    with tenant_scope(acme.id), sessions.begin() as session:
        session.connection().exec_driver_sql("UPDATE domains SET verified_at = now()")
    with app_engine.connect() as connection:
        verified = TENANT_BY_DOMAIN.fetch(connection, domain)

    assert (unverified, [tuple(row) for row in verified]) == ([], [(acme.id,)])


def test_account_is_found_by_its_email(app_engine: Engine, sessions: Sessions) -> None:
    ada = uuid7()
    with account_scope(ada), sessions.begin() as session:
        session.add(Account(id=ada, email=f"{ada.hex}@test.example"))

    with app_engine.connect() as connection:
        assert [tuple(row) for row in ACCOUNT_OF_EMAIL.fetch(connection, f"{ada.hex}@test.example")] == [(ada,)]


def test_lookup_by_account_answers_for_the_bound_account_only(fresh_database: Database) -> None:
    by_account = Lookup("my_notes", "notes", "person_id", ("tenant_id", "body"), by_account=True)
    ada, bob = uuid7(), uuid7()
    with fresh_database.connect("postgres") as owner:
        owner.execute("SET session_replication_role = replica")  # the notes refer to nobody
        for account in (ada, bob):
            owner.execute(
                "INSERT INTO notes (tenant_id, id, person_id, body) VALUES (%s, %s, %s, %s)",
                [uuid7(), uuid7(), account, f"of {account}"],
            )
        owner.execute(f"SET ROLE {ROLES.owner}".encode())
        notes = guarded_table(Base.metadata.tables["notes"], [by_account])
        for statement in (*guard_sql(notes, ROLES), *create_lookup_sql(by_account, ROLES)):
            owner.execute(statement.encode())

    with fresh_database.connect(ROLES.app) as app:
        app.execute("SELECT set_config('app.account_id', %s, true)", [str(ada)])
        found = app.execute("SELECT body FROM tenancy.my_notes()").fetchall()
        app.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no account is bound"):
            app.execute("SELECT body FROM tenancy.my_notes()")

    assert found == [(f"of {ada}",)]


def test_lookup_by_account_takes_no_key(app_engine: Engine) -> None:
    class Recorder:
        def execute(self, statement: Any, parameters: Any) -> Any:
            self.sent = (str(statement), parameters)
            return self

        def all(self) -> list[object]:
            return []

    recorder: Any = Recorder()
    Lookup("mine", "notes", "person_id", ("body",), by_account=True).fetch(recorder)

    assert recorder.sent == ("SELECT body FROM tenancy.mine()", {})


def test_dropped_lookup_is_gone(fresh_database: Database) -> None:
    with fresh_database.connect("postgres") as owner:
        owner.execute(f"SET ROLE {ROLES.owner}".encode())
        for statement in drop_lookup_sql(TENANT_BY_SLUG, ROLES):
            owner.execute(statement.encode())
        with pytest.raises(psycopg.errors.UndefinedFunction):
            owner.execute("SELECT * FROM tenancy.tenant_by_slug('acme')")


# The lookup role cannot be reached otherwise ----------------------------------------------------------


@pytest.fixture
def app(database: Database, acme: SomeTenant) -> Any:
    with database.connect(ROLES.app) as connection:
        yield connection


def test_definer_rights_end_with_the_lookup(app: psycopg.Connection[Any], acme: SomeTenant) -> None:
    assert app.execute("SELECT count(*) FROM tenancy.tenant_by_slug(%s)", [acme.slug]).fetchone() == (1,)

    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant is bound"):
        app.execute("SELECT * FROM tenants")


@pytest.mark.parametrize(
    "statement",
    [
        f"SET ROLE {ROLES.lookup}",
        f"SET SESSION AUTHORIZATION {ROLES.lookup}",
        f"GRANT {ROLES.lookup} TO {ROLES.app}",
        f"ALTER ROLE {ROLES.lookup} LOGIN",
        f"REASSIGN OWNED BY {ROLES.lookup} TO {ROLES.app}",
        f"DROP OWNED BY {ROLES.lookup}",
        "CREATE TEMP TABLE tenants (tenant_id uuid)",
        "CREATE FUNCTION tenancy.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "ALTER FUNCTION tenancy.tenant_by_slug(text) SECURITY INVOKER",
        "ALTER FUNCTION tenancy.tenant_by_slug(text) SET search_path = public",
        "DROP FUNCTION tenancy.tenant_by_slug(text)",
    ],
)
def test_app_role_cannot_become_or_change_the_lookup(app: psycopg.Connection[Any], statement: str) -> None:
    """T033"""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(statement.encode())


def test_setting_the_role_by_set_config_is_refused(app: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied to set role"):
        app.execute("SELECT set_config('role', %s, true)", [ROLES.lookup])


def test_temporary_table_named_like_a_model_changes_no_lookup(
    fresh_database: Database, make_tenant: Callable[..., SomeTenant]
) -> None:
    """T033: TEMP is granted here, as a default installation would; pg_temp comes last and names are qualified."""
    tenant: UUID = uuid7()
    with fresh_database.connect("postgres") as truth:
        truth.execute(
            "INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, 'acme', 'A', 'active')", [tenant]
        )
        truth.execute(f"GRANT TEMP ON DATABASE {fresh_database.name} TO {ROLES.app}".encode())

    with fresh_database.connect(ROLES.app) as app:
        app.execute("CREATE TEMP TABLE tenants (tenant_id uuid, slug text, name text, status text)")
        app.execute("INSERT INTO pg_temp.tenants VALUES (gen_random_uuid(), 'acme', 'Forged', 'active')")
        app.execute("GRANT SELECT ON pg_temp.tenants TO PUBLIC")
        found = app.execute("SELECT tenant_id, name FROM tenancy.tenant_by_slug('acme')").fetchall()

    assert found == [(tenant, "A")]
