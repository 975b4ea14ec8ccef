"""What the routes of the CRM take and answer."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from app.crm.models import Stage
from app.schemas import Answer, Body, Email, ListQuery, Name, Text, omitted, storable

Note = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000), AfterValidator(storable)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
Cents = Annotated[int, Field(ge=0, le=10**15, strict=True, description="An amount in hundredths of the currency.")]
NameSort = Literal["name", "-name", "created_at", "-created_at"]
OpportunitySort = Literal["name", "-name", "created_at", "-created_at", "amount_cents", "-amount_cents"]


class _Row(Answer):
    id: UUID
    created_at: datetime
    updated_at: datetime


class _ListAnswer(Answer):
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


# Companies --------------------------------------------------------------------------------------------


class NewCompany(Body):
    """A company to add."""

    name: Name
    website: Note | None = None


class CompanyChange(Body):
    """The fields of a company to change; those left out stay."""

    name: Name = omitted()
    website: Note | None = None


class CompanyAnswer(_Row):
    """A company."""

    name: str
    website: str | None


class CompanyList(_ListAnswer):
    """One page of companies."""

    items: list[CompanyAnswer]


class CompanyQuery(ListQuery):
    """Which companies, in which order."""

    sort: NameSort = "name"
    q: Text | None = Field(None, max_length=200, description="Part of the name, in either case.")


# People -----------------------------------------------------------------------------------------------


class NewPerson(Body):
    """A person to add."""

    name: Name
    email: Email | None = None
    phone: Note | None = None
    company_id: UUID | None = None


class PersonChange(Body):
    """The fields of a person to change; those left out stay."""

    name: Name = omitted()
    email: Email | None = None
    phone: Note | None = None
    company_id: UUID | None = None


class PersonAnswer(_Row):
    """A person."""

    name: str
    email: str | None
    phone: str | None
    company_id: UUID | None


class PersonList(_ListAnswer):
    """One page of people."""

    items: list[PersonAnswer]


class PersonQuery(ListQuery):
    """Which people, in which order."""

    sort: NameSort = "name"
    q: Text | None = Field(None, max_length=200, description="Part of the name, in either case.")
    email: Email | None = None
    company_id: UUID | None = None


# Opportunities ----------------------------------------------------------------------------------------


class NewOpportunity(Body):
    """An opportunity to add."""

    name: Name
    stage: Stage = Stage.LEAD
    amount_cents: Cents = 0
    currency: Currency = "EUR"
    closes_on: date | None = None
    company_id: UUID | None = None
    person_id: UUID | None = None


class OpportunityChange(Body):
    """The fields of an opportunity to change; those left out stay."""

    name: Name = omitted()
    stage: Stage = omitted()
    amount_cents: Cents = omitted()
    currency: Currency = omitted()
    closes_on: date | None = None
    company_id: UUID | None = None
    person_id: UUID | None = None


class OpportunityAnswer(_Row):
    """An opportunity."""

    name: str
    stage: Stage
    amount_cents: int
    currency: str
    closes_on: date | None
    company_id: UUID | None
    person_id: UUID | None


class OpportunityList(_ListAnswer):
    """One page of opportunities."""

    items: list[OpportunityAnswer]


class OpportunityQuery(ListQuery):
    """Which opportunities, in which order."""

    sort: OpportunitySort = "-created_at"
    q: Text | None = Field(None, max_length=200, description="Part of the name, in either case.")
    stage: Stage | None = None
    company_id: UUID | None = None
    person_id: UUID | None = None
