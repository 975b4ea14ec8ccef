"""Two tenants to look at, made the way customers make theirs: through the application's own operations and roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.audit.actors import Actor, ActorKind, acting_as
from app.auth.desk import Desk
from app.auth.operations import authenticate, register_organization
from app.crm.models import Stage
from app.errors import NotSignedInError
from app.members.models import account_of_email, memberships
from app.members.permissions import Role
from app.models import Account, Company, Domain, Member, Opportunity, Person
from app.tenants.models import Plan, tenant_by_slug
from tenancy.context import account_scope, tenant_scope
from tenancy.tables import new_id

OWNER = "olivia@example.com"
DOMAINS: Mapping[str, str] = {"acme": "crm.acme.example"}
TENANTS: Mapping[str, str] = {"acme": "Acme", "globex": "Globex"}
MEMBERS: Mapping[str, Mapping[str, Role]] = {
    OWNER: {"acme": Role.OWNER, "globex": Role.OWNER},
    "mara@acme.example": {"acme": Role.MEMBER},
    "george@globex.example": {"globex": Role.MEMBER},
}
ACCOUNTS = tuple(MEMBERS)


@dataclass(frozen=True)
class Example:
    """What one tenant deals with.

    companies: name, website, and the people there. deals: name, company, stage, whole euros, days until it closes.
    """

    companies: Sequence[tuple[str, str, str]]
    deals: Sequence[tuple[str, int, Stage, int, int]]


EXAMPLES: Mapping[str, Example] = {
    "acme": Example(
        companies=(
            (
                "Nordlicht Energie",
                "nordlicht.example",
                "Anneke Brandt, Jonas Petersen, Silke Vogt, Tomas Lindqvist, Ebba Holm",
            ),
            ("Marivaux Logistics", "marivaux.example", "Camille Durand, Théo Marchand, Inès Lefèvre, Hugo Perrin"),
            (
                "Bright Harbour Foods",
                "brightharbour.example",
                "Amelia Clarke, Rohan Mehta, Grace Okafor, Liam Doyle, Poppy Shaw",
            ),
            ("Studio Peregrine", "peregrine.example", "Isabel Navarro, Kenji Watanabe, Zofia Kowalska"),
            ("Castell Rail", "castellrail.example", "Gwen Pritchard, Rhys Morgan, Martí Puig, Nerea Etxeberria"),
            (
                "Helix Diagnostics",
                "helixdx.example",
                "Dr Leila Haddad, Samuel Boateng, Priya Raman, Noor Aziz, Victor Sandoval, Yuki Tanaka",
            ),
        ),
        deals=(
            ("Grid analytics pilot", 0, Stage.PROPOSAL, 84_000, 34),
            ("Smart-meter rollout", 0, Stage.QUALIFIED, 310_000, 120),
            ("Route planning licence", 1, Stage.WON, 46_500, -12),
            ("Depot dashboards", 1, Stage.LEAD, 18_000, 75),
            ("Cold-chain monitoring", 2, Stage.PROPOSAL, 127_400, 21),
            ("Supplier portal", 2, Stage.LOST, 39_000, -40),
            ("Brand asset library", 3, Stage.LEAD, 9_800, 60),
            ("Timetable forecasting", 4, Stage.QUALIFIED, 205_000, 90),
            ("Lab sample tracking", 5, Stage.WON, 68_250, -5),
            ("Results gateway", 5, Stage.LEAD, 52_000, 48),
        ),
    ),
    "globex": Example(
        companies=(
            ("Tidewater Shipyards", "tidewater.example", "Henrik Solberg, Marta Nowak, Caleb Turner"),
            ("Aurelia Textiles", "aurelia.example", "Beatrice Conti, Luca Ferraro, Elif Demir, Paolo Greco"),
            ("Quantum Grove", "quantumgrove.example", "Naomi Feldman, Arjun Kapoor, Sofia Duarte"),
            ("Redwood Civic Trust", "redwoodtrust.example", "Walter Hughes, Denise Carter, Andre Johnson"),
        ),
        deals=(
            ("Dry-dock scheduling", 0, Stage.PROPOSAL, 142_000, 27),
            ("Crew certification records", 0, Stage.LEAD, 33_000, 80),
            ("Loom maintenance contract", 1, Stage.WON, 58_900, -8),
            ("Colour-matching service", 1, Stage.QUALIFIED, 21_600, 44),
            ("Orchard sensor network", 2, Stage.QUALIFIED, 96_000, 66),
            ("Grant reporting", 3, Stage.LOST, 15_000, -30),
            ("Volunteer directory", 3, Stage.LEAD, 12_400, 52),
        ),
    ),
}


class SeedError(Exception):
    """The examples cannot be made here without touching what is somebody's own."""


def seed(desk: Desk, passwords: Mapping[str, str]) -> None:
    """Make what is missing of the examples; what somebody has since changed in a tenant stays.

    passwords: by e-mail address, one for each of ACCOUNTS; an account that has another one is given this one.
    Raises: SeedError - a tenant has the slug of an example, and somebody else owns it.
    """
    tenants = {slug: _tenant(desk, slug, name, passwords[OWNER]) for slug, name in TENANTS.items()}
    for email, roles in MEMBERS.items():
        account_id = _account(desk, email, passwords[email])
        joined = _tenants_of(desk, account_id)
        for slug, role in roles.items():
            if tenants[slug] not in joined:
                account_id = _join(desk, tenants[slug], account_id, email, passwords[email], role=role)
    for slug, example in EXAMPLES.items():
        with tenant_scope(tenants[slug]), desk.database.sessions.begin() as session:
            if session.scalar(select(Company.id).limit(1)) is None:
                _fill(session, example)
        if slug in DOMAINS:
            _lend_domain(desk, tenants[slug], DOMAINS[slug])


def fill_with_examples(session: Session, given: Mapping[str, Any]) -> None:
    """Put the first example's people and deals into a new tenant, where its step of provisioning asks for it."""
    if given.get("with_examples"):
        _fill(session, EXAMPLES["acme"])


def _lend_domain(desk: Desk, tenant_id: UUID, domain: str) -> None:
    """Give an example a domain without asking the DNS, where the name could never be set."""
    with (
        acting_as(Actor(ActorKind.SYSTEM, "seed", "seed")),
        desk.registrar.in_tenant(tenant_id, reason="the examples are made") as session,
    ):
        if session.scalar(select(Domain.id).limit(1)) is None:
            session.add(Domain(domain=domain, verified_at=datetime.now(UTC)))


def _tenant(desk: Desk, slug: str, name: str, password: str) -> UUID:
    account_id = _account(desk, OWNER, password)
    found = desk.look_up(tenant_by_slug, slug)
    if not found:
        return register_organization(desk, name=name, email=OWNER, password=password, plan=Plan.PREMIUM).tenant.id
    tenant_id: UUID = found[0].tenant_id
    if tenant_id not in _tenants_of(desk, account_id):
        raise SeedError(f"The tenant {slug!r} belongs to somebody else. Seed a database that has no such tenant.")
    return tenant_id


def _tenants_of(desk: Desk, account_id: UUID | None) -> set[UUID]:
    """Return every tenant the account belongs to, open or not."""
    return set() if account_id is None else {row.tenant_id for row in desk.look_up_for(account_id, memberships)}


def _account(desk: Desk, email: str, password: str) -> UUID | None:
    """Return the account, its password set; None when there is none."""
    found = desk.look_up(account_of_email, email)
    if not found:
        return None
    account_id: UUID = found[0].id
    try:
        authenticate(desk, email=email, password=password)
    except NotSignedInError:
        stored = desk.passwords.hash(password)
        with account_scope(account_id), desk.database.sessions.begin() as session:
            session.execute(update(Account).where(Account.id == account_id).values(password_hash=stored))
    return account_id


def _join(desk: Desk, tenant_id: UUID, account_id: UUID | None, email: str, password: str, *, role: Role) -> UUID:
    joining = account_id or new_id()
    stored = None if account_id else desk.passwords.hash(password)
    with tenant_scope(tenant_id, account=joining), desk.database.sessions.begin() as session:
        if stored is not None:
            session.add(Account(id=joining, email=email, password_hash=stored))
            session.flush()
        session.add(Member(account_id=joining, email=email, role=role))
    return joining


def _fill(session: Session, example: Example) -> None:
    companies, contacts = [], []
    for number, (name, website, people) in enumerate(example.companies):
        company = Company(name=name, website=f"https://{website}")
        session.add(company)
        session.flush()
        companies.append(company)
        staff = [
            Person(
                name=person, email=f"{_mailbox(person)}@{website}", phone=_phone(number, place), company_id=company.id
            )
            for place, person in enumerate(people.split(", "))
        ]
        session.add_all(staff)
        session.flush()
        contacts.append(staff[0])
    today = _today()
    session.add_all(
        Opportunity(
            name=name,
            stage=stage,
            amount_cents=euros * 100,
            currency="EUR",
            closes_on=today + timedelta(days=days),
            company_id=companies[place].id,
            person_id=contacts[place].id,
        )
        for name, place, stage, euros, days in example.deals
    )


def _mailbox(person: str) -> str:
    plain = person.removeprefix("Dr ").lower().translate(str.maketrans("éèêíï", "eeeii"))
    return plain.replace(" ", ".")


def _phone(company: int, place: int) -> str:
    return f"+49 30 5550 {company + 1}{place + 10:02}"


def _today() -> date:
    return datetime.now(UTC).date()
