"""What a caller gives SQLAlchemy's session arrives there: options, engines and keys pass through ours."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, make_transient_to_detached, mapped_column, sessionmaker
from uuid_utils.compat import uuid7

from tenancy.context import account_scope, tenant_scope
from tenancy.session import TenantSession
from tenancy.tables import platform_table
from tests.conftest import SomeTenant
from tests.models import Person


class Registry(DeclarativeBase):
    pass


@platform_table(reason="published by the state")
class TaxRate(Registry):
    __tablename__ = "tax_rates"
    country: Mapped[str] = mapped_column(primary_key=True)
    year: Mapped[int] = mapped_column(primary_key=True)


Sessions = sessionmaker[TenantSession]
PersonOf = Callable[..., UUID]


@pytest.mark.parametrize("way", ["get", "get_one"])
def test_get_hands_its_options_on(acme: SomeTenant, person_of: PersonOf, sessions: Sessions, way: str) -> None:
    ada = person_of(acme, "Ada")

    with tenant_scope(acme.id), sessions(autoflush=False) as session:
        found = session.get_one(Person, ada)
        found.name = "changed here only"
        getattr(session, way)(Person, ada, populate_existing=True)

        assert found.name == "Ada"


def test_merge_hands_its_options_on(acme: SomeTenant, sessions: Sessions) -> None:
    """Without a look at the database nobody finds out that there is no such row."""
    with tenant_scope(acme.id), sessions() as session:
        ghost = Person(tenant_id=acme.id, id=uuid7())
        make_transient_to_detached(ghost)

        merged = session.merge(ghost, load=False)

        assert inspect(merged).persistent


def test_session_takes_its_engine_by_position(app_engine: Engine, acme: SomeTenant) -> None:
    with tenant_scope(acme.id), TenantSession(app_engine) as session:
        assert session.get_bind() is app_engine


def test_bare_id_of_a_tenant_table_is_no_key_in_an_account_scope(
    acme: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    ada = person_of(acme)

    with (
        account_scope(uuid7()),
        sessions() as session,
        pytest.raises(InvalidRequestError, match="Incorrect number of values in identifier"),
    ):
        session.get(Person, ada)


def test_key_of_a_platform_table_is_taken_as_it_is(acme: SomeTenant, sessions: Sessions) -> None:
    rate = TaxRate(country="NL", year=2026)
    make_transient_to_detached(rate)

    with tenant_scope(acme.id), sessions() as session:
        session.add(rate)

        assert session.get(TaxRate, {"country": "NL", "year": 2026}) is rate
        assert session.get(TaxRate, ("NL", 2026)) is rate
