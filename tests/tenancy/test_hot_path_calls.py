"""What a transaction, an object and a request cost beside those without the library, in calls of functions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from werkzeug.test import EnvironBuilder

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.flask import Tenancy
from tenancy.resolvers import from_subdomain
from tenancy.session import tenant_sessionmaker
from tenancy.tables import TenantTable, new_id
from tests.conftest import ROLES, Database, SomeTenant
from tests.tenancy.counting import fewest_calls_of
from tests.tenancy.directories import ACME, ListedDirectory


class PlainBase(DeclarativeBase):
    pass


class PlainPerson(PlainBase):
    """A person as an application without a tenancy library has one."""

    __tablename__ = "people"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    email: Mapped[str]


class OurBase(DeclarativeBase):
    pass


class OurPerson(TenantTable, OurBase):
    __tablename__ = "people"
    name: Mapped[str]
    email: Mapped[str]


@dataclass
class Side:
    """The library's way to do a thing, or the way without it: the tenant in each statement and object by hand."""

    sessions: sessionmaker[Any]
    model: Any
    tenant: UUID
    stamp: dict[str, UUID]

    def get(self) -> None:
        with self._session() as session:
            session.get(self.model, (self.tenant, self.tenant))

    def listing(self) -> None:
        with self._session() as session:
            statement = select(self.model).where(*(self.model.tenant_id == tenant for tenant in self.stamp.values()))
            session.scalars(statement.limit(10)).all()

    def inserts(self, count: int) -> None:
        with self._session() as session:
            session.add_all(self.model(name="Ada", email=f"{new_id()}@hot.test", **self.stamp) for _ in range(count))

    @contextmanager
    def _session(self) -> Iterator[Session]:
        scope = nullcontext() if self.stamp else tenant_scope(self.tenant)
        with scope, self.sessions.begin() as session:
            yield session


@pytest.fixture
def sides(database: Database, acme: SomeTenant) -> Iterator[tuple[Side, Side]]:
    # Engines of its own: once somebody listened to one, SQLAlchemy dispatches events for good.
    plain, ours = create_engine(database.url("postgres")), create_tenant_engine(database.url(ROLES.app))
    yield (
        Side(sessionmaker(plain), PlainPerson, acme.id, {"tenant_id": acme.id}),
        Side(tenant_sessionmaker(ours), OurPerson, acme.id, {}),
    )
    plain.dispose()
    ours.dispose()


@pytest.mark.parametrize(
    ("act", "more"),
    [(Side.get, 183), (Side.listing, 88), (partial(Side.inserts, count=1), 126)],
    ids=["get", "list", "insert"],
)
def test_transaction_calls_few_functions_more_than_one_without_the_library(
    sides: tuple[Side, Side], act: Callable[[Side], None], more: int
) -> None:
    """In a scope of its own. A time would tell of the machine; each call of a function is some 0.1 µs."""
    plain, ours = (fewest_calls_of(partial(act, side)) for side in sides)

    assert ours - plain <= more


def test_object_costs_few_calls_more_than_one_without_the_library(sides: tuple[Side, Side]) -> None:
    """Stamped when it is made, and checked when it is added and when it is flushed."""
    plain, ours = (
        (fewest_calls_of(partial(side.inserts, 101)) - fewest_calls_of(partial(side.inserts, 1))) / 100
        for side in sides
    )

    assert ours - plain <= 14


def test_request_calls_few_functions_more_than_in_bare_flask(sessions: sessionmaker[Session]) -> None:
    """The tenant found by its subdomain in a warm directory, its scope, and what is said to caches of the answer."""
    bare, guarded = Flask("bare"), Flask("guarded")
    tenancy = Tenancy(
        sessions=sessions,
        directory=ListedDirectory(ACME),
        resolvers=[from_subdomain("example.com")],
        startup_check=False,
    )
    tenancy.init_app(guarded)
    for app in (bare, guarded):
        app.add_url_rule("/", view_func=lambda: "ok", endpoint="home")
    environ = EnvironBuilder("/").get_environ() | {"HTTP_HOST": "acme.example.com"}

    def serve(app: Flask) -> None:
        for _ in app.wsgi_app(environ.copy(), lambda *_: lambda _: None):
            pass

    plain, ours = (fewest_calls_of(partial(serve, app)) for app in (bare, guarded))

    assert ours - plain <= 230
