"""Envelopes: what a job carries to be run for the tenant that asked for it, signed."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from uuid import UUID

from tenancy.context import current_account, current_scope, require_tenant
from tenancy.errors import ConfigurationError, EnvelopeRefusedError, PlatformAccessError

_SECRET_BYTES = 32
_LONGEST = 8_192
_VERSION = 1
# Keeps these signatures apart from others made with the same key.
_PURPOSE = b"tenancy.jobs\0"
_FIELDS = frozenset({"v", "kid", "tenant", "account", "actor", "task", "arguments", "issued_at", "expires_at"})


@dataclass(frozen=True)
class Carried:
    """What an envelope says, verified.

    tenant: None when the job is the platform's own. actor: who asked for it, as the program wrote it down.
    issued_at, expires_at: seconds since 1970.
    """

    task: str
    tenant: UUID | None
    account: UUID | None
    actor: str | None
    arguments_digest: str
    issued_at: int
    expires_at: int


class Carrier:
    """Seals envelopes and opens them.

    keys: by id, each at least 32 bytes; all open, `signing` seals. To rotate, add a key, let it seal, and take
    the old one away once `life_s` has passed.
    life_s: how long an envelope may be opened.
    clock: seconds since 1970. An envelope from more than `leeway_s` in the future is refused.
    Raises: ConfigurationError - a key is too short, or `signing` is not one of them.
    """

    def __init__(
        self,
        keys: Mapping[str, bytes],
        *,
        signing: str,
        life_s: int = 604_800,
        leeway_s: int = 60,
        clock: Callable[[], float] = time.time,
    ) -> None:
        short = sorted(kid for kid, secret in keys.items() if len(secret) < _SECRET_BYTES)
        if short or signing not in keys:
            found = f"keys {short} are too short" if short else f"there is no key {signing!r} to sign with"
            raise ConfigurationError(
                f"a carrier's {found}", hint=f"give each key {_SECRET_BYTES} random bytes, and name one of them"
            )
        if life_s < 1:
            raise ConfigurationError(f"envelopes that live {life_s} s can never be opened", hint="give a longer life_s")
        self._keys = dict(keys)
        self._signing = signing
        self._life_s = life_s
        self._leeway_s = leeway_s
        self._clock = clock

    def __repr__(self) -> str:
        return f"Carrier(keys={sorted(self._keys)}, signing={self._signing!r})"

    def carry(self, task: str, *, arguments: object = None, actor: str | None = None) -> str:
        """Seal an envelope for the tenant and the account in scope.

        task: the only one it may run. arguments: the only ones it may run with; anything JSON can say.
        Raises: NoTenantError - no tenant is in scope.
        """
        return self._seal(self._now(task, require_tenant(), current_account(), actor, arguments))

    def carry_for_platform(self, task: str, *, actor: str, arguments: object = None) -> str:
        """Seal an envelope for a job of no tenant.

        Raises: PlatformAccessError - no platform scope is open, or a tenant is in scope.
        """
        scope = current_scope()
        if scope is None or scope.platform is None or scope.tenant is not None:
            raise PlatformAccessError(
                f"a job of no tenant was asked for in {scope!r}",
                hint='ask for it in a platform scope: with platform_scope(actor="...", reason="..."): ...',
            )
        return self._seal(self._now(task, None, None, actor, arguments))

    def open(self, envelope: object, *, task: str, arguments: object = None) -> Carried:
        """Verify an envelope and return what it says.

        task, arguments: what is about to be run.
        Raises: EnvelopeRefusedError - it is none, or altered, expired, or for another task or other arguments.
        """
        carried = self._verify(envelope, task, arguments)
        now = self._clock()
        if now >= carried.expires_at:
            raise _refused(f"the envelope of {task!r} expired {int(now - carried.expires_at)} s ago")
        if carried.issued_at > now + self._leeway_s:
            raise _refused(f"the envelope of {task!r} is from the future")
        return carried

    def renew(self, envelope: object, *, task: str, arguments: object = None) -> str:
        """Seal the same anew, also when it has expired: for jobs that were kept while their tenant was suspended.

        Raises: EnvelopeRefusedError - it was not sealed for this task and these arguments.
        """
        carried = self._verify(envelope, task, arguments)
        now = int(self._clock())
        return self._seal(replace(carried, issued_at=now, expires_at=now + self._life_s))

    def _now(self, task: str, tenant: UUID | None, account: UUID | None, actor: str | None, given: object) -> Carried:
        now = int(self._clock())
        return Carried(task, tenant, account, actor, _digest(given), now, now + self._life_s)

    def _seal(self, carried: Carried) -> str:
        says = {
            "v": _VERSION,
            "kid": self._signing,
            "tenant": str(carried.tenant) if carried.tenant else None,
            "account": str(carried.account) if carried.account else None,
            "actor": carried.actor,
            "task": carried.task,
            "arguments": carried.arguments_digest,
            "issued_at": carried.issued_at,
            "expires_at": carried.expires_at,
        }
        body = _encode(_canonical(says))
        return f"{body}.{_sign(self._keys[self._signing], body)}"

    def _verify(self, envelope: object, task: str, arguments: object) -> Carried:
        if not isinstance(envelope, str) or not envelope or len(envelope) > _LONGEST or not envelope.isascii():
            raise _refused(f"{task!r} came without an envelope")
        body, _, signature = envelope.partition(".")
        says = _parse(body, task)
        secret = self._keys.get(says["kid"]) if isinstance(says["kid"], str) else None
        # A key that is not known is tried as well, so that the time tells nothing of which there are.
        wanted = _sign(secret or bytes(_SECRET_BYTES), body)
        if not hmac.compare_digest(wanted, signature) or secret is None:
            raise _refused(f"the envelope of {task!r} is not signed by a key that is known")
        carried = _read(says, task)
        if carried.task != task:
            raise _refused(f"an envelope for {carried.task!r} came with {task!r}")
        if carried.arguments_digest != _digest(arguments):  # no secret, and signed
            raise _refused(f"the envelope of {task!r} was sealed for other arguments")
        return carried


def _canonical(value: object) -> bytes:
    # Types that JSON lacks are signed as their text.
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=str
    ).encode()


def _digest(arguments: object) -> str:
    return sha256(_canonical(arguments)).hexdigest()


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _sign(secret: bytes, body: str) -> str:
    return _encode(hmac.digest(secret, _PURPOSE + body.encode(), sha256))


def _parse(body: str, task: str) -> dict[str, Any]:
    try:
        says = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise _refused(f"the envelope of {task!r} cannot be read") from None
    if not isinstance(says, dict) or says.keys() != _FIELDS or says["v"] != _VERSION:
        raise _refused(f"the envelope of {task!r} is of another kind")
    return says


def _read(says: dict[str, Any], task: str) -> Carried:
    """Take the fields apart; they are signed, so a fault in them is the signer's."""
    try:
        return Carried(
            task=str(says["task"]),
            tenant=UUID(says["tenant"]) if says["tenant"] is not None else None,
            account=UUID(says["account"]) if says["account"] is not None else None,
            actor=str(says["actor"]) if says["actor"] is not None else None,
            arguments_digest=str(says["arguments"]),
            issued_at=int(says["issued_at"]),
            expires_at=int(says["expires_at"]),
        )
    except (TypeError, ValueError, AttributeError):
        raise _refused(f"the envelope of {task!r} is signed, and says nothing usable") from None


def _refused(found: str) -> EnvelopeRefusedError:
    return EnvelopeRefusedError(found, hint="discard the job; ask for it again inside the tenant's scope")
