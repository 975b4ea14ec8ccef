"""People, companies and opportunities as pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, TypeVar
from uuid import UUID

from flask import Blueprint, render_template, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import Field, ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.auth.access import permits, require_principal
from app.crm import schemas as shapes
from app.crm.models import Company, Opportunity, Person, Stage
from app.crm.routes import COMPANIES, PEOPLE
from app.db import session
from app.errors import InvalidInputError
from app.members.permissions import Permission
from app.pages.sheets import Sheet
from app.rows import equal, narrowed
from app.schemas import ListQuery

blueprint = Blueprint("crm_pages", __name__)

Query = TypeVar("Query", bound=ListQuery)
_ROWS_ON_PAGE = 25
_DEALS_IN_LANE = 50
_CHOICES = 500
_COMPANY_GONE = ("company_id", "This company is gone. Choose another.")


class Lane(NamedTuple):
    """One stage of the board: its newest opportunities, and how many there are in all."""

    stage: Stage
    rows: list[Opportunity]
    total: int


class OpportunityInput(shapes.NewOpportunity):
    """An opportunity as a form sends it: the amount in whole units, as people write it."""

    amount: Annotated[Decimal, Field(ge=0, max_digits=15, decimal_places=2)] = Decimal(0)

    def row(self) -> dict[str, Any]:
        return self.model_dump(exclude={"amount"}) | {"amount_cents": int(self.amount * 100)}


# What the pages share ---------------------------------------------------------------------------------


def _show_list(template: str, **words: Any) -> str:
    return render_template(template, may_write=Permission.CRM_WRITE in require_principal().permissions, **words)


def _query(model: type[Query]) -> Query:
    """Return the query of a list page. A blank field of a search form counts as left out."""
    given = {name: value for name, value in request.args.items() if value.strip()}
    try:
        return model.model_validate({"limit": _ROWS_ON_PAGE, **given})
    except ValidationError:
        raise InvalidInputError("This list has no such filter or order. Start again from its top.") from None


def _address(endpoint: str, query: ListQuery) -> Callable[..., str]:
    """Return a function that gives the address of the same list with some of its query changed, from the start."""
    kept = query.model_dump(exclude_unset=True, exclude={"cursor", "limit"}, mode="json")

    def address(**changed: str) -> str:
        query: dict[str, Any] = kept | changed
        return url_for(endpoint, **query)

    return address


def _choices(model: type[Company] | type[Person], chosen: UUID | None) -> list[tuple[UUID, str]]:
    """Return ids and names to choose from, by name; the one chosen now is among them however many there are."""
    listed = select(model.id, model.name).order_by(model.name).limit(_CHOICES)
    found = [(row.id, row.name) for row in session().execute(listed)]
    row = session().get(model, chosen) if chosen is not None and chosen not in dict(found) else None
    return found if row is None else [*found, (row.id, row.name)]


# People -----------------------------------------------------------------------------------------------


def _companies_for(row: Person | Opportunity | None) -> Mapping[str, Any]:
    return {"companies": _choices(Company, row.company_id if row is not None else None)}


PERSON = Sheet(
    Person,
    noun="person",
    back="crm_pages.people",
    shape=shapes.NewPerson,
    fields=("name", "email", "phone", "company_id"),
    consequence="Opportunities stay, without the person.",
    choices=_companies_for,
    told={
        "uq_people_tenant_id_email": ("email", "Somebody here has this address already."),
        "fk_people_tenant_id_company_id": _COMPANY_GONE,
    },
)


@blueprint.get("/people")
@permits(Permission.CRM_READ)
def people() -> ResponseReturnValue:
    query = _query(shapes.PersonQuery)
    rows = narrowed(select(Person).options(selectinload(Person.company)), Person.name, query.q)
    rows = equal(rows, {Person.company_id: query.company_id, Person.email: query.email})
    return _show_list(
        "crm/people.html",
        page=PEOPLE.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit),
        query=query,
        is_filtered=bool(query.q or query.company_id or query.email),
        companies=_choices(Company, query.company_id),
        address=_address(".people", query),
    )


@blueprint.route("/people/new", methods=["GET", "POST"])
@permits(Permission.CRM_WRITE)
def add_person() -> ResponseReturnValue:
    return PERSON.answer(None)


@blueprint.get("/people/<uuid:row_id>")
@permits(Permission.CRM_READ)
def person(row_id: UUID) -> ResponseReturnValue:
    return PERSON.answer(row_id)


@blueprint.post("/people/<uuid:row_id>")
@permits(Permission.CRM_WRITE)
def save_person(row_id: UUID) -> ResponseReturnValue:
    return PERSON.answer(row_id)


@blueprint.get("/people/<uuid:row_id>/delete")
@permits(Permission.CRM_DELETE)
def confirm_delete_person(row_id: UUID) -> ResponseReturnValue:
    return PERSON.confirm_delete(row_id)


@blueprint.post("/people/<uuid:row_id>/delete")
@permits(Permission.CRM_DELETE)
def delete_person(row_id: UUID) -> ResponseReturnValue:
    return PERSON.delete(row_id)


# Companies --------------------------------------------------------------------------------------------

COMPANY = Sheet(
    Company,
    noun="company",
    back="crm_pages.companies",
    shape=shapes.NewCompany,
    fields=("name", "website"),
    consequence="Its people and opportunities stay, without a company.",
    choices=lambda _row: {},
)


@blueprint.get("/companies")
@permits(Permission.CRM_READ)
def companies() -> ResponseReturnValue:
    query = _query(shapes.CompanyQuery)
    rows = narrowed(select(Company), Company.name, query.q)
    return _show_list(
        "crm/companies.html",
        page=COMPANIES.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit),
        query=query,
        is_filtered=bool(query.q),
        address=_address(".companies", query),
    )


@blueprint.route("/companies/new", methods=["GET", "POST"])
@permits(Permission.CRM_WRITE)
def add_company() -> ResponseReturnValue:
    return COMPANY.answer(None)


@blueprint.get("/companies/<uuid:row_id>")
@permits(Permission.CRM_READ)
def company(row_id: UUID) -> ResponseReturnValue:
    return COMPANY.answer(row_id)


@blueprint.post("/companies/<uuid:row_id>")
@permits(Permission.CRM_WRITE)
def save_company(row_id: UUID) -> ResponseReturnValue:
    return COMPANY.answer(row_id)


@blueprint.get("/companies/<uuid:row_id>/delete")
@permits(Permission.CRM_DELETE)
def confirm_delete_company(row_id: UUID) -> ResponseReturnValue:
    return COMPANY.confirm_delete(row_id)


@blueprint.post("/companies/<uuid:row_id>/delete")
@permits(Permission.CRM_DELETE)
def delete_company(row_id: UUID) -> ResponseReturnValue:
    return COMPANY.delete(row_id)


# Opportunities ----------------------------------------------------------------------------------------


def _opportunity_choices(row: Opportunity | None) -> Mapping[str, Any]:
    return {
        **_companies_for(row),
        "people": _choices(Person, row.person_id if row is not None else None),
        "stages": [(stage.value, stage.capitalize()) for stage in Stage],
    }


OPPORTUNITY = Sheet(
    Opportunity,
    noun="opportunity",
    back="crm_pages.opportunities",
    shape=OpportunityInput,
    fields=("name", "stage", "currency", "closes_on", "company_id", "person_id"),
    consequence="Its company and its person stay.",
    choices=_opportunity_choices,
    told={
        "fk_opportunities_tenant_id_company_id": _COMPANY_GONE,
        "fk_opportunities_tenant_id_person_id": ("person_id", "This person is gone. Choose somebody else."),
    },
    shown=lambda row: {"amount": f"{Decimal(row.amount_cents) / 100:f}"},
    stored=OpportunityInput.row,
)


@blueprint.get("/opportunities")
@permits(Permission.CRM_READ)
def opportunities() -> ResponseReturnValue:
    counted = session().execute(select(Opportunity.stage, func.count().label("total")).group_by(Opportunity.stage))
    counts = {row.stage: row.total for row in counted}
    return _show_list("crm/opportunities.html", lanes=[_lane(stage, counts.get(stage, 0)) for stage in Stage])


def _lane(stage: Stage, count: int) -> Lane:
    newest = (
        select(Opportunity)
        .options(selectinload(Opportunity.company))
        .where(Opportunity.stage == stage)
        .order_by(Opportunity.created_at.desc(), Opportunity.id.desc())
        .limit(_DEALS_IN_LANE)
    )
    return Lane(stage, list(session().scalars(newest)) if count else [], count)


@blueprint.route("/opportunities/new", methods=["GET", "POST"])
@permits(Permission.CRM_WRITE)
def add_opportunity() -> ResponseReturnValue:
    return OPPORTUNITY.answer(None)


@blueprint.get("/opportunities/<uuid:row_id>")
@permits(Permission.CRM_READ)
def opportunity(row_id: UUID) -> ResponseReturnValue:
    return OPPORTUNITY.answer(row_id)


@blueprint.post("/opportunities/<uuid:row_id>")
@permits(Permission.CRM_WRITE)
def save_opportunity(row_id: UUID) -> ResponseReturnValue:
    return OPPORTUNITY.answer(row_id)


@blueprint.get("/opportunities/<uuid:row_id>/delete")
@permits(Permission.CRM_DELETE)
def confirm_delete_opportunity(row_id: UUID) -> ResponseReturnValue:
    return OPPORTUNITY.confirm_delete(row_id)


@blueprint.post("/opportunities/<uuid:row_id>/delete")
@permits(Permission.CRM_DELETE)
def delete_opportunity(row_id: UUID) -> ResponseReturnValue:
    return OPPORTUNITY.delete(row_id)
