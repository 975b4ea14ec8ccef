"""Handover: how somebody signed in at one host goes on at another, though cookies never leave their host.

1. The new host puts a random challenge into its own cookie and sends the browser back with its hash.
2. The host where she is signed in checks that she belongs to the new tenant, and signs a ticket for this
   account, tenant and challenge.
3. The new host takes the ticket only beside the cookie of step 1, and forgets the challenge: a ticket works
   once, within a minute, in the browser that asked for it. So an address that leaks opens nothing, and
   nobody can be signed in as somebody else by a link.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from uuid import UUID

from flask import current_app, session, url_for
from itsdangerous import BadSignature, URLSafeTimedSerializer

from app.auth.desk import desk
from app.auth.operations import memberships_of
from app.config import Settings
from app.errors import RowNotFoundError
from app.pages.addresses import addresses

TICKET_TTL_S = 60
_CHALLENGE = "handover"


class Handover:
    """Signs and checks tickets."""

    def __init__(self, settings: Settings) -> None:
        self._signer = URLSafeTimedSerializer(settings.secret_key.get_secret_value(), salt="handover")

    def challenge(self) -> str:
        """Remember a new challenge in this host's cookie, and return the hash that a ticket must carry."""
        session[_CHALLENGE] = secrets.token_urlsafe(32)
        return _hash(session[_CHALLENGE])

    def ticket(self, *, account_id: UUID, tenant_id: UUID, challenge: str) -> str:
        """Return a ticket into the tenant; the caller has checked that the account belongs there."""
        return str(self._signer.dumps([str(account_id), str(tenant_id), challenge]))

    def redeem(self, ticket: str, *, tenant_id: UUID) -> UUID | None:
        """Return the account a ticket was made for; None when it is not for here, for this browser, or for now."""
        asked = session.pop(_CHALLENGE, None)
        try:
            account, tenant, challenge = self._signer.loads(ticket, max_age=TICKET_TTL_S)
        except BadSignature:
            return None
        is_ours = asked is not None and compare_digest(_hash(asked).encode(), challenge.encode())
        return UUID(account) if is_ours and tenant == str(tenant_id) else None


def handover() -> Handover:
    """Return the handover of the current application."""
    found = current_app.extensions["handover"]
    if not isinstance(found, Handover):
        raise TypeError(f"extension 'handover' is {type(found).__name__}")
    return found


def address_with_ticket(account_id: UUID, question: Mapping[str, str]) -> str:
    """Return where the browser goes on with its ticket.

    question: `to`, the slug of a tenant, and `challenge`, as the new host asked.
    Raises: RowNotFoundError - the account has no open tenant of that name, or the challenge is none.
    """
    challenge = question.get("challenge", "")
    found = [one.tenant for one in memberships_of(desk(), account_id) if one.tenant.slug == question.get("to")]
    if not found or re.fullmatch("[0-9a-f]{64}", challenge, re.ASCII) is None:
        raise RowNotFoundError
    ticket = handover().ticket(account_id=account_id, tenant_id=found[0].id, challenge=challenge)
    return addresses().of_tenant(found[0].slug, url_for("auth_pages.accept_handover", ticket=ticket))


def _hash(challenge: str) -> str:
    return sha256(challenge.encode()).hexdigest()
