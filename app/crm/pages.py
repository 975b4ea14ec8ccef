"""People, companies and opportunities as pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, TypeVar
from uuid import UUID

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import Field, ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import selectinload

from app.auth.access import permits, require_principal
from app.crm import schemas as shapes
from app.crm.models import Company, Opportunity, Person, Stage
from app.crm.routes import PEOPLE, _equal, _found, _narrowed
from app.db import session
from app.errors import InvalidInputError
from app.members.permissions import Permission
from app.pages.forms import Form
from app.schemas import Body, ListQuery

blueprint = Blueprint("crm_pages", __name__)

Row = TypeVar("Row", Person, Company, Opportunity)
Query = TypeVar("Query", bound=ListQuery)
_ROWS_ON_PAGE = 25
_DEALS_IN_LANE = 50
_CHOICES = 500
_TOLD = {
    "uq_people_email": ("email", "Somebody here has this address already."),
    "fk_people_company_id": ("company_id", "This company is gone. Choose another."),
    "fk_opportunities_company_id": ("company_id", "This company is gone. Choose another."),
    "fk_opportunities_person_id": ("person_id", "This person is gone. Choose somebody else."),
}


class OpportunityInput(shapes.NewOpportunity):
    """An opportunity as a form sends it: the amount in whole units, as people write it."""

    amount: Annotated[Decimal, Field(ge=0, max_digits=15, decimal_places=2)] = Decimal(0)


class Lane(NamedTuple):
    """One stage of the board: its newest opportunities, and how many there are in all."""

    stage: Stage
    rows: list[Opportunity]
    count: int


# What the pages share ---------------------------------------------------------------------------------


def _show(template: str, **words: Any) -> str:
    granted = require_principal().permissions
    return render_template(
        template,
        may_write=Permission.CRM_WRITE in granted,
        may_delete=Permission.CRM_DELETE in granted,
        **words,
    )


def _query(model: type[Query]) -> Query:
    """Return the query of a list page. A blank field of a search form counts as left out."""
    given = {name: value for name, value in request.args.items() if value.strip()}
    try:
        return model(**{"limit": _ROWS_ON_PAGE, **given})
    except ValidationError:
        raise InvalidInputError(
            "This address asks for something the list cannot do. Start again from its top."
        ) from None


def _address(endpoint: str, query: ListQuery) -> Callable[..., str]:
    """Return a function that gives the address of the same list with some of its query changed, from the start."""
    kept = query.model_dump(exclude_unset=True, exclude={"cursor", "limit"}, mode="json")

    def address(**changed: str) -> str:
        return url_for(endpoint, **(kept | changed))

    return address


def _choices(model: type[Company] | type[Person], chosen: object) -> list[tuple[UUID, str]]:
    """Return ids and names to choose from, by name; the one chosen now is among them however many there are."""
    found = [
        (row.id, row.name)
        for row in session().execute(select(model.id, model.name).order_by(model.name).limit(_CHOICES))
    ]
    if isinstance(chosen, UUID) and chosen not in dict(found):
        row = session().get(model, chosen)
        found += [(row.id, row.name)] if row is not None else []
    return found


def _store(row: Row, values: Mapping[str, object], form: Form) -> bool:
    """Write the row; False when the database refused a field, which the form then says."""
    for name, value in values.items():
        setattr(row, name, value)
    session().add(row)
    try:
        session().commit()
    except IntegrityError as error:
        session().rollback()
        form.refuse(error, _TOLD)
        return False
    return True


def _delete(row: Row, *, back: str) -> ResponseReturnValue:
    name = row.name
    session().delete(row)
    session().commit()
    flash(f"{name} was deleted.")
    return redirect(url_for(back), 303)


def _edit(
    row: Row | None,
    *,
    make: Callable[..., Row],
    shape: type[Body],
    shown: Callable[[Row | None, Form], str],
    back: str,
    values_of: Callable[[Row], Mapping[str, object]],
) -> ResponseReturnValue:
    """Show the form of a row, or take it: None adds one."""
    if request.method == "GET":
        return shown(row, Form(values_of(row) if row is not None else {}))
    form = Form(request.form)
    given = form.check(shape)
    if given is None:
        return shown(row, form), 400
    values = given.model_dump(exclude={"amount"})
    if isinstance(given, OpportunityInput):
        values["amount_cents"] = int(given.amount * 100)
    if not _store(make() if row is None else row, values, form):
        return shown(row, form), 409
    flash(f"{values['name']} was {'added' if row is None else 'saved'}.")
    return redirect(url_for(back), 303)


# People -----------------------------------------------------------------------------------------------


@blueprint.get("/people")
@permits(Permission.CRM_READ)
def people() -> ResponseReturnValue:
    query = _query(shapes.PersonQuery)
    rows = _narrowed(select(Person).options(selectinload(Person.company)), Person.name, query.q)
    rows = _equal(rows, {Person.company_id: query.company_id, Person.email: query.email})
    return _show(
        "crm/people.html",
        page=PEOPLE.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit),
        query=query,
        is_filtered=bool(query.q or query.company_id or query.email),
        companies=_choices(Company, query.company_id),
        address=_address(".people", query),
    )


def _person_form(row: Person | None, form: Form) -> str:
    return _show("crm/person.html", row=row, form=form, companies=_choices(Company, row.company_id if row else None))


def _edit_person(row: Person | None) -> ResponseReturnValue:
    return _edit(
        row,
        make=Person,
        shape=shapes.NewPerson,
        shown=_person_form,
        back=".people",
        values_of=lambda found: {
            "name": found.name,
            "email": found.email,
            "phone": found.phone,
            "company_id": found.company_id,
        },
    )


@blueprint.route("/people/new", methods=["GET", "POST"])
@permits(Permission.CRM_WRITE)
def add_person() -> ResponseReturnValue:
    return _edit_person(None)


@blueprint.get("/people/<uuid:person_id>")
@permits(Permission.CRM_READ)
def edit_person(person_id: UUID) -> ResponseReturnValue:
    return _edit_person(_found(Person, person_id))


@blueprint.post("/people/<uuid:person_id>")
@permits(Permission.CRM_WRITE)
def save_person(person_id: UUID) -> ResponseReturnValue:
    return _edit_person(_found(Person, person_id))
