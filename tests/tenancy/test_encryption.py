"""Encrypted columns on real rows: sealed in the table, plain in the object, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import sessionmaker

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.embedded import Server, Template, make_template
from tenancy.encryption import Keyring
from tenancy.session import TenantSession, tenant_sessionmaker
from tenancy.tables import new_id
from tests.conftest import ROLES, Database
from tests.tenancy.vault import CountingKeys, DataKey, Patient, build


@pytest.fixture(scope="session")
def vault_template(server: Server) -> Template:
    return make_template(server, "vault", build)


@pytest.fixture
def database(vault_template: Template, worker: str) -> Iterator[Database]:
    name = vault_template.clone(f"vault_{worker}")
    yield Database(vault_template.server, name)
    vault_template.drop(name)


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    made = create_tenant_engine(database.url(ROLES.app))
    yield made
    made.dispose()


@pytest.fixture
def store() -> CountingKeys:
    return CountingKeys()


@pytest.fixture
def keyring(store: CountingKeys) -> Keyring:
    return Keyring(DataKey, store)


@pytest.fixture
def sessions(engine: Engine, keyring: Keyring) -> sessionmaker[TenantSession]:
    made = tenant_sessionmaker(engine)
    keyring.serve(made)
    return made


def test_value_is_sealed_in_the_table_and_plain_in_the_object(
    sessions: sessionmaker[TenantSession], database: Database
) -> None:
    acme = new_id()
    with tenant_scope(acme), sessions.begin() as session:
        session.add(Patient(name="Ada", note="allergic to engines", results={"iron": 4.5}))

    with tenant_scope(acme), sessions() as session:
        ada = session.scalars(select(Patient)).one()
        assert ada.note == "allergic to engines"
        assert ada.remark is None
        assert ada.results == {"iron": 4.5}
    with database.connect("postgres") as truth:
        (stored,) = truth.execute("SELECT note FROM patients").fetchone()
    assert b"allergic" not in stored
    assert len(stored) == 33 + len("allergic to engines")
