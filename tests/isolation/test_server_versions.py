"""T013, T040: what depends on the server's version, on the system's PostgreSQL beside the one of the other tests."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from psycopg import errors
from uuid_utils.compat import uuid7

from tenancy.embedded import Server, make_template
from tenancy.embedded.launcher import start_private
from tenancy.errors import ServerError
from tests.conftest import FAST, ROLES, Database, bootstrap
from tests.isolation.plain import NEW, bind, names

UPSERT = (
    "INSERT INTO people (tenant_id, id, name, email) VALUES (%s, gen_random_uuid(), 'x', 'e@test.example')"
    " ON CONFLICT (tenant_id, email) DO UPDATE SET name = 'changed' WHERE people.name::int = 1"
)


@pytest.fixture(scope="module")
def system_server(server: Server) -> Iterator[Server]:
    try:
        found = start_private("system", settings=FAST)
    except ServerError as error:
        pytest.skip(f"NOT PROVEN on a second version of PostgreSQL: {error.message}")
    with found:
        if version_of(found) == version_of(server):
            pytest.skip(f"NOT PROVEN on a second version of PostgreSQL: the system's is {version_of(server)} as well")
        yield found


@pytest.fixture(params=["the tests' own server", "the system's server"])
def either(request: pytest.FixtureRequest, server: Server, worker: str) -> Iterator[Database]:
    """A database of the test's own, on each of two versions."""
    chosen = server if request.param == "the tests' own server" else request.getfixturevalue("system_server")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path("tenancy/rls").glob("*.py"))))
    template = make_template(chosen, f"versions_{digest.hexdigest()[:12]}", lambda url: bootstrap(url, tables=True))
    name = template.clone(f"versions_{worker}")
    yield Database(chosen, name)
    template.drop(name)


@pytest.fixture
def tenants(either: Database) -> tuple[UUID, UUID]:
    """Ours and theirs, with one person in each."""
    ours, theirs = uuid7(), uuid7()
    with either.connect("postgres") as truth:
        truth.execute("SELECT set_config('session_replication_role', 'replica', true)")
        truth.cursor().executemany(NEW, [(ours,), (theirs,)])
    return ours, theirs


def version_of(server: Server) -> int:
    with server.connect() as connection:
        return connection.info.server_version


def test_role_that_drops_what_it_owns_takes_no_policy_with_it(either: Database, tenants: tuple[UUID, UUID]) -> None:
    """T013: servers before the minor releases of November 2026 let a role drop itself from a policy."""
    ours, _ = tenants
    with either.connect("postgres") as truth:
        before = truth.execute("SELECT polname, polroles::text, polrelid FROM pg_policy ORDER BY 1, 3").fetchall()

    with either.connect(ROLES.app) as app:
        bind(app, ours)
        assert names(app) == ["New"]
        with contextlib.suppress(errors.InsufficientPrivilege), app.transaction():
            app.execute("DROP OWNED BY CURRENT_USER")

    with either.connect("postgres") as truth:
        after = truth.execute("SELECT polname, polroles::text, polrelid FROM pg_policy ORDER BY 1, 3").fetchall()
        assert [policy for policy in after if policy[0] in ("tenancy_isolation", "tenancy_guard")] == [
            policy for policy in before if policy[0] in ("tenancy_isolation", "tenancy_guard")
        ]
        truth.execute(f"GRANT SELECT ON people TO {ROLES.app}".encode())
        truth.execute(f"GRANT USAGE ON SCHEMA tenancy, public TO {ROLES.app}".encode())
        truth.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenancy TO {ROLES.app}".encode())
        truth.execute(f"GRANT CONNECT ON DATABASE {either.name} TO {ROLES.app}".encode())
    with either.connect(ROLES.app) as app:
        bind(app, ours)
        assert names(app) == ["New"]


@pytest.mark.parametrize("role", [ROLES.platform, ROLES.lookup])
def test_role_that_drops_itself_from_its_own_policy_opens_nothing(
    either: Database, tenants: tuple[UUID, UUID], role: str
) -> None:
    """T013: the policies that name one role only add to what that role sees; all others bind everybody."""
    ours, _ = tenants
    with either.connect("postgres") as truth:
        truth.execute(f"SET SESSION AUTHORIZATION {role}".encode())
        with contextlib.suppress(errors.InsufficientPrivilege), truth.transaction():
            truth.execute("DROP OWNED BY CURRENT_USER")

    with either.connect(ROLES.app) as app:
        bind(app, ours)
        assert names(app) == ["New"]
    with either.connect(ROLES.app) as app, pytest.raises(errors.InsufficientPrivilege):
        names(app)


def test_upsert_whose_condition_would_show_a_foreign_value_shows_none(
    either: Database, tenants: tuple[UUID, UUID]
) -> None:
    """T040: ON CONFLICT ... WHERE secret::int = 1 would show a secret in its error."""
    ours, theirs = tenants
    with either.connect(ROLES.app) as app:
        bind(app, theirs)
        app.execute("UPDATE people SET name = 'secret', email = 'e@test.example'")
        app.commit()
        bind(app, theirs)
        with pytest.raises(errors.InvalidTextRepresentation, match="secret"):
            app.execute(UPSERT, [theirs])

    with either.connect(ROLES.app) as app:
        bind(app, ours)
        app.execute(UPSERT, [ours])
        assert names(app) == ["New", "x"]
        for tenant in (theirs, ours):
            with pytest.raises(errors.Error) as caught, app.transaction():
                app.execute(UPSERT, [tenant])
            assert "secret" not in str(caught.value)
