"""T036-T046: keys, references and conflicts tell a tenant nothing of another."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import sessionmaker
from uuid_utils.compat import uuid7

from tenancy.context import tenant_scope
from tenancy.session import TenantSession
from tests.conftest import SomeTenant
from tests.models import Company, Note, Person, Todo

Sessions = sessionmaker[TenantSession]
Truth = psycopg.Connection[Any]
PersonOf = Callable[..., UUID]


def people_of(truth: Truth, tenant: SomeTenant) -> list[tuple[Any, ...]]:
    return truth.execute("SELECT name, email FROM people WHERE tenant_id = %s ORDER BY name", [tenant.id]).fetchall()


def test_tenant_may_use_a_primary_key_that_another_holds(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions, truth: Truth
) -> None:
    """T036"""
    eve = person_of(globex, "Eve")

    with tenant_scope(acme.id), sessions.begin() as session:
        session.execute(insert(Person).values(id=eve, name="Ada", email="ada@test.example"))

    assert truth.execute("SELECT count(*) FROM people WHERE id = %s", [eve]).fetchone() == (2,)


def test_tenant_may_use_a_unique_value_that_another_holds(
    acme: SomeTenant, globex: SomeTenant, sessions: Sessions, truth: Truth
) -> None:
    """T037: by INSERT and by UPDATE."""
    for tenant, email in ((globex, "one@test.example"), (acme, "one@test.example"), (acme, "two@test.example")):
        with tenant_scope(tenant.id), sessions.begin() as session:
            session.add(Person(name="Ada", email=email))
    with tenant_scope(globex.id), sessions.begin() as session:
        session.execute(text("UPDATE people SET email = 'two@test.example'"))

    assert people_of(truth, globex) == [("Ada", "two@test.example")]
    assert people_of(truth, acme) == [("Ada", "one@test.example"), ("Ada", "two@test.example")]


def test_own_unique_value_is_still_unique(acme: SomeTenant, sessions: Sessions) -> None:
    with tenant_scope(acme.id), sessions() as session:
        session.add_all([Company(name="Engines"), Company(name="Engines")])
        with pytest.raises(IntegrityError):
            session.flush()


def test_on_conflict_do_nothing_tells_a_held_value_from_a_free_one_in_ones_own_tenant_only(
    acme: SomeTenant, globex: SomeTenant, sessions: Sessions
) -> None:
    """T038: the same row count for a value that another tenant holds and for a free one."""
    with tenant_scope(globex.id), sessions.begin() as session:
        session.add(Company(name="Held"))

    with tenant_scope(acme.id), sessions.begin() as session:
        statement = text(
            "INSERT INTO companies (tenant_id, id, name) VALUES (:tenant, gen_random_uuid(), :name)"
            " ON CONFLICT DO NOTHING RETURNING name"
        )
        counts = [
            len(session.execute(statement, {"tenant": acme.id, "name": name}).all())
            for name in ("Held", "Free", "Free")
        ]

    assert counts == [1, 1, 0]


def test_insert_does_not_wait_for_another_tenants_uncommitted_value(
    acme: SomeTenant, globex: SomeTenant, sessions: Sessions, truth: Truth
) -> None:
    """T039: a wait would tell that the value is there. The app role's lock_timeout is 5 s."""
    with tenant_scope(globex.id), sessions() as theirs:
        theirs.add(Company(name="Held"))
        theirs.flush()
        with tenant_scope(acme.id), sessions.begin() as ours:
            ours.add(Company(name="Held"))
        with tenant_scope(globex.id):
            theirs.commit()

    assert truth.execute(
        "SELECT count(*) FROM companies WHERE name = 'Held' AND tenant_id IN (%s, %s)", [acme.id, globex.id]
    ).fetchone() == (2,)


def test_upsert_oracle_reads_no_foreign_row(
    acme: SomeTenant, globex: SomeTenant, sessions: Sessions, truth: Truth
) -> None:
    """T040: ON CONFLICT ... WHERE secret::int = 1 would show a secret in its error."""
    statement = text(
        "INSERT INTO people (tenant_id, id, name, email) VALUES (:tenant, gen_random_uuid(), 'x', 'e@test.example')"
        " ON CONFLICT (tenant_id, email) DO UPDATE SET name = 'changed' WHERE people.name::int = 1"
    )
    with tenant_scope(globex.id), sessions.begin() as session:
        session.add(Person(name="secret", email="e@test.example"))

    with tenant_scope(acme.id), sessions.begin() as session:
        session.execute(statement, {"tenant": acme.id})
    assert people_of(truth, acme) == [("x", "e@test.example")]
    for tenant in (globex, acme):
        with tenant_scope(acme.id), sessions() as session, pytest.raises(Exception, match=r".") as caught:
            session.execute(statement, {"tenant": tenant.id})
        assert "secret" not in str(caught.value)
    with tenant_scope(globex.id), sessions() as session, pytest.raises(DataError, match="secret"):
        session.execute(statement, {"tenant": globex.id})


def test_reference_to_a_foreign_row_fails_like_one_to_a_missing_row(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, company_of: PersonOf, sessions: Sessions
) -> None:
    """T041"""
    theirs = company_of(globex)
    with tenant_scope(globex.id), sessions() as session:
        assert session.get(Company, theirs) is not None

    found = []
    for company in (theirs, uuid7()):
        with tenant_scope(acme.id), sessions() as session, pytest.raises(IntegrityError) as caught:
            session.execute(insert(Person).values(name="Ada", email="ada@test.example", company_id=company))
        original = caught.value.orig
        assert isinstance(original, errors.ForeignKeyViolation)
        diagnosis = original.diag
        found.append((diagnosis.message_primary, diagnosis.message_detail, diagnosis.constraint_name))

    assert found[0][1] == 'Key is not present in table "companies".'
    assert found[0] == found[1]


def test_deleting_a_parent_leaves_the_children_of_another_with_its_id(
    acme: SomeTenant, globex: SomeTenant, sessions: Sessions, truth: Truth
) -> None:
    """T042: CASCADE and SET NULL carry the tenant."""
    same = uuid7()
    for tenant in (acme, globex):
        with tenant_scope(tenant.id), sessions.begin() as session:
            session.add(Company(id=same, name="Engines"))
            session.flush()
            session.add(Person(id=same, name="Ada", email="ada@test.example", company_id=same))
            session.flush()
            session.add(Note(id=same, body="about", person_id=same))

    with tenant_scope(acme.id), sessions.begin() as session:
        session.execute(text("DELETE FROM companies"))
        session.execute(text("DELETE FROM people"))

    assert truth.execute("SELECT tenant_id FROM notes WHERE id = %s", [same]).fetchall() == [(globex.id,)]
    assert truth.execute("SELECT tenant_id, company_id FROM people WHERE id = %s", [same]).fetchall() == [
        (globex.id, same)
    ]


def test_parent_is_deleted_whatever_another_tenant_tried_to_refer_to(
    acme: SomeTenant, globex: SomeTenant, company_of: PersonOf, sessions: Sessions, truth: Truth
) -> None:
    """T043"""
    theirs = company_of(globex)

    with tenant_scope(acme.id), sessions() as session, pytest.raises(IntegrityError):
        session.execute(insert(Person).values(name="Ada", email="ada@test.example", company_id=theirs))
    with tenant_scope(globex.id), sessions.begin() as session:
        session.delete(session.get_one(Company, theirs))

    assert truth.execute("SELECT count(*) FROM companies WHERE id = %s", [theirs]).fetchone() == (0,)


def test_child_of_a_deleted_parent_keeps_its_tenant(
    acme: SomeTenant, person_of: PersonOf, company_of: PersonOf, sessions: Sessions, truth: Truth
) -> None:
    """T045"""
    company = company_of(acme)
    ada = person_of(acme, "Ada", company_id=company)

    with tenant_scope(acme.id), sessions.begin() as session:
        session.execute(text("DELETE FROM companies"))

    assert truth.execute("SELECT tenant_id, company_id FROM people WHERE id = %s", [ada]).fetchone() == (acme.id, None)


def test_ids_tell_nothing_of_how_much_another_tenant_writes(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    """T046: the random part of a UUIDv7 does not count; the time is one's own."""
    first = person_of(acme, "Ada")
    with tenant_scope(globex.id), sessions.begin() as session:
        session.execute(insert(Person), [{"name": "Eve", "email": f"{n}@test.example"} for n in range(1000)])
    second = person_of(acme, "Ann")

    assert (first.version, second.version) == (7, 7)
    assert abs((second.int & (1 << 62) - 1) - (first.int & (1 << 62) - 1)) > 1 << 32


def test_shared_sequence_is_the_price_of_an_integer_id(
    acme: SomeTenant, globex: SomeTenant, sessions: Sessions
) -> None:
    """T046: why UUIDv7 is the default; a retrofitted integer id counts across tenants, and the docs say so."""
    ids = []
    for tenant in (acme, globex, acme):
        with tenant_scope(tenant.id), sessions.begin() as session:
            ids.append(session.scalars(insert(Todo).values(title="x").returning(Todo.id)).one())

    assert ids == sorted(ids)
    with tenant_scope(acme.id), sessions() as session:
        assert session.scalars(select(Todo.id).order_by(Todo.id)).all() == [ids[0], ids[2]]
