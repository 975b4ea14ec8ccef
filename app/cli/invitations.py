"""Invitations at the command line: who was invited to a tenant, an owner for one that has none, and taking one back."""

from __future__ import annotations

from datetime import UTC, datetime

import click
from flask.cli import AppGroup
from rich.console import RenderableType
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.admin.scopes import in_tenant
from app.audit.entries import record
from app.cli.operators import REASON, TENANT, operated, table_of, tenant_named
from app.errors import InvalidInputError, ProblemError, RowNotFoundError
from app.members.models import Invitation
from app.members.schemas import InvitationAnswer, InvitationList
from app.plans.terms import Quota
from app.schemas import normalize_email
from app.tenants.registrar import registrar
from app.usage.quotas import consume, release

invitations = AppGroup("invitations", help="Show whom a tenant has invited, invite an owner, and revoke invitations.")


class NobodyInvitesError(ProblemError):
    """This installation cannot invite anybody."""

    code = 503
    kind = "nobody_invites"


def _table(found: InvitationList) -> RenderableType:
    rows = [(one.email, one.role, _state_of(one), f"{one.expires_at:%Y-%m-%d %H:%M}") for one in found.items]
    return table_of(("e-mail", "role", "state", "expires"), rows)


def _state_of(one: InvitationAnswer) -> str:
    if one.accepted_at is not None:
        return "accepted"
    if one.revoked_at is not None:
        return "revoked"
    return "expired" if one.expires_at <= datetime.now(UTC) else "open"


@invitations.command("list")
@TENANT
@operated(_table)
def list_invitations(tenant: str) -> InvitationList:
    """List the invitations of TENANT, the latest first."""
    with in_tenant(tenant_named(tenant), reason="command line: invitations") as session:
        return _of(session)


@invitations.command("owner")
@TENANT
@click.argument("email")
@REASON
@operated(_table)
def invite_owner(tenant: str, email: str, reason: str) -> InvitationList:
    """Invite EMAIL to own TENANT, in the name of the platform."""
    inviting = registrar().hooks.invite_owner
    if inviting is None:
        raise NobodyInvitesError("This installation cannot invite anybody.")
    try:
        address = normalize_email(email)
    except ValueError as error:
        raise InvalidInputError.of("email", str(error)) from None
    with in_tenant(tenant_named(tenant), reason=reason) as session:
        if _open(session, address) is not None:
            raise InvalidInputError.of("email", "is invited already: revoke that invitation first")
        consume(session, Quota.USERS)
        inviting(session, address)
        session.flush()
        return _of(session)


@invitations.command("revoke")
@TENANT
@click.argument("email")
@REASON
@operated(_table)
def take_back(tenant: str, email: str, reason: str) -> InvitationList:
    """Revoke the open invitation of EMAIL to TENANT; its link opens nothing from then on."""
    with in_tenant(tenant_named(tenant), reason=reason) as session:
        found = _open(session, email.lower())
        if found is None:
            raise RowNotFoundError
        release(session, Quota.USERS)
        found.revoked_at = datetime.now(UTC)
        about = {"email": found.email}
        record(session, "invitation.revoked", target=("invitation", found.id), before=about, reason=reason)
        session.flush()
        return _of(session)


def _open(session: Session, email: str) -> Invitation | None:
    return session.scalar(
        select(Invitation)
        .where(Invitation.email == email, Invitation.accepted_at.is_(None), Invitation.revoked_at.is_(None))
        .with_for_update()
    )


def _of(session: Session) -> InvitationList:
    rows = session.scalars(select(Invitation).order_by(Invitation.created_at.desc(), Invitation.id))
    return InvitationList(items=[InvitationAnswer.of(row) for row in rows], next_cursor=None)
