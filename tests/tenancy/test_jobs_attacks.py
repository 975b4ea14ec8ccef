"""Envelopes under attack: any other bytes, arguments or keys are refused, and nothing is left open behind."""

from __future__ import annotations

import base64
import hmac
import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from hashlib import sha256
from multiprocessing import get_context
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenancy import current_tenant, tenant_scope
from tenancy.context import current_scope
from tenancy.errors import EnvelopeRefusedError
from tenancy.jobs import Carrier, run_carried, submit
from tests.tenancy.directories import ACME, GLOBEX, ListedDirectory

CARRIER = Carrier({"k": b"k" * 32, "old": b"o" * 32}, signing="k", clock=lambda: 1_000_000.0)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def sealed(**changes: Any) -> str:
    """An envelope with a right signature by the key it names, and other contents than a carrier writes."""
    says = {
        "v": 1,
        "kid": "k",
        "tenant": str(ACME.id),
        "account": None,
        "actor": None,
        "task": "t",
        "arguments": sha256(b"null").hexdigest(),
        "issued_at": 1_000_000,
        "expires_at": 1_000_100,
    } | changes
    body = base64.urlsafe_b64encode(json.dumps(says).encode()).rstrip(b"=").decode()
    signature = hmac.digest(b"k" * 32, b"tenancy.jobs\0" + body.encode(), sha256)
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@given(JSON, JSON)
def test_envelope_opens_for_arguments_that_are_the_same_once_they_travelled(one: Any, other: Any) -> None:
    with tenant_scope(ACME.id):
        envelope = CARRIER.carry("t", arguments=one)

    assert CARRIER.open(envelope, task="t", arguments=json.loads(json.dumps(one))).tenant == ACME.id
    if json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True):
        with pytest.raises(EnvelopeRefusedError):
            CARRIER.open(envelope, task="t", arguments=other)


@given(st.integers(0, 500), st.characters(codec="ascii"))
def test_envelope_with_any_other_character_is_refused(at: int, character: str) -> None:
    with tenant_scope(ACME.id):
        envelope = CARRIER.carry("t")
    changed = envelope[: at % len(envelope)] + character + envelope[at % len(envelope) + 1 :]

    if changed != envelope:
        with pytest.raises(EnvelopeRefusedError):
            CARRIER.open(changed, task="t")
    assert CARRIER.open(envelope, task="t").tenant == ACME.id


@pytest.mark.parametrize(
    "changes",
    [
        {"kid": "old"},
        {"kid": "no such key"},
        {"kid": ["k"]},
        {"kid": {"k": 1}},
        {"kid": None},
        {"v": 2},
        {"v": "1"},
        {"tenant": 1},
        {"tenant": [str(ACME.id)]},
        {"tenant": ""},
        {"tenant": "acme"},
        {"expires_at": None},
        {"expires_at": "soon"},
        {"issued_at": 10**9, "expires_at": 10**10},
        {"expires_at": 1_000_000},
        {"task": ["t"]},
        {"arguments": None},
        {"arguments": "0" * 63 + "é"},
        {"more": 1},
    ],
)
def test_signed_envelope_of_another_shape_is_refused(changes: dict[str, Any]) -> None:
    """T120"""
    assert CARRIER.open(sealed(), task="t").tenant == ACME.id

    with pytest.raises(EnvelopeRefusedError):
        CARRIER.open(sealed(**changes), task="t")


@pytest.mark.parametrize(
    "envelope",
    [None, b"x", 1, "", ".", "a.b", "[" * 8_000, base64.urlsafe_b64encode(b"[" * 6_000).decode(), "é.é", "x" * 9_000],
)
def test_what_is_no_envelope_is_refused(envelope: object) -> None:
    with pytest.raises(EnvelopeRefusedError):
        CARRIER.open(envelope, task="t")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_job_that_fails_leaves_no_scope_open(error: type[BaseException]) -> None:
    with tenant_scope(ACME.id):
        envelope = CARRIER.carry("t")

    def fail() -> None:
        assert current_tenant() == ACME.id
        raise error

    with pytest.raises(error):
        run_carried(fail, envelope=envelope, carrier=CARRIER, directory=ListedDirectory(ACME, GLOBEX), task="t")
    assert current_scope() is None


def test_thread_of_a_pool_serves_one_tenant_after_another_and_keeps_none() -> None:
    with ThreadPoolExecutor(1) as pool:
        seen: list[UUID | None] = []
        for tenant in (ACME, GLOBEX) * 20:
            with tenant_scope(tenant.id):
                seen.append(submit(pool, current_tenant).result())
            seen.append(pool.submit(current_tenant).result())

    assert seen == [ACME.id, None, GLOBEX.id, None] * 20


def test_process_of_a_pool_runs_for_the_tenant_that_asked() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with tenant_scope(ACME.id):
            asked = submit(pool, current_tenant)

        assert asked.result(60) == ACME.id
        assert pool.submit(current_tenant).result(60) is None
