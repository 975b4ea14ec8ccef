"""People, companies and opportunities over HTTP."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, url_for
from sqlalchemy import select

from app.auth.access import permits
from app.crm import schemas as shapes
from app.crm.models import Company, Opportunity, Person
from app.db import session
from app.members.permissions import Permission
from app.openapi import answers
from app.paging import Sorts
from app.rows import added, changed, deleted, equal, found, narrowed

blueprint = Blueprint("crm", __name__, url_prefix="/api/v1")

PEOPLE = Sorts(Person, ("name", "created_at"))
COMPANIES = Sorts(Company, ("name", "created_at"))
OPPORTUNITIES = Sorts(Opportunity, ("name", "created_at", "amount_cents"))


def _location(endpoint: str, row: Person | Company | Opportunity) -> dict[str, str]:
    return {"Location": url_for(f".{endpoint}", row_id=row.id)}


# People -----------------------------------------------------------------------------------------------


@blueprint.get("/people")
@permits(Permission.CRM_READ)
@answers(200, shapes.PersonList, tag="people")
def list_people(query: shapes.PersonQuery) -> shapes.PersonList:
    """List people, a page at a time."""
    rows = narrowed(select(Person), Person.name, query.q)
    rows = equal(rows, {Person.company_id: query.company_id, Person.email: query.email})
    page = PEOPLE.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return shapes.PersonList.model_validate({"items": page.rows, "next_cursor": page.next_cursor})


@blueprint.post("/people")
@permits(Permission.CRM_WRITE)
@answers(201, shapes.PersonAnswer, tag="people")
def create_person(json: shapes.NewPerson) -> tuple[shapes.PersonAnswer, int, dict[str, str]]:
    """Add a person."""
    person = added(Person(**json.model_dump()))
    return shapes.PersonAnswer.model_validate(person), 201, _location("read_person", person)


@blueprint.get("/people/<uuid:row_id>")
@permits(Permission.CRM_READ)
@answers(200, shapes.PersonAnswer, tag="people")
def read_person(row_id: UUID) -> shapes.PersonAnswer:
    """Read one person."""
    return shapes.PersonAnswer.model_validate(found(Person, row_id))


@blueprint.patch("/people/<uuid:row_id>")
@permits(Permission.CRM_WRITE)
@answers(200, shapes.PersonAnswer, tag="people")
def change_person(row_id: UUID, json: shapes.PersonChange) -> shapes.PersonAnswer:
    """Change some fields of a person."""
    return shapes.PersonAnswer.model_validate(changed(found(Person, row_id), json))


@blueprint.delete("/people/<uuid:row_id>")
@permits(Permission.CRM_DELETE)
@answers(204, None, tag="people")
def delete_person(row_id: UUID) -> tuple[str, int]:
    """Delete a person."""
    return deleted(found(Person, row_id))


# Companies -----------------------------------------------------------------------------------------------


@blueprint.get("/companies")
@permits(Permission.CRM_READ)
@answers(200, shapes.CompanyList, tag="companies")
def list_companies(query: shapes.CompanyQuery) -> shapes.CompanyList:
    """List companies, a page at a time."""
    rows = narrowed(select(Company), Company.name, query.q)
    page = COMPANIES.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return shapes.CompanyList.model_validate({"items": page.rows, "next_cursor": page.next_cursor})


@blueprint.post("/companies")
@permits(Permission.CRM_WRITE)
@answers(201, shapes.CompanyAnswer, tag="companies")
def create_company(json: shapes.NewCompany) -> tuple[shapes.CompanyAnswer, int, dict[str, str]]:
    """Add a company."""
    company = added(Company(**json.model_dump()))
    return shapes.CompanyAnswer.model_validate(company), 201, _location("read_company", company)


@blueprint.get("/companies/<uuid:row_id>")
@permits(Permission.CRM_READ)
@answers(200, shapes.CompanyAnswer, tag="companies")
def read_company(row_id: UUID) -> shapes.CompanyAnswer:
    """Read one company."""
    return shapes.CompanyAnswer.model_validate(found(Company, row_id))


@blueprint.patch("/companies/<uuid:row_id>")
@permits(Permission.CRM_WRITE)
@answers(200, shapes.CompanyAnswer, tag="companies")
def change_company(row_id: UUID, json: shapes.CompanyChange) -> shapes.CompanyAnswer:
    """Change some fields of a company."""
    return shapes.CompanyAnswer.model_validate(changed(found(Company, row_id), json))


@blueprint.delete("/companies/<uuid:row_id>")
@permits(Permission.CRM_DELETE)
@answers(204, None, tag="companies")
def delete_company(row_id: UUID) -> tuple[str, int]:
    """Delete a company."""
    return deleted(found(Company, row_id))


# Opportunities -----------------------------------------------------------------------------------------------


@blueprint.get("/opportunities")
@permits(Permission.CRM_READ)
@answers(200, shapes.OpportunityList, tag="opportunities")
def list_opportunities(query: shapes.OpportunityQuery) -> shapes.OpportunityList:
    """List opportunities, a page at a time."""
    rows = narrowed(select(Opportunity), Opportunity.name, query.q)
    wanted = {
        Opportunity.stage: query.stage,
        Opportunity.company_id: query.company_id,
        Opportunity.person_id: query.person_id,
    }
    rows = equal(rows, wanted)
    page = OPPORTUNITIES.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return shapes.OpportunityList.model_validate({"items": page.rows, "next_cursor": page.next_cursor})


@blueprint.post("/opportunities")
@permits(Permission.CRM_WRITE)
@answers(201, shapes.OpportunityAnswer, tag="opportunities")
def create_opportunity(json: shapes.NewOpportunity) -> tuple[shapes.OpportunityAnswer, int, dict[str, str]]:
    """Add an opportunity."""
    opportunity = added(Opportunity(**json.model_dump()))
    return shapes.OpportunityAnswer.model_validate(opportunity), 201, _location("read_opportunity", opportunity)


@blueprint.get("/opportunities/<uuid:row_id>")
@permits(Permission.CRM_READ)
@answers(200, shapes.OpportunityAnswer, tag="opportunities")
def read_opportunity(row_id: UUID) -> shapes.OpportunityAnswer:
    """Read one opportunity."""
    return shapes.OpportunityAnswer.model_validate(found(Opportunity, row_id))


@blueprint.patch("/opportunities/<uuid:row_id>")
@permits(Permission.CRM_WRITE)
@answers(200, shapes.OpportunityAnswer, tag="opportunities")
def change_opportunity(row_id: UUID, json: shapes.OpportunityChange) -> shapes.OpportunityAnswer:
    """Change some fields of an opportunity."""
    return shapes.OpportunityAnswer.model_validate(changed(found(Opportunity, row_id), json))


@blueprint.delete("/opportunities/<uuid:row_id>")
@permits(Permission.CRM_DELETE)
@answers(204, None, tag="opportunities")
def delete_opportunity(row_id: UUID) -> tuple[str, int]:
    """Delete an opportunity."""
    return deleted(found(Opportunity, row_id))
