"""Values that would be stored where nothing opens them again: refused when they are written, not found when read."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from tenancy.embedded import Server
from tenancy.encryption import SealedValue
from tenancy.errors import EncryptionError, InvalidCiphertextError
from tenancy.tables import new_id
from tests.tenancy.tenants import ACME
from tests.tenancy.vault import Patient, Vault, Visit, open_vault


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
