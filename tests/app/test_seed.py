"""The examples: made once, added to by nobody's accident, and never in somebody else's tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from app import close_app, create_app
from app.auth.desk import Desk
from app.auth.operations import authenticate, memberships_of, register_organization, sign_in
from app.config import development_settings
from app.models import Company, Member, Opportunity, Person
from app.seed import ACCOUNTS, OWNER, SeedError, seed
from app.tenants.models import Plan
from tenancy.context import tenant_scope
from tenancy.embedded import Template
from tests.app.conftest import PASSWORD
from tests.conftest import ROLES, Database

PASSWORDS = dict.fromkeys(ACCOUNTS, PASSWORD)


@pytest.fixture
def desk(app_template: Template, worker: str) -> Iterator[Desk]:
    """The desk of an application whose database holds no tenant yet."""
    name = app_template.clone(f"seed_{worker}")
    empty = Database(app_template.server, name)
    settings = development_settings(
        database_url=empty.url(ROLES.app),
        platform_database_url=empty.url(ROLES.platform),
        argon2_time_cost=1,
        argon2_memory_kib=8,
        argon2_parallelism=1,
    )
    app = create_app(settings)
    yield app.extensions["auth"]
    close_app(app)
    app_template.drop(name)


def _counts(desk: Desk, tenant: str) -> Counter[str]:
    found = sign_in(desk, email=OWNER, password=PASSWORD, tenant=tenant)
    with tenant_scope(found.tenant), desk.database.sessions() as session:
        return Counter(
            {
                model.__tablename__: session.scalar(select(func.count()).select_from(model)) or 0
                for model in (Company, Person, Opportunity, Member)
            }
        )


def test_each_tenant_gets_its_own_examples_once(desk: Desk) -> None:
    seed(desk, PASSWORDS)
    seed(desk, PASSWORDS)

    assert _counts(desk, "acme") == {"companies": 6, "people": 27, "opportunities": 10, "members": 2}
    assert _counts(desk, "globex") == {"companies": 4, "people": 13, "opportunities": 7, "members": 2}


def test_one_account_owns_both_tenants_and_each_other_belongs_to_one(desk: Desk) -> None:
    seed(desk, PASSWORDS)

    belongs = {
        email: [one.tenant.slug for one in memberships_of(desk, authenticate(desk, email=email, password=PASSWORD))]
        for email in ACCOUNTS
    }

    assert belongs == {
        "olivia@example.com": ["acme", "globex"],
        "mara@acme.example": ["acme"],
        "george@globex.example": ["globex"],
    }


def test_somebody_elses_tenant_of_the_same_name_is_left_alone(desk: Desk) -> None:
    theirs = register_organization(desk, name="Acme", email="eve@acme.test", password=PASSWORD, plan=Plan.BASIC)

    with pytest.raises(SeedError, match="belongs to somebody else"):
        seed(desk, PASSWORDS)

    with tenant_scope(theirs.tenant), desk.database.sessions() as session:
        assert session.scalars(select(Member.email)).all() == ["eve@acme.test"]
        assert session.scalar(select(Company.id).limit(1)) is None
