"""Signing in, out, and over from another host, on a tenant's own pages."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from app import db
from app.auth import operations
from app.auth.access import anyone, current_principal, find_principal, require_principal, signed_in
from app.auth.cookies import end_session, start_session
from app.auth.desk import desk
from app.auth.schemas import Credentials
from app.errors import ForbiddenError, NotSignedInError, RowNotFoundError
from app.pages.addresses import addresses, local_path
from app.pages.forms import Form
from app.pages.handover import address_with_ticket, handover
from tenancy.context import require_tenant
from tenancy.directory import Reference
from tenancy.resolvers import valid_slug

blueprint = Blueprint("auth_pages", __name__)


@blueprint.route("/sign-in", methods=["GET", "POST"])
@anyone(reason="whoever is to sign in has not done so yet")
def sign_in() -> ResponseReturnValue:
    form = Form(request.form)
    onward = local_path(request.args.get("next"), default=url_for("crm_pages.people"))
    if request.method == "GET":
        return redirect(onward, 303) if current_principal() else render_template("auth/sign_in.html", form=form)
    given = form.check(Credentials)
    if given is None:
        return render_template("auth/sign_in.html", form=form), 400
    try:
        found = operations.sign_in(desk(), email=given.email, password=given.password, tenant=str(require_tenant()))
    except NotSignedInError as error:
        form.message = error.detail
        return render_template("auth/sign_in.html", form=form), 401
    except ForbiddenError:
        form.message = f"This account does not belong to {db.tenancy().tenant.name}."
        return render_template("auth/sign_in.html", form=form), 403
    begin_session(found)
    return redirect(onward, 303)


@blueprint.post("/sign-out")
@signed_in
def sign_out() -> ResponseReturnValue:
    operations.sign_out(db.session(), require_principal().sign_in_id)
    db.session().commit()
    end_session()
    flash("You are signed out.")
    return redirect(url_for(".sign_in"), 303)


# The way between two hosts; see app.pages.handover ----------------------------------------------------


@blueprint.get("/handover")
@anyone(reason="the browser has yet to bring a ticket from the host where its owner is signed in")
def begin_handover() -> ResponseReturnValue:
    here, challenge = db.tenancy().tenant.slug, handover().challenge()
    via = request.args.get("via")
    if via is None:
        path = url_for("tenants_pages.give_ticket", to=here, challenge=challenge)
        return redirect(addresses().bare(path), 303)
    issuer = desk().directory.find(Reference("slug", via)) if valid_slug(via) else None
    if issuer is None or issuer.status != "active":
        raise RowNotFoundError
    return redirect(addresses().of_tenant(issuer.slug, url_for(".give_ticket", to=here, challenge=challenge)), 303)


@blueprint.get("/handover/ticket")
@signed_in
def give_ticket() -> ResponseReturnValue:
    return redirect(address_with_ticket(require_principal().account_id, request.args), 303)


@blueprint.get("/handover/accept")
@anyone(reason="the ticket says who it is")
def accept_handover() -> ResponseReturnValue:
    account_id = handover().redeem(request.args.get("ticket", ""), tenant_id=require_tenant())
    if account_id is None:
        flash("That took too long, or began in another browser. Sign in here instead.", "error")
        return redirect(url_for(".sign_in"), 303)
    begin_session(operations.switch_tenant(desk(), account_id, str(require_tenant())))
    return redirect(url_for("crm_pages.people"), 303)


def begin_session(found: operations.SignedIn) -> None:
    """Give the browser the cookie of a sign-in in the tenant of this host."""
    principal = find_principal(db.session(), found.subject.sign_in_id)
    if principal is None:
        raise NotSignedInError("The sign-in has ended already: sign in again.")
    start_session(principal)
