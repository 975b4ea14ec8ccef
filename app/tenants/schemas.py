"""What the routes of a tenant's own domains, of slugs, and of what staff do to tenants' lives take and answer."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field

from app.schemas import Answer, Body, Query, Text
from app.tenants.domains import challenge_of
from app.tenants.models import Domain, DomainState


class NewDomain(Body):
    """A domain to claim."""

    domain: Text = Field(min_length=1, max_length=253, description="Such as `planning.example.com`, without a scheme.")


class ChallengeAnswer(Answer):
    """The TXT record to set where the domain's DNS is kept. It stays there for as long as the domain is used."""

    name: str = Field(description="The record's name.")
    value: str = Field(description="What the record has to hold.")


class DomainAnswer(Answer):
    """A claim to a domain, and what the DNS says of it."""

    id: UUID
    domain: str
    state: DomainState = Field(
        description="`waiting`: no record found yet. `wrong_value`: one was found, with another value. `verified`: it "
        "leads to this tenant. `failing`: it still does, and the record has gone. `lost`: the record stayed away."
    )
    expected: ChallengeAnswer
    found: list[str] = Field(description="What the record held when it was last looked at.")
    failures: int = Field(description="Checks in a row that failed since it was verified.")
    checked_at: datetime | None
    verified_at: datetime | None

    @classmethod
    def of(cls, domain: Domain) -> DomainAnswer:
        expected = challenge_of(domain)
        return cls(
            id=domain.id,
            domain=domain.domain,
            state=domain.state,
            expected=ChallengeAnswer(name=expected.name, value=expected.value),
            found=domain.found,
            failures=domain.failures,
            checked_at=domain.checked_at,
            verified_at=domain.verified_at,
        )


class DomainList(Answer):
    """Every domain of a tenant; there are few."""

    items: list[DomainAnswer]


class SlugQuery(Query):
    """A slug somebody would like to have."""

    slug: Text = Field(min_length=1, max_length=200)


class SlugAnswer(Answer):
    """Whether a slug can be had. It is not kept: somebody may be faster."""

    slug: str = Field(description="The slug in its one spelling; as it was sent where it is none.")
    is_available: bool
    reason: str | None = Field(description="Why it cannot be had.")
    suggestion: str | None = Field(description="One like it that can.")
