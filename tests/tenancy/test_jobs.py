"""Envelopes: what a job carries opens for what it was sealed for, and for nothing else."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID

import pytest

from tenancy import account_scope, current_tenant, platform_scope, tenant_scope
from tenancy.context import current_account, current_scope
from tenancy.directory import TenantRecord
from tenancy.errors import (
    ConfigurationError,
    DirectoryError,
    DiscardedJobError,
    EnvelopeRefusedError,
    NoTenantError,
    ParkedJobError,
    PlatformAccessError,
)
from tenancy.jobs import Carrier, Standing, run_carried, standing_of
from tests.tenancy.directories import ACME, DORMANT, GLOBEX, GONE, ListedDirectory, SilentDirectory

OLD, NEW = b"o" * 32, b"n" * 32
ANA = UUID("0197c1a2-0000-7000-8000-0000000000aa")
DELETED = TenantRecord(UUID("0197c1a2-0000-7000-8000-00000000000e"), "deleted", "Deleted", "deleted")
DELETING = TenantRecord(UUID("0197c1a2-0000-7000-8000-00000000000f"), "deleting", "Deleting", "deleting")
PENDING = TenantRecord(UUID("0197c1a2-0000-7000-8000-0000000000bb"), "pending", "Pending", "pending")
DIRECTORY = ListedDirectory(ACME, GLOBEX, DORMANT, GONE, DELETED, DELETING, PENDING)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def carrier(clock: Clock) -> Carrier:
    return Carrier({"old": OLD, "new": NEW}, signing="new", life_s=60, leeway_s=5, clock=clock)


@pytest.fixture
def envelope(carrier: Carrier) -> str:
    with tenant_scope(ACME.id, ANA):
        return carrier.carry("cards.resize", arguments={"id": 7}, actor="ana")


def test_envelope_says_who_asked_for_what(carrier: Carrier, envelope: str) -> None:
    carried = carrier.open(envelope, task="cards.resize", arguments={"id": 7})

    assert (carried.tenant, carried.account, carried.actor, carried.task) == (ACME.id, ANA, "ana", "cards.resize")
    assert (carried.issued_at, carried.expires_at) == (1_000_000, 1_000_060)


def test_envelope_opens_after_the_scope_has_ended(carrier: Carrier, envelope: str) -> None:
    assert current_scope() is None

    assert carrier.open(envelope, task="cards.resize", arguments={"id": 7}).tenant == ACME.id


def test_order_of_named_arguments_makes_no_difference(carrier: Carrier) -> None:
    with tenant_scope(ACME.id):
        envelope = carrier.carry("a.b", arguments={"x": 1, "y": [2, 3]})

    assert carrier.open(envelope, task="a.b", arguments={"y": [2, 3], "x": 1}).tenant == ACME.id


def test_envelope_for_another_task_is_refused(carrier: Carrier, envelope: str) -> None:
    """T120"""
    with pytest.raises(EnvelopeRefusedError, match=r"an envelope for 'cards\.resize' came with 'cards\.remove'"):
        carrier.open(envelope, task="cards.remove", arguments={"id": 7})


@pytest.mark.parametrize("arguments", [{"id": 8}, {"id": "7"}, {}, None, {"id": 7, "all": True}, [7]])
def test_envelope_for_other_arguments_is_refused(carrier: Carrier, envelope: str, arguments: object) -> None:
    """T120"""
    with pytest.raises(EnvelopeRefusedError, match="other arguments"):
        carrier.open(envelope, task="cards.resize", arguments=arguments)


def test_expired_envelope_is_refused(carrier: Carrier, envelope: str, clock: Clock) -> None:
    """T120"""
    clock.now += 59
    assert carrier.open(envelope, task="cards.resize", arguments={"id": 7}).tenant == ACME.id
    clock.now += 1

    with pytest.raises(EnvelopeRefusedError, match="expired"):
        carrier.open(envelope, task="cards.resize", arguments={"id": 7})


def test_envelope_from_the_future_is_refused_beyond_the_leeway(carrier: Carrier, envelope: str, clock: Clock) -> None:
    clock.now -= 5
    assert carrier.open(envelope, task="cards.resize", arguments={"id": 7}).tenant == ACME.id
    clock.now -= 1

    with pytest.raises(EnvelopeRefusedError, match="future"):
        carrier.open(envelope, task="cards.resize", arguments={"id": 7})


@pytest.mark.parametrize(
    "field", ["v", "kid", "tenant", "account", "actor", "task", "arguments", "issued_at", "expires_at"]
)
def test_altered_field_is_refused(carrier: Carrier, envelope: str, field: str) -> None:
    """T120"""
    other = {"tenant": str(GLOBEX.id), "kid": "old", "v": 2, "issued_at": 1_000_001, "expires_at": 9_000_000}

    altered = with_field(envelope, field, other.get(field, "x"))

    with pytest.raises(EnvelopeRefusedError):
        carrier.open(altered, task="cards.resize", arguments={"id": 7})


def with_field(envelope: str, field: str, value: Any) -> str:
    body, _, signature = envelope.partition(".")
    says = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    says[field] = value
    text = json.dumps(says, sort_keys=True, separators=(",", ":")).encode()
    return f"{base64.urlsafe_b64encode(text).rstrip(b'=').decode()}.{signature}"


@pytest.mark.parametrize(
    "forged",
    [None, "", ".", "x", "x.y", 7, b"x.y", {}, "e30.AAAA", "bnVsbA.AAAA", "W10.", "é.é", "x" * 10_000, "[" * 9_000],
)
def test_what_is_no_envelope_is_refused(carrier: Carrier, forged: object) -> None:
    """T120"""
    with pytest.raises(EnvelopeRefusedError):
        carrier.open(forged, task="cards.resize", arguments={"id": 7})


@pytest.mark.parametrize("change", ["cut", "longer", "none", "padded", "case"])
def test_changed_signature_is_refused(carrier: Carrier, envelope: str, change: str) -> None:
    """T120"""
    body, _, signature = envelope.partition(".")
    changed = {
        "cut": signature[:-1],
        "longer": signature + "A",
        "none": "",
        "padded": signature + "=",
        "case": signature.swapcase(),
    }[change]

    with pytest.raises(EnvelopeRefusedError, match="not signed by a key that is known"):
        carrier.open(f"{body}.{changed}", task="cards.resize", arguments={"id": 7})


def test_envelope_of_another_installation_is_refused(envelope: str, clock: Clock) -> None:
    """T120"""
    theirs = Carrier({"new": b"x" * 32}, signing="new", clock=clock)

    with pytest.raises(EnvelopeRefusedError, match="not signed by a key that is known"):
        theirs.open(envelope, task="cards.resize", arguments={"id": 7})


def test_rotated_key_opens_what_it_sealed_until_it_is_taken_away(clock: Clock) -> None:
    before = Carrier({"old": OLD}, signing="old", clock=clock)
    during = Carrier({"old": OLD, "new": NEW}, signing="new", clock=clock)
    after = Carrier({"new": NEW}, signing="new", clock=clock)
    with tenant_scope(ACME.id):
        old, new = before.carry("a.b"), during.carry("a.b")

    assert during.open(old, task="a.b").tenant == ACME.id
    assert after.open(new, task="a.b").tenant == ACME.id
    with pytest.raises(EnvelopeRefusedError):
        after.open(old, task="a.b")


def test_renewed_envelope_says_the_same_for_another_life(carrier: Carrier, envelope: str, clock: Clock) -> None:
    clock.now += 1_000

    renewed = carrier.renew(envelope, task="cards.resize", arguments={"id": 7})

    carried = carrier.open(renewed, task="cards.resize", arguments={"id": 7})
    assert (carried.tenant, carried.account, carried.actor) == (ACME.id, ANA, "ana")
    assert carried.expires_at == 1_001_060


def test_altered_envelope_is_not_renewed(carrier: Carrier, envelope: str) -> None:
    """T120"""
    with pytest.raises(EnvelopeRefusedError):
        carrier.renew(with_field(envelope, "tenant", str(GLOBEX.id)), task="cards.resize", arguments={"id": 7})


def test_nothing_is_sealed_without_a_tenant(carrier: Carrier) -> None:
    with pytest.raises(NoTenantError):
        carrier.carry("a.b")
    with account_scope(ANA), pytest.raises(NoTenantError):
        carrier.carry("a.b")
    with platform_scope(actor="ana", reason="test"), pytest.raises(NoTenantError):
        carrier.carry("a.b")


def test_platforms_envelope_is_sealed_in_a_platform_scope_only(carrier: Carrier) -> None:
    with platform_scope(actor="ana", reason="test"):
        envelope = carrier.carry_for_platform("a.b", actor="ana")
    assert carrier.open(envelope, task="a.b").tenant is None

    with pytest.raises(PlatformAccessError):
        carrier.carry_for_platform("a.b", actor="ana")
    with tenant_scope(ACME.id), pytest.raises(PlatformAccessError):
        carrier.carry_for_platform("a.b", actor="ana")
    with platform_scope(actor="ana", reason="test"), tenant_scope(ACME.id), pytest.raises(PlatformAccessError):
        carrier.carry_for_platform("a.b", actor="ana")


@pytest.mark.parametrize(
    ("keys", "signing"), [({}, "a"), ({"a": b"short"}, "a"), ({"a": OLD}, "b"), ({"a": OLD, "b": b""}, "a")]
)
def test_carrier_without_good_keys_is_refused(keys: dict[str, bytes], signing: str) -> None:
    with pytest.raises(ConfigurationError):
        Carrier(keys, signing=signing)


def test_carrier_and_errors_show_no_secret(carrier: Carrier, envelope: str) -> None:
    with pytest.raises(EnvelopeRefusedError) as refused:
        carrier.open(envelope + "x", task="cards.resize", arguments={"id": 7})

    assert repr(carrier) == "Carrier(keys=['new', 'old'], signing='new')"
    assert envelope not in str(refused.value)


def run(carrier: Carrier, tenant: TenantRecord, **options: Any) -> tuple[UUID | None, UUID | None]:
    with tenant_scope(tenant.id, ANA):
        envelope = carrier.carry("a.b")
    return run_carried(
        lambda: (current_tenant(), current_account()),
        envelope=envelope,
        carrier=carrier,
        directory=options.pop("directory", DIRECTORY),
        task="a.b",
        **options,
    )


def test_function_runs_in_the_scope_that_was_carried_and_leaves_none(carrier: Carrier) -> None:
    assert run(carrier, ACME) == (ACME.id, ANA)
    assert current_scope() is None


def test_function_runs_in_its_own_scope_also_inside_of_another(carrier: Carrier) -> None:
    with tenant_scope(GLOBEX.id):
        assert run(carrier, ACME) == (ACME.id, ANA)
        assert current_tenant() == GLOBEX.id


@pytest.mark.parametrize("tenant", [DORMANT, GONE, PENDING])
def test_job_of_tenant_that_may_return_is_parked(carrier: Carrier, tenant: TenantRecord) -> None:
    with pytest.raises(ParkedJobError):
        run(carrier, tenant)


@pytest.mark.parametrize(
    "tenant", [DELETED, DELETING, TenantRecord(ANA, "x", "X", "active"), TenantRecord(ANA, "x", "X", "odd")]
)
def test_job_of_tenant_that_is_gone_or_unknown_is_discarded(carrier: Carrier, tenant: TenantRecord) -> None:
    with pytest.raises(DiscardedJobError):
        run(carrier, tenant)


def test_job_may_be_for_tenants_in_other_states(carrier: Carrier) -> None:
    assert run(carrier, PENDING, served=frozenset({"pending"}))[0] == PENDING.id
    with pytest.raises(ParkedJobError):
        run(carrier, ACME, served=frozenset({"pending"}))


def test_job_is_neither_run_nor_discarded_while_the_directory_is_silent(carrier: Carrier) -> None:
    with pytest.raises(DirectoryError):
        run(carrier, ACME, directory=SilentDirectory(ACME))


def test_platforms_envelope_runs_nothing_for_a_tenant(carrier: Carrier) -> None:
    with platform_scope(actor="ana", reason="test"):
        envelope = carrier.carry_for_platform("a.b", actor="ana")

    with pytest.raises(EnvelopeRefusedError, match="names no tenant"):
        run_carried(current_tenant, envelope=envelope, carrier=carrier, directory=DIRECTORY, task="a.b")


def test_standing_follows_the_state() -> None:
    found = {t.status: standing_of(DIRECTORY, t.id) for t in (ACME, DORMANT, GONE, PENDING, DELETING, DELETED)}

    assert found == {
        "active": Standing.RUN,
        "suspended": Standing.PARK,
        "archived": Standing.PARK,
        "pending": Standing.PARK,
        "deleting": Standing.DISCARD,
        "deleted": Standing.DISCARD,
    }
