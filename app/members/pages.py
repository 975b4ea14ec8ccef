"""The page that an invitation's mail leads to, on the host of the tenant that invites."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import Field

from app import db
from app.auth import operations
from app.auth.access import anyone
from app.auth.desk import desk
from app.auth.pages import begin_session
from app.configuration.keys import PASSWORD_POLICY
from app.configuration.operations import setting_of
from app.errors import InvalidInputError, TakenError
from app.members.invitations import InvitationEndedError, Invited, accept_with_password, show
from app.pages.forms import Form
from app.schemas import Body, Text
from tenancy.context import require_tenant

blueprint = Blueprint("member_pages", __name__)


class Password(Body):
    """The password of the address that was invited; a new one where it has no account."""

    password: Text = Field(min_length=1, max_length=200)


@blueprint.route("/invitation", methods=["GET", "POST"])
@anyone(reason="the token in the link says who is invited")
def invitation() -> ResponseReturnValue:
    token, form = request.args.get("token", ""), Form(request.form)
    try:
        invited = _invited(token)
    except InvitationEndedError:
        return _ended()
    if request.method == "GET":
        return _page(form, invited)
    given = form.check(Password)
    if given is None:
        return _page(form, invited, status=400)
    try:
        accepted = accept_with_password(desk(), token, given.password)
    except InvitationEndedError:
        return _ended()
    except InvalidInputError as error:
        form.errors["password"] = f"The password {error.errors[0].message}."
        return _page(form, invited, status=400)
    except TakenError as error:
        if not error.errors:  # not the password, but that she is here already
            flash("You are a member already. Sign in to continue.")
            return redirect(url_for("auth_pages.sign_in"), 303)
        form.errors["password"] = "This is not the password of your account."  # noqa: S105 - words
        return _page(form, invited, status=401)
    begin_session(operations.switch_tenant(desk(), accepted.account_id, str(accepted.tenant.id)))
    return redirect(url_for("crm_pages.people"), 303)


def _ended() -> tuple[str, int]:
    return render_template("auth/invitation_ended.html"), 404


def _invited(token: str) -> Invited:
    """Return what the token is for, if it is for here: another tenant's is as good as none.

    Raises: InvitationEndedError
    """
    found = show(desk(), token)
    if found.tenant.id != require_tenant():
        raise InvitationEndedError
    return found


def _page(form: Form, invited: Invited, *, status: int = 200) -> ResponseReturnValue:
    here = db.session()
    wanted = "" if invited.is_known else ", ".join(setting_of(here, PASSWORD_POLICY).lacking(""))
    here.commit()
    return render_template("auth/invitation.html", form=form, invited=invited, wanted=wanted), status
