"""Values that would be stored where nothing opens them again: refused when they are written, not found when read."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from tenancy.embedded import Server
from tenancy.encryption import EncryptedJSON, SealedValue
from tenancy.encryption.ciphers import Place, seal, unseal
from tenancy.errors import EncryptionError, InvalidCiphertextError
from tenancy.tables import new_id
from tests.tenancy.tenants import ACME
from tests.tenancy.vault import Patient, Vault, Visit, open_vault

CIPHER = AESGCM(bytes(range(32)))


@pytest.fixture
def vault(server: Server, worker: str) -> Iterator[Vault]:
    with open_vault(server, worker) as opened:
        yield opened


def test_id_of_another_type_than_its_columns_is_refused(vault: Vault) -> None:
    """The database takes it and gives it back in the column's type, whose place is another one."""
    spelled: UUID = str(new_id())  # type: ignore[assignment]

    with pytest.raises(EncryptionError, match="str"), vault.acting(ACME) as session:
        session.add(Patient(id=spelled, name="Ada", note="a secret"))

    with vault.acting(ACME) as session:
        assert session.get(Patient, UUID(str(spelled))) is None


def test_number_that_came_as_text_is_refused(vault: Vault) -> None:
    with pytest.raises(EncryptionError, match="str"), vault.acting(ACME) as session:
        session.add(Visit(id="7", reason="a secret"))


def test_value_is_not_sealed_in_bulk_for_an_id_of_another_type(vault: Vault) -> None:
    with pytest.raises(EncryptionError, match="str"), vault.acting(ACME) as session:
        vault.keyring.seal_value(session, Patient.note, str(new_id()), "a secret")


def test_value_selected_from_one_row_is_not_stored_in_another(vault: Vault) -> None:
    ada, eve = vault.add(ACME, "of Ada"), vault.add(ACME, "of Eve")
    with vault.acting(ACME) as session:
        of_ada = SealedValue(vault.stored(ada))
        session.get_one(Patient, eve).note = of_ada  # type: ignore[assignment]
        with pytest.raises(InvalidCiphertextError):
            session.flush()
        session.rollback()

    assert vault.read(ACME, eve) == "of Eve"


def test_value_sealed_for_one_row_is_sealed_anew_for_another(vault: Vault) -> None:
    ada, eve = vault.add(ACME, "of Ada"), vault.add(ACME, "of Eve")
    with vault.acting(ACME) as session:
        session.get_one(Patient, eve).note = vault.keyring.seal_value(session, Patient.note, ada, "new")  # type: ignore[assignment]

    assert vault.read(ACME, eve) == "new"


PLACES = st.builds(
    Place,
    st.uuids(),
    st.text(max_size=12),
    st.lists(st.one_of(st.uuids(), st.text(max_size=6), st.integers(), st.booleans()), max_size=3).map(tuple),
)


@given(PLACES, PLACES, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_what_is_authenticated_differs_with_any_part_of_the_place(
    one: Place, other: Place, version: int, other_version: int
) -> None:
    kinds = [[UUID if isinstance(v, UUID) else str if isinstance(v, str) else int for v in p.row] for p in (one, other)]
    is_same = (one, version, kinds[0]) == (other, other_version, kinds[1])

    assert (one.bound_to(version) == other.bound_to(other_version)) is is_same


@given(st.binary(max_size=64), st.integers(0, 200), st.binary(max_size=3))
def test_sealed_bytes_that_are_cut_or_go_on_do_not_open(clear: bytes, kept: int, more: bytes) -> None:
    place = Place(ACME, "patients.note", (ACME,))
    data = seal(CIPHER, 3, clear, place)
    changed = data[:kept] + more

    if changed == data:
        assert unseal(CIPHER, changed, place) == clear
    else:
        with pytest.raises(InvalidCiphertextError):
            unseal(CIPHER, changed, place)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_anything_that_json_can_say_comes_back_as_it_was(value: Any) -> None:
    kind = EncryptedJSON()

    found = kind.decode(kind.encode(value))

    assert repr(found) == repr(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x", "\ud800", {"\ud800": 1}])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        EncryptedJSON().encode(value)


def test_no_way_around_the_objects_stores_a_value_of_another_row(vault: Vault) -> None:
    """Merge, bulk update, refresh and expunge: what is read afterwards is what was meant, for its own row."""
    ada, eve = vault.add(ACME, "of Ada"), vault.add(ACME, "of Eve")
    with vault.acting(ACME) as session:
        detached = session.get_one(Patient, ada)
        session.expunge(detached)
    with vault.acting(ACME) as session:
        merged = session.merge(detached)
        merged.remark = merged.note
        session.get_one(Patient, eve).note = merged.note
    with vault.acting(ACME) as session:
        patient = session.get_one(Patient, eve)
        patient.note = "unsaved"
        session.refresh(patient)
        assert patient.note == "of Ada"
        session.execute(
            update(Patient)
            .where(Patient.id == eve)
            .values(note=vault.keyring.seal_value(session, Patient.note, eve, "in bulk"))
        )
        assert patient.note == "in bulk"

    assert (vault.read(ACME, ada), vault.read(ACME, eve)) == ("of Ada", "in bulk")
    with vault.acting(ACME) as session:
        assert session.get_one(Patient, ada).remark == "of Ada"


def test_keys_and_ciphers_of_no_other_tenant_are_used_by_many_threads(vault: Vault) -> None:
    tenants = [UUID(int=number) for number in range(1, 7)]

    def work(number: int) -> tuple[str, str]:
        tenant = tenants[number % len(tenants)]
        note = f"of {tenant}"
        if number % 5 == 0:
            vault.keyring.forget(tenant)
        return vault.read(tenant, vault.add(tenant, note)), note

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, range(60)))

    assert [read for read, _ in found] == [note for _, note in found]
    row = vault.truth.execute("SELECT count(*), count(DISTINCT (tenant_id, version)) FROM data_keys").fetchone()
    assert row == (6, 6)
    nonces = vault.truth.execute("SELECT count(DISTINCT substring(note, 6, 12)) FROM patients").fetchone()
    assert nonces == (60,)
