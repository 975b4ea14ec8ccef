"""Encrypted columns on real rows: sealed in the table, plain in the object, and nowhere else."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, null, select, update
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import make_transient

from tenancy.context import platform_scope, tenant_scope
from tenancy.embedded import Server
from tenancy.encryption import SealedValue, encrypted_column
from tenancy.errors import EncryptionError, InvalidCiphertextError, ModelError, NoTenantError, WrongTenantError
from tenancy.session import platform_sessionmaker, tenant_sessionmaker
from tenancy.tables import new_id
from tests.conftest import ROLES
from tests.tenancy.vault import Letter, Patient, Vault, Visit, open_vault

ACME, GLOBEX = UUID(int=0xACE), UUID(int=0x60B)


@pytest.fixture
def vault(server: Server, worker: str) -> Iterator[Vault]:
    with open_vault(server, worker) as opened:
        yield opened


def test_value_is_sealed_in_the_table_and_plain_in_the_object(vault: Vault) -> None:
    ada = vault.add(ACME, "allergic to engines", results={"iron": [4.5, None, "ü"]})

    with vault.acting(ACME) as session:
        found = session.get_one(Patient, ada)
        assert (found.note, found.remark, found.results) == ("allergic to engines", None, {"iron": [4.5, None, "ü"]})
    assert b"allergic" not in vault.stored(ada)
    assert len(vault.stored(ada)) == 33 + len("allergic to engines")
    assert vault.stored(ada)[:5] == b"\x01\x00\x00\x00\x01"


@pytest.mark.parametrize("note", ["", "é\U0001f510", "x" * 100_000])
def test_any_text_comes_back_as_it_was(vault: Vault, note: str) -> None:
    ada = vault.add(ACME, note)

    assert vault.read(ACME, ada) == note


def test_equal_values_are_sealed_differently(vault: Vault) -> None:
    one, two = vault.add(ACME, "same"), vault.add(ACME, "same")

    assert vault.stored(one)[17:] != vault.stored(two)[17:]


def test_null_is_stored_as_null(vault: Vault) -> None:
    ada, bob = vault.add(ACME, None), vault.add(ACME, "a secret")

    with vault.acting(ACME) as session:
        assert session.scalars(select(Patient.id).where(Patient.note.is_(None))).all() == [ada]
        assert session.scalars(select(Patient.id).where(Patient.note != null())).all() == [bob]


# Moved values -----------------------------------------------------------------------------------------


def swap(vault: Vault, statement: str, *ids: UUID) -> None:
    """Move values as the role that owns the tables can, past the policies."""
    with vault.database.connect(ROLES.migrator) as owner:
        owner.execute(f"SET ROLE {ROLES.owner}".encode())
        for table in ("patients", "letters"):
            owner.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY".encode())
        assert owner.execute(statement.encode(), ids).rowcount > 0
        for table in ("patients", "letters"):
            owner.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY".encode())


def test_value_moved_to_another_row_does_not_open(vault: Vault) -> None:
    ada, bob = vault.add(ACME, "Ada's"), vault.add(ACME, "Bob's")
    assert (vault.read(ACME, ada), vault.read(ACME, bob)) == ("Ada's", "Bob's")

    swap(vault, "UPDATE patients a SET note = b.note FROM patients b WHERE a.id = %s AND b.id = %s", ada, bob)

    with pytest.raises(InvalidCiphertextError, match=r"patients\.note"):
        vault.read(ACME, ada)
    assert vault.read(ACME, bob) == "Bob's"


def test_value_moved_to_another_column_does_not_open(vault: Vault) -> None:
    ada = vault.add(ACME, "in the note", remark="in the remark")

    swap(vault, "UPDATE patients SET note = remark, remark = note WHERE id = %s", ada)

    with vault.acting(ACME) as session:
        found = session.get_one(Patient, ada)
        for read in (lambda: found.note, lambda: found.remark):
            with pytest.raises(InvalidCiphertextError):
                read()


def test_value_moved_to_another_table_does_not_open(vault: Vault) -> None:
    ada = vault.add(ACME, None, remark="in a patient")
    with vault.acting(ACME) as session:
        session.add(Letter(id=ada, body="in a letter"))  # the same tenant, and the same id
    with vault.acting(ACME) as session:
        assert session.get_one(Letter, ada).body == "in a letter"

    swap(vault, "UPDATE letters l SET body = p.remark FROM patients p WHERE p.id = l.id AND p.id = %s", ada)

    with vault.acting(ACME) as session, pytest.raises(InvalidCiphertextError):
        _ = session.get_one(Letter, ada).body


def test_value_moved_to_another_tenant_does_not_open(vault: Vault) -> None:
    ada = vault.add(ACME, "ACME's")
    with vault.acting(GLOBEX) as session:
        session.add(Patient(id=ada, name="Ada", note="Globex's"))
    assert vault.read(GLOBEX, ada) == "Globex's"

    statement = "UPDATE patients g SET note = a.note FROM patients a WHERE a.id = g.id AND a.tenant_id <> g.tenant_id"
    swap(vault, statement + " AND g.id = %s AND g.tenant_id = %s", ada, GLOBEX)

    with pytest.raises(InvalidCiphertextError):
        vault.read(GLOBEX, ada)
    assert vault.read(ACME, ada) == "ACME's"


def test_data_key_moved_to_another_tenant_does_not_unwrap(vault: Vault) -> None:
    ada, bob = vault.add(ACME), vault.add(GLOBEX)
    assert (vault.read(ACME, ada), vault.read(GLOBEX, bob)) == ("a secret", "a secret")

    vault.truth.execute("UPDATE data_keys SET wrapped = (SELECT wrapped FROM data_keys WHERE tenant_id = %s)", [ACME])
    vault.keyring.forget(ACME)
    vault.keyring.forget(GLOBEX)

    assert vault.read(ACME, ada) == "a secret"
    with pytest.raises(EncryptionError, match="does not open the data key"):
        vault.read(GLOBEX, bob)


@pytest.mark.parametrize("place", [0, 2, 10, 20, -1])
def test_changed_byte_does_not_open(vault: Vault, place: int) -> None:
    ada = vault.add(ACME)
    assert vault.read(ACME, ada) == "a secret"
    data = bytearray(vault.stored(ada))

    data[place] ^= 1
    vault.truth.execute("UPDATE patients SET note = %s WHERE id = %s", [bytes(data), ada])

    with pytest.raises(InvalidCiphertextError):
        vault.read(ACME, ada)


def test_value_that_was_stored_plain_is_refused_and_not_shown(vault: Vault) -> None:
    ada = vault.add(ACME)
    vault.truth.execute(
        "UPDATE patients SET note = %s WHERE id = %s", [b"a plain text of some forty bytes in length", ada]
    )

    with pytest.raises(InvalidCiphertextError) as refused:
        vault.read(ACME, ada)

    assert "plain text" not in str(refused.value)


# What an object goes through --------------------------------------------------------------------------


def test_changed_value_is_sealed_anew_and_an_equal_one_is_not(vault: Vault) -> None:
    ada = vault.add(ACME, "first")
    before = vault.stored(ada)

    with vault.acting(ACME) as session:
        found = session.get_one(Patient, ada)
        assert found.note == "first"
        found.note = "first"
        found.name = "Ada L."
    unchanged = vault.stored(ada)
    with vault.acting(ACME) as session:
        session.get_one(Patient, ada).note = "second"

    assert unchanged == before
    assert vault.stored(ada) != before
    assert vault.read(ACME, ada) == "second"


def test_value_can_be_cleared(vault: Vault) -> None:
    ada = vault.add(ACME)

    with vault.acting(ACME) as session:
        session.get_one(Patient, ada).note = None

    assert vault.read(ACME, ada) is None


def test_value_survives_refresh_expire_and_rollback(vault: Vault) -> None:
    ada = vault.add(ACME, "stored")
    with tenant_scope(ACME), vault.sessions() as session:
        found = session.get_one(Patient, ada)

        found.note = "not stored"
        assert found.note == "not stored"
        session.refresh(found)
        assert found.note == "stored"
        found.note = "not stored either"
        session.flush()
        session.rollback()
        assert found.note == "stored"
        session.expire(found)
        assert found.note == "stored"


@pytest.mark.parametrize("opened", [True, False])
def test_value_survives_merge(vault: Vault, opened: bool) -> None:
    ada = vault.add(ACME, "stored")
    with tenant_scope(ACME):
        with vault.sessions() as first:
            detached = first.get_one(Patient, ada)
            if opened:
                assert detached.note == "stored"
        detached.name = "Ada L."

        with vault.sessions.begin() as second:
            merged = second.merge(detached)
            assert merged.note == "stored"

    assert vault.read(ACME, ada) == "stored"


def test_value_set_on_a_detached_object_is_sealed_by_the_session_it_is_merged_into(vault: Vault) -> None:
    ada = vault.add(ACME, "stored")
    with tenant_scope(ACME):
        with vault.sessions() as first:
            detached = first.get_one(Patient, ada)
        detached.note = "changed"

        with vault.sessions.begin() as second:
            second.merge(detached)

    assert vault.read(ACME, ada) == "changed"


def test_copy_of_a_value_is_sealed_for_its_new_row(vault: Vault) -> None:
    ada = vault.add(ACME, "shared")

    with vault.acting(ACME) as session:
        bob = Patient(id=new_id(), name="Bob", note=session.get_one(Patient, ada).note)
        session.add(bob)
        bob_id = bob.id

    assert vault.read(ACME, bob_id) == "shared"
    assert vault.stored(bob_id) != vault.stored(ada)


@pytest.mark.parametrize("opened", [True, False])
def test_object_made_into_another_row_takes_its_value_along_or_is_refused(vault: Vault, opened: bool) -> None:
    ada = vault.add(ACME, "shared")
    with tenant_scope(ACME), vault.sessions() as session:
        found = session.get_one(Patient, ada)
        if opened:
            assert found.note == "shared"
        make_transient(found)
        found.id = bob = new_id()
        session.add(found)
        if not opened:
            with pytest.raises(InvalidCiphertextError):
                session.flush()
            return
        session.commit()

    assert vault.read(ACME, bob) == "shared"


def test_object_that_is_added_again_after_a_rollback_does_not_keep_the_key_that_is_gone(vault: Vault) -> None:
    with tenant_scope(ACME), vault.sessions() as session:
        ada = Patient(id=new_id(), name="Ada", note="a secret")
        ada_id = ada.id
        session.add(ada)
        session.flush()
        session.rollback()
        vault.keyring.forget(ACME)

        session.add(ada)
        session.commit()

    assert vault.read(ACME, ada_id) == "a secret"


def test_id_that_the_model_makes_is_made_before_the_value_is_sealed(vault: Vault) -> None:
    with vault.acting(ACME) as session:
        session.add(Patient(name="Ada", note="a secret"))

    with vault.acting(ACME) as session:
        assert session.scalars(select(Patient)).one().note == "a secret"


def test_row_whose_id_the_server_makes_is_refused_unless_it_is_given(vault: Vault) -> None:
    with tenant_scope(ACME), vault.sessions() as session:
        session.add(Visit(reason="a secret"))
        with pytest.raises(EncryptionError, match="whose key the server will make"):
            session.flush()
    with vault.acting(ACME) as session:
        session.add(Visit(id=7, reason="a secret"))
    with vault.acting(ACME) as session:
        assert session.get_one(Visit, 7).reason == "a secret"
    assert vault.truth.execute("SELECT count(*) FROM visits").fetchone() == (1,)


def test_column_that_was_renamed_opens_by_its_old_label(vault: Vault) -> None:
    ada = vault.add(ACME, "written under the old name")
    with vault.acting(ACME) as session:
        session.add(Letter(id=ada, body="x"))

    swap(vault, "UPDATE letters l SET body = p.note FROM patients p WHERE p.id = l.id AND p.id = %s", ada)

    with vault.acting(ACME) as session:
        assert session.get_one(Letter, ada).body == "written under the old name"


def test_value_is_not_opened_after_its_object_left_the_session(vault: Vault) -> None:
    ada = vault.add(ACME)
    with tenant_scope(ACME), vault.sessions() as session:
        found = session.get_one(Patient, ada)

    with tenant_scope(ACME), pytest.raises(EncryptionError, match="has left its session"):
        _ = found.note


def test_session_without_a_keyring_neither_stores_nor_shows(vault: Vault) -> None:
    ada = vault.add(ACME)
    bare = tenant_sessionmaker(vault.sessions.kw["bind"])
    with tenant_scope(ACME), bare() as session:
        session.add(Patient(name="Bob", note="a secret"))
        with pytest.raises(EncryptionError, match="no keyring"):
            session.flush()
    with tenant_scope(ACME), bare() as session, pytest.raises(EncryptionError, match="no keyring"):
        _ = session.get_one(Patient, ada).note


def test_pickled_value_carries_nothing_plain(vault: Vault) -> None:
    ada = vault.add(ACME, "a secret")
    with vault.acting(ACME) as session:
        found = session.get_one(Patient, ada)
        assert found.note == "a secret"

        assert b"a secret" not in pickle.dumps(found.__dict__["note"])
        assert "a secret" not in repr(found.__dict__)
    with pytest.raises(EncryptionError, match="not sealed yet"):
        pickle.dumps(SealedValue(clear=b"a secret"))


# Scopes -----------------------------------------------------------------------------------------------


def test_value_of_another_tenant_is_not_opened_even_from_memory(vault: Vault) -> None:
    ada = vault.add(ACME)
    assert vault.read(GLOBEX, vault.add(GLOBEX)) == "a secret"  # so that its key is warm, and nothing has to be read
    with tenant_scope(ACME), vault.sessions() as session:
        found = session.get_one(Patient, ada)

        with tenant_scope(GLOBEX), pytest.raises(WrongTenantError):
            _ = found.note

        assert found.note == "a secret"


def test_platform_session_across_tenants_opens_nothing(vault: Vault) -> None:
    ada = vault.add(ACME)
    across = platform_sessionmaker(vault.staff.kw["bind"])
    vault.keyring.serve(across)  # type: ignore[arg-type]

    with platform_scope(actor="ana", reason="look"), across() as session:
        found = session.get_one(Patient, (ACME, ada))
        with pytest.raises(NoTenantError):
            _ = found.note
    with vault.as_staff(ACME) as session:
        assert session.get_one(Patient, ada).note == "a secret"


# Statements -------------------------------------------------------------------------------------------


def statements(ada: UUID) -> dict[str, Any]:
    row = {"id": new_id(), "name": "Bob", "note": "plain"}
    return {
        "core insert": (insert(Patient.__table__).values(tenant_id=ACME, **row), None),
        "many rows by core": (insert(Patient.__table__), [row | {"tenant_id": ACME}] * 2),
        "orm insert": (insert(Patient), [row]),
        "orm insert of values": (insert(Patient).values(row), None),
        "update": (update(Patient).values(note="plain"), None),
        "update by key": (update(Patient), [{"id": ada, "tenant_id": ACME, "note": "plain"}]),
        "core update": (update(Patient.__table__).values(note="plain"), None),
    }


@pytest.mark.parametrize("name", statements(ACME))
def test_plain_value_in_a_statement_is_refused(vault: Vault, name: str) -> None:
    ada = vault.add(ACME, "before")
    statement, parameters = statements(ada)[name]

    with tenant_scope(ACME), vault.sessions() as session:
        with pytest.raises((EncryptionError, StatementError), match="does not know the row"):
            session.execute(statement, parameters)
        session.rollback()

    assert vault.read(ACME, ada) == "before"
    assert vault.truth.execute("SELECT count(*) FROM patients").fetchone() == (1,)


def test_bulk_saved_object_is_refused(vault: Vault) -> None:
    refused = pytest.raises((EncryptionError, StatementError), match="does not know the row")
    with tenant_scope(ACME), vault.sessions() as session, refused:
        session.bulk_save_objects([Patient(id=new_id(), name="Ada", note="plain")])


def test_value_sealed_for_a_row_can_be_stored_in_bulk(vault: Vault) -> None:
    ids = [new_id() for _ in range(3)]

    with vault.acting(ACME) as session:
        rows = [
            {"id": one, "name": "x", "note": vault.keyring.seal_value(session, Patient.note, one, f"secret {number}")}
            for number, one in enumerate(ids)
        ]
        session.execute(insert(Patient), rows)

    assert [vault.read(ACME, one) for one in ids] == ["secret 0", "secret 1", "secret 2"]


def test_selected_column_is_opened_for_the_row_it_came_from_only(vault: Vault) -> None:
    ada, bob = vault.add(ACME, "Ada's"), vault.add(ACME, "Bob's")

    with vault.acting(ACME) as session:
        value = session.scalars(select(Patient.note).where(Patient.id == ada)).one()

        assert isinstance(value, SealedValue)
        assert repr(value) == "<SealedValue>"
        assert vault.keyring.open_value(session, Patient.note, ada, value) == "Ada's"
        with pytest.raises(InvalidCiphertextError):
            vault.keyring.open_value(session, Patient.note, bob, value)
        with pytest.raises(InvalidCiphertextError):
            vault.keyring.open_value(session, Patient.remark, ada, value)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Patient.note == "x",
        lambda: Patient.note != "x",
        lambda: Patient.note.in_(["x"]),
        lambda: Patient.note.like("%x%"),
        lambda: Patient.note > "x",
        lambda: Patient.note + "x",
        lambda: Patient.note.desc(),
        lambda: Patient.results["iron"],
        lambda: Patient.note == Patient.remark,
    ],
)
def test_question_about_the_value_is_refused(ask: Any) -> None:
    with pytest.raises(EncryptionError, match="cannot be asked for"):
        ask()


# Declarations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["default", "server_default", "onupdate", "index", "unique", "primary_key"])
def test_option_that_would_need_the_value_is_refused(option: str) -> None:
    with pytest.raises(ModelError, match=option):
        encrypted_column(**{option: "x"})


def test_value_of_another_kind_is_refused_when_it_is_assigned() -> None:
    with tenant_scope(ACME):
        with pytest.raises(TypeError, match="must be a str, not int"):
            Patient(note=7)
        with pytest.raises(TypeError):
            Patient(results={"a": object()})
        with pytest.raises(ValueError, match="JSON compliant"):
            Patient(results={"a": float("nan")})
