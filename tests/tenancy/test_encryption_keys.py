"""Data keys: made once, kept for a while, rotated under traffic, destroyed for good; and stores that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import ProgrammingError

from tenancy.binding import create_async_tenant_engine
from tenancy.context import tenant_scope
from tenancy.embedded import Server
from tenancy.encryption import MasterKeys
from tenancy.encryption.rotation import (
    Progress,
    count_by_version,
    count_stale,
    destroy_keys,
    encrypted_tables,
    reencrypt,
    rewrap,
)
from tenancy.errors import InvalidCiphertextError, KeyDestroyedError, KeyStoreError
from tenancy.session import async_tenant_sessionmaker
from tenancy.tables import new_id
from tests.conftest import ROLES
from tests.tenancy.vault import Base, DataKey, Letter, Patient, Vault, open_vault

ACME, GLOBEX = UUID(int=0xACE), UUID(int=0x60B)
PATIENTS = Patient.__table__


@pytest.fixture
def vault(server: Server, worker: str) -> Iterator[Vault]:
    with open_vault(server, worker, ttl_s=3600) as opened:
        yield opened


def keys_of(vault: Vault, tenant: UUID = ACME) -> list[tuple[int, bool]]:
    """The versions there are, and whether each was destroyed."""
    rows = vault.truth.execute(
        "SELECT version, wrapped IS NULL FROM data_keys WHERE tenant_id = %s ORDER BY version", [tenant]
    )
    return [(int(row[0]), bool(row[1])) for row in rows]


def rotate(vault: Vault, tenant: UUID = ACME) -> int:
    with vault.as_staff(tenant) as session:
        version = vault.keyring.add_version(session)
        session.commit()
        return version


def finish(vault: Vault, tenant: UUID = ACME, batch_rows: int = 500) -> list[Progress]:
    with vault.as_staff(tenant) as session:
        return list(reencrypt(session, vault.keyring, Base.metadata, batch_rows=batch_rows))


# Making and keeping -----------------------------------------------------------------------------------


def test_first_value_makes_the_first_key_and_the_next_ones_use_it(vault: Vault) -> None:
    vault.add(ACME)
    vault.add(ACME)
    vault.add(GLOBEX)

    assert (keys_of(vault), keys_of(vault, GLOBEX)) == ([(1, False)], [(1, False)])
    assert vault.store.wraps == 2


def test_wrapped_keys_of_two_tenants_differ_and_are_not_the_keys(vault: Vault) -> None:
    vault.add(ACME)
    vault.add(GLOBEX)

    wrapped = [bytes(row[0]) for row in vault.truth.execute("SELECT wrapped FROM data_keys")]
    assert len(set(wrapped)) == 2
    assert [len(one) for one in wrapped] == [60, 60]  # nonce, key and tag


def test_threads_that_need_the_first_key_at_once_make_one(vault: Vault) -> None:
    together = threading.Barrier(6)

    def add(number: int) -> UUID:
        together.wait()
        return vault.add(ACME, f"secret {number}")

    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(add, range(6)))

    assert keys_of(vault) == [(1, False)]
    vault.keyring.forget(ACME)
    assert [vault.read(ACME, one) for one in made] == [f"secret {number}" for number in range(6)]


def test_first_key_that_is_not_committed_yet_is_waited_for(vault: Vault) -> None:
    with ThreadPoolExecutor(1) as threads:
        with vault.acting(ACME) as session:
            session.add(Patient(name="Ada", note="made the key"))
            session.flush()
            waiting = threads.submit(vault.add, ACME, "waited for it")
            time.sleep(0.5)
            assert not waiting.done()
        bob = waiting.result(timeout=10)

    assert keys_of(vault) == [(1, False)]
    assert vault.read(ACME, bob) == "waited for it"


def test_key_of_a_transaction_that_was_rolled_back_seals_nothing_afterwards(vault: Vault) -> None:
    with tenant_scope(ACME), vault.sessions() as session:
        session.add(Patient(name="Ada", note="lost"))
        session.flush()
        session.rollback()
        assert keys_of(vault) == []

        ada = Patient(id=new_id(), name="Ada", note="kept")
        ada_id = ada.id
        session.add(ada)
        session.commit()

    vault.keyring.forget(ACME)
    assert vault.read(ACME, ada_id) == "kept"


def test_key_of_a_savepoint_that_was_rolled_back_seals_nothing_afterwards(vault: Vault) -> None:
    ada, bob = new_id(), new_id()
    with vault.acting(ACME) as session:
        with session.begin_nested() as savepoint:
            session.add(Patient(id=ada, name="Ada", note="lost"))
            session.flush()
            savepoint.rollback()
        session.add(Patient(id=bob, name="Bob", note="kept"))

    vault.keyring.forget(ACME)
    assert keys_of(vault) == [(1, False)]
    assert vault.read(ACME, bob) == "kept"


def test_key_made_before_a_savepoint_is_not_given_to_others_before_the_commit(vault: Vault) -> None:
    with tenant_scope(ACME), vault.sessions() as session:
        session.add(Patient(name="Ada", note="made the key"))
        session.flush()
        with session.begin_nested() as savepoint:
            savepoint.rollback()
        session.add(Patient(name="Bob", note="uses it"))
        session.flush()
        session.rollback()

    eve = vault.add(ACME, "from another session")

    vault.keyring.forget(ACME)
    assert vault.read(ACME, eve) == "from another session"


def test_warm_key_is_asked_of_nobody(vault: Vault) -> None:
    ada = vault.add(ACME)
    vault.read(ACME, ada)
    before = vault.store.unwraps

    for _ in range(5):
        assert vault.read(ACME, ada) == "a secret"
        vault.add(ACME)

    assert vault.store.unwraps == before


def test_key_is_kept_no_longer_than_set(server: Server, worker: str) -> None:
    now = [0.0]
    with open_vault(server, worker, ttl_s=10, clock=lambda: now[0]) as vault:
        ada = vault.add(ACME)
        vault.read(ACME, ada)
        before = vault.store.unwraps

        now[0] = 9.9
        vault.read(ACME, ada)
        assert vault.store.unwraps == before
        now[0] = 10.1
        vault.read(ACME, ada)

        assert vault.store.unwraps == before + 1


def test_keys_of_no_more_tenants_are_kept_than_set(server: Server, worker: str) -> None:
    with open_vault(server, worker, bound=2) as vault:
        tenants = [UUID(int=number) for number in (1, 2, 3)]
        rows = [vault.add(tenant) for tenant in tenants]
        for tenant, row in zip(tenants, rows, strict=True):
            vault.read(tenant, row)
        before = vault.store.unwraps

        vault.read(tenants[2], rows[2])
        assert vault.store.unwraps == before
        vault.read(tenants[0], rows[0])

        assert vault.store.unwraps == before + 1


def test_app_role_adds_keys_and_cannot_change_or_remove_them(vault: Vault) -> None:
    vault.add(ACME)

    for statement in ("UPDATE data_keys SET wrapped = NULL, destroyed_at = now()", "DELETE FROM data_keys"):
        with tenant_scope(ACME), vault.sessions() as session, pytest.raises(ProgrammingError) as refused:
            session.execute(text(statement))
        assert isinstance(refused.value.orig, psycopg.errors.InsufficientPrivilege)
    assert keys_of(vault) == [(1, False)]


def test_keys_of_another_tenant_are_not_seen(vault: Vault) -> None:
    vault.add(ACME)
    vault.add(GLOBEX)

    with vault.acting(ACME) as session:
        assert session.scalars(select(DataKey.tenant_id)).all() == [ACME]
        assert list(vault.keyring.versions(session)) == [1]


# Stores that fail -------------------------------------------------------------------------------------


def test_store_that_is_down_stores_and_shows_nothing(vault: Vault) -> None:
    ada = vault.add(ACME, "before")
    vault.store.is_down = True
    vault.keyring.forget(ACME)

    with pytest.raises(KeyStoreError, match="down"):
        vault.read(ACME, ada)
    for tenant in (ACME, GLOBEX):
        with pytest.raises(KeyStoreError, match="down"):
            vault.add(tenant, "while it is down")

    assert vault.truth.execute("SELECT count(*) FROM patients").fetchone() == (1,)
    assert keys_of(vault, GLOBEX) == []
    vault.store.is_down = False
    assert vault.read(ACME, ada) == "before"


def test_store_that_is_down_does_not_stop_who_has_the_key(vault: Vault) -> None:
    ada = vault.add(ACME)
    vault.read(ACME, ada)

    vault.store.is_down = True

    assert vault.read(ACME, ada) == "a secret"


def test_row_can_be_read_without_its_values_while_the_store_is_down(vault: Vault) -> None:
    ada = vault.add(ACME)
    vault.store.is_down = True
    vault.keyring.forget(ACME)

    with vault.acting(ACME) as session:
        found = session.get_one(Patient, ada)
        assert found.name == "Ada"
        found.name = "Ada L."

    vault.store.is_down = False
    assert vault.read(ACME, ada) == "a secret"


def test_master_key_that_is_gone_is_named(vault: Vault) -> None:
    ada = vault.add(ACME)
    vault.store.keys = MasterKeys.generate("second")
    vault.keyring.forget(ACME)

    with pytest.raises(KeyStoreError, match="no master key 'first'"):
        vault.read(ACME, ada)


def test_other_key_under_the_same_id_opens_nothing(vault: Vault) -> None:
    ada = vault.add(ACME)
    vault.store.keys = MasterKeys.generate("first")
    vault.keyring.forget(ACME)

    with pytest.raises(KeyStoreError, match="does not open the data key"):
        vault.read(ACME, ada)


def test_value_under_a_key_whose_row_is_lost_is_refused(vault: Vault) -> None:
    ada = vault.add(ACME)
    vault.truth.execute("DELETE FROM data_keys")
    vault.keyring.forget(ACME)

    with pytest.raises(InvalidCiphertextError, match="no data key of version 1"):
        vault.read(ACME, ada)


# Rotation ---------------------------------------------------------------------------------------------


def test_tables_to_rotate_come_from_the_models() -> None:
    assert [table.name for table in encrypted_tables(Base.metadata)] == ["patients", "visits", "letters"]


def test_both_versions_open_while_a_rotation_is_under_way(vault: Vault) -> None:
    old = vault.add(ACME, "old")

    assert rotate(vault) == 2
    new = vault.add(ACME, "new")

    assert (vault.stored(old)[4], vault.stored(new)[4]) == (1, 2)
    assert (vault.read(ACME, old), vault.read(ACME, new)) == ("old", "new")


def test_every_value_of_every_table_is_sealed_anew(vault: Vault) -> None:
    ada = vault.add(ACME, "note", remark="remark", results={"iron": 1})
    empty = vault.add(ACME, None)
    with vault.acting(ACME) as session:
        session.add(Letter(id=ada, body="letter"))
    other = vault.add(GLOBEX, "Globex's")
    theirs = vault.stored(other)
    rotate(vault)

    finish(vault)

    with vault.acting(ACME) as session:
        found = session.get_one(Patient, ada)
        assert (found.note, found.remark, found.results) == ("note", "remark", {"iron": 1})
        assert session.get_one(Letter, ada).body == "letter"
        assert {t.name: count_by_version(session, t) for t in encrypted_tables(Base.metadata)} == {
            "patients": {2: 3},
            "visits": {},
            "letters": {2: 1},
        }
    assert vault.read(ACME, empty) is None
    assert vault.stored(other) == theirs


def test_rotation_that_was_stopped_goes_on_where_it_was(vault: Vault) -> None:
    made = [vault.add(ACME, f"secret {number}") for number in range(7)]
    rotate(vault)
    with vault.as_staff(ACME) as session:
        stopped = reencrypt(session, vault.keyring, Base.metadata, batch_rows=3)
        assert next(stopped) == Progress("patients", done=3, left=4)
        stopped.close()
    with vault.acting(ACME) as session:
        assert count_by_version(session, PATIENTS) == {1: 4, 2: 3}  # type: ignore[arg-type]

    told = finish(vault, batch_rows=3)

    assert [(one.done, one.left) for one in told if one.table == "patients"] == [(3, 1), (4, 0), (4, 0)]
    assert [vault.read(ACME, one) for one in made] == [f"secret {number}" for number in range(7)]


def test_row_that_somebody_holds_is_waited_for_and_keeps_their_change(vault: Vault) -> None:
    ada, bob = vault.add(ACME, "first"), vault.add(ACME, "Bob's")
    rotate(vault)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with vault.acting(ACME) as session:
            session.get_one(Patient, ada).note = "second"
            session.flush()
            held.set()
            done.wait(0.8)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    finish(vault)
    holder.join()

    assert (vault.read(ACME, ada), vault.read(ACME, bob)) == ("second", "Bob's")
    assert (vault.stored(ada)[4], vault.stored(bob)[4]) == (2, 2)


def test_damaged_row_is_counted_and_does_not_stop_the_others(vault: Vault) -> None:
    ada, bob = vault.add(ACME, "Ada's"), vault.add(ACME, "Bob's")
    rotate(vault)
    vault.truth.execute("UPDATE patients SET note = (SELECT note FROM patients WHERE id = %s)", [ada])

    told = finish(vault, batch_rows=1)

    assert told[1] == Progress("patients", done=1, left=1, unreadable=1)
    assert vault.read(ACME, ada) == "Ada's"
    with pytest.raises(InvalidCiphertextError):
        vault.read(ACME, bob)


def test_process_that_still_seals_with_the_old_key_is_caught_up_with(vault: Vault) -> None:
    vault.add(ACME)
    other = vault.another()
    sessions = vault.sessions
    with vault.acting(ACME) as session:
        other.warm(session)
    rotate(vault)
    finish(vault)

    with tenant_scope(ACME), sessions.begin() as session:
        late = new_id()
        value = other.seal_value(session, Patient.note, late, "late")
        session.execute(PATIENTS.insert().values(tenant_id=ACME, id=late, name="x", note=value))  # type: ignore[attr-defined]
    with vault.acting(ACME) as session:
        assert count_stale(session, PATIENTS, 2) == 1  # type: ignore[arg-type]
    assert vault.read(ACME, late) == "late"
    finish(vault)

    assert vault.stored(late)[4] == 2
    assert vault.read(ACME, late) == "late"


def test_process_that_does_not_know_the_new_key_reads_it_when_it_meets_it(vault: Vault) -> None:
    vault.add(ACME)
    other = vault.another()
    with vault.acting(ACME) as session:
        other.warm(session)
    rotate(vault)
    ada = vault.add(ACME, "under the new key")

    with vault.acting(ACME) as session:
        value = session.scalars(select(Patient.note).where(Patient.id == ada)).one()
        assert other.open_value(session, Patient.note, ada, value) == "under the new key"


# The master key ---------------------------------------------------------------------------------------


def test_old_master_key_may_go_after_every_data_key_was_wrapped_anew(vault: Vault) -> None:
    ada = vault.add(ACME)
    rotate(vault)
    before = vault.stored(ada)
    vault.store.keys = vault.store.keys.with_new("second")

    with vault.as_staff(ACME) as session:
        assert rewrap(session, vault.keyring) == 2
        assert rewrap(session, vault.keyring) == 0
        session.commit()
    vault.store.keys = MasterKeys("second", {"second": vault.store.keys.keys["second"]})
    vault.keyring.forget(ACME)

    assert vault.read(ACME, ada) == "a secret"
    assert vault.stored(ada) == before


def test_master_key_that_fails_midway_changes_nothing(vault: Vault) -> None:
    ada = vault.add(ACME)
    rotate(vault)
    rows = vault.truth.execute("SELECT master_key_id, wrapped FROM data_keys ORDER BY version").fetchall()
    vault.store.keys = vault.store.keys.with_new("second")
    vault.truth.execute("UPDATE data_keys SET master_key_id = 'gone' WHERE version = 2")

    with vault.as_staff(ACME) as session, pytest.raises(KeyStoreError, match="no master key 'gone'"):
        rewrap(session, vault.keyring)

    vault.truth.execute("UPDATE data_keys SET master_key_id = 'first' WHERE version = 2")
    assert vault.truth.execute("SELECT master_key_id, wrapped FROM data_keys ORDER BY version").fetchall() == rows
    assert vault.read(ACME, ada) == "a secret"


# Shredding --------------------------------------------------------------------------------------------


def shred(vault: Vault, tenant: UUID = ACME) -> int:
    with vault.as_staff(tenant) as session:
        found = destroy_keys(session, vault.keyring)
        session.commit()
        return found


def test_nothing_opens_after_the_keys_were_destroyed(vault: Vault) -> None:
    ada = vault.add(ACME)
    rotate(vault)
    bob, other = vault.add(ACME), vault.add(GLOBEX)
    assert vault.read(ACME, ada) == vault.read(ACME, bob) == "a secret"

    assert shred(vault) == 2

    for row in (ada, bob):
        with pytest.raises(KeyDestroyedError):
            vault.read(ACME, row)
    assert keys_of(vault) == [(1, True), (2, True)]
    assert vault.read(GLOBEX, other) == "a secret"


def test_nothing_is_sealed_after_the_keys_were_destroyed(vault: Vault) -> None:
    vault.add(ACME)
    shred(vault)

    for act in (lambda: vault.add(ACME), lambda: rotate(vault), lambda: shred(vault), lambda: finish(vault)):
        with pytest.raises(KeyDestroyedError):
            act()
    assert vault.truth.execute("SELECT count(*) FROM patients").fetchone() == (1,)


def test_tenant_without_keys_gets_none_after_its_keys_were_destroyed(vault: Vault) -> None:
    vault.store.is_down = True

    assert shred(vault) == 0

    vault.store.is_down = False
    with pytest.raises(KeyDestroyedError):
        vault.add(ACME)


def test_key_that_is_made_while_the_others_are_destroyed_does_not_count(vault: Vault) -> None:
    ada = vault.add(ACME)
    shred(vault)
    vault.truth.execute(
        "INSERT INTO data_keys (tenant_id, id, version, master_key_id, wrapped)"
        " SELECT tenant_id, gen_random_uuid(), 2, 'first', '\\x00' FROM data_keys"
    )
    vault.keyring.forget(ACME)

    with pytest.raises(KeyDestroyedError):
        vault.read(ACME, ada)
    with pytest.raises(KeyDestroyedError):
        vault.add(ACME)


def test_rows_can_be_read_and_removed_after_the_keys_were_destroyed(vault: Vault) -> None:
    ada = vault.add(ACME)
    shred(vault)

    with vault.acting(ACME) as session:
        found = session.get_one(Patient, ada)
        assert found.name == "Ada"
        session.delete(found)

    assert vault.truth.execute("SELECT count(*) FROM patients").fetchone() == (0,)


def test_process_with_the_key_unwrapped_lets_go_of_it_in_time(server: Server, worker: str) -> None:
    now = [0.0]
    with open_vault(server, worker, ttl_s=10, clock=lambda: now[0]) as vault:
        ada = vault.add(ACME)
        vault.read(ACME, ada)
        vault.truth.execute("UPDATE data_keys SET wrapped = NULL, destroyed_at = now()")  # by another process
        assert vault.read(ACME, ada) == "a secret"

        now[0] = 10.1

        with pytest.raises(KeyDestroyedError):
            vault.read(ACME, ada)


# Asynchronous sessions --------------------------------------------------------------------------------


async def test_warmed_keys_serve_an_asynchronous_session(vault: Vault) -> None:
    ada = vault.add(ACME, "a secret")
    vault.keyring.forget(ACME)
    engine = create_async_tenant_engine(vault.database.url(ROLES.app))
    sessions = async_tenant_sessionmaker(engine)
    vault.keyring.serve(sessions)

    with tenant_scope(ACME):
        async with sessions() as session:
            await session.run_sync(vault.keyring.warm)
            assert (await session.get_one(Patient, ada)).note == "a secret"
            bob = Patient(id=new_id(), name="Bob", note="another")
            bob_id = bob.id
            session.add(bob)
            await session.commit()

    await engine.dispose()
    assert vault.read(ACME, bob_id) == "another"
