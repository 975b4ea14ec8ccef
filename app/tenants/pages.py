"""The pages of the host that serves no tenant: sign in, see the tenants you belong to, go on to one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from flask import Blueprint, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from app.auth import operations
from app.auth.access import without_tenant
from app.auth.cookies import end_session
from app.auth.desk import desk
from app.auth.schemas import Credentials
from app.db import evidence_of_tenant
from app.errors import NotSignedInError
from app.pages.addresses import current_path, local_path
from app.pages.forms import Form
from app.pages.handover import address_with_ticket

blueprint = Blueprint("tenants_pages", __name__)

# Long enough to choose a tenant, and to come back for another; the sign-in of a tenant is what lasts.
_CHOOSING = timedelta(minutes=15)
_CHOOSER = "chooser"
_NO_TENANT = "this is the host of all tenants"


@blueprint.get("/")
@without_tenant(reason="it sends each host to its first page")
def start() -> ResponseReturnValue:
    here = evidence_of_tenant()
    return redirect(url_for(".choose" if here is None else "crm_pages.people"), 303)


@blueprint.get("/tenants")
@without_tenant(reason=_NO_TENANT)
def choose() -> ResponseReturnValue:
    account_id = _chooser()
    if account_id is None:
        return redirect(url_for(".sign_in"), 303)
    return render_template("tenants/choose.html", memberships=operations.memberships_of(desk(), account_id))


@blueprint.route("/tenants/sign-in", methods=["GET", "POST"])
@without_tenant(reason=_NO_TENANT)
def sign_in() -> ResponseReturnValue:
    form = Form(request.form)
    onward = local_path(request.args.get("next"), default=url_for(".choose"))
    if request.method == "GET":
        return redirect(onward, 303) if _chooser() else render_template("auth/sign_in.html", form=form)
    given = form.check(Credentials)
    if given is None:
        return render_template("auth/sign_in.html", form=form), 400
    try:
        account_id = operations.authenticate(desk(), email=given.email, password=given.password)
    except NotSignedInError as error:
        form.message = error.detail
        return render_template("auth/sign_in.html", form=form), 401
    session.clear()
    session[_CHOOSER] = {"account_id": str(account_id), "until": (datetime.now(UTC) + _CHOOSING).isoformat()}
    return redirect(onward, 303)


@blueprint.post("/tenants/sign-out")
@without_tenant(reason=_NO_TENANT)
def sign_out() -> ResponseReturnValue:
    end_session()
    flash("You are signed out.")
    return redirect(url_for(".sign_in"), 303)


@blueprint.get("/tenants/ticket")
@without_tenant(reason=_NO_TENANT)
def give_ticket() -> ResponseReturnValue:
    """Answer step 2 of app.pages.handover for somebody who signed in here."""
    account_id = _chooser()
    if account_id is None:
        return redirect(url_for(".sign_in", next=current_path()), 303)
    return redirect(address_with_ticket(account_id, request.args), 303)


def _chooser() -> UUID | None:
    """Return the account that signed in at this host a short while ago."""
    found = session.get(_CHOOSER)
    if not isinstance(found, dict) or datetime.fromisoformat(found["until"]) <= datetime.now(UTC):
        return None
    return UUID(found["account_id"])
