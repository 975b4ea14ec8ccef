from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, MetaData, String, Table, func, insert, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.schema import CreateIndex, CreateTable
from uuid_utils.compat import uuid7

from tenancy.context import account_scope, tenant_scope
from tenancy.errors import ModelError, NoTenantError
from tenancy.session import TenantSession
from tenancy.tables import (
    TenantIndex,
    TenantTable,
    guarded_tables,
    mark_of,
    platform_table,
    registry_table,
    tenant_tables,
)
from tests.conftest import SomeTenant
from tests.models import Account, Base, Company, Person, Tenant, Todo, person_tags

Sessions = sessionmaker[TenantSession]
ACME = uuid7()


def sql_of(element: Any) -> str:
    return " ".join(str(element.compile(dialect=postgresql.dialect())).split())  # type: ignore[no-untyped-call]


# Keys and stamps --------------------------------------------------------------------------------------


def test_primary_key_is_the_tenant_and_the_id() -> None:
    assert [column.name for column in Person.__table__.primary_key] == ["tenant_id", "id"]
    assert [column.name for column in Person.__table__.columns][:2] == ["tenant_id", "id"]


def test_object_is_stamped_with_the_tenant_in_scope_when_constructed() -> None:
    with tenant_scope(ACME):
        person = Person(name="Ada", email="ada@test.example")

    assert person.tenant_id == ACME


def test_object_constructed_without_a_tenant_is_refused() -> None:
    with pytest.raises(NoTenantError):
        Person(name="Ada", email="ada@test.example")
    with account_scope(uuid7()), pytest.raises(NoTenantError):
        Person(name="Ada", email="ada@test.example")


def test_constructor_takes_the_tenant_in_scope() -> None:
    with tenant_scope(ACME):
        assert Person(tenant_id=ACME, name="Ada", email="ada@test.example").tenant_id == ACME


def test_ids_are_time_ordered_uuids(acme: SomeTenant, sessions: Sessions) -> None:
    with tenant_scope(acme.id), sessions.begin() as session:
        people = [Person(name="Ada", email=f"{n}@test.example") for n in range(3)]
        for person in people:
            session.add(person)
            session.flush()
        ids = [person.id for person in people]

    assert [found.version for found in ids] == [7, 7, 7]
    assert ids == sorted(ids)


def test_core_insert_is_given_the_tenant_and_an_id(acme: SomeTenant, sessions: Sessions) -> None:
    with tenant_scope(acme.id), sessions.begin() as session:
        session.connection().execute(insert(Base.metadata.tables["companies"]).values(name="Engines"))
        tenant, found = session.execute(select(Company.tenant_id, Company.id)).one()

    assert (tenant, found.version) == (acme.id, 7)


def test_core_insert_into_a_link_table_is_given_the_tenant(acme: SomeTenant) -> None:
    with tenant_scope(acme.id):
        default: Any = person_tags.c.tenant_id.default
        assert default.arg(None) == acme.id


def test_core_insert_without_a_tenant_is_refused_by_the_librarys_own_error(sessions: Sessions) -> None:
    """SQLAlchemy would wrap what a default raises in its StatementError."""
    with account_scope(uuid7()), sessions() as session, pytest.raises(NoTenantError):
        session.execute(insert(Company).values(name="Engines"))


# Models that had an id before -------------------------------------------------------------------------


def test_integer_id_of_a_models_own_goes_on_counting(acme: SomeTenant, globex: SomeTenant, sessions: Sessions) -> None:
    ids = []
    for tenant in (acme, globex, acme):
        with tenant_scope(tenant.id), sessions.begin() as session:
            todo = Todo(title="write")
            session.add(todo)
            session.flush()
            ids.append(todo.id)

    assert len(set(ids)) == 3
    assert [column.name for column in Todo.__table__.primary_key] == ["tenant_id", "id"]


def test_integer_id_is_drawn_from_a_sequence_in_sql() -> None:
    assert "id SERIAL NOT NULL" in sql_of(CreateTable(Base.metadata.tables["todos"]))


def test_integer_id_that_does_not_count_is_left_alone() -> None:
    class Own(DeclarativeBase):
        pass

    class Referring(TenantTable, Own):
        __tablename__ = "referring"
        id: Mapped[int] = mapped_column(ForeignKey("elsewhere.id"), primary_key=True)  # type: ignore[assignment]

    class Still(TenantTable, Own):
        __tablename__ = "still"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)  # type: ignore[assignment]

    assert Referring.__table__.c.id.autoincrement == "auto"
    assert Still.__table__.c.id.autoincrement is False


def test_class_that_inherits_the_table_of_another_is_left_alone() -> None:
    class Own(DeclarativeBase):
        pass

    class Animal(TenantTable, Own):
        __tablename__ = "animals"
        kind: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012

    class Dog(Animal):
        __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012

    with tenant_scope(ACME):
        assert Dog().tenant_id == ACME


# Constraints ------------------------------------------------------------------------------------------


def test_foreign_key_carries_the_tenant() -> None:
    sql = sql_of(CreateTable(Base.metadata.tables["notes"]))

    assert "FOREIGN KEY(tenant_id, person_id) REFERENCES people (tenant_id, id) ON DELETE CASCADE" in sql


def test_set_null_blanks_the_column_and_keeps_the_tenant() -> None:
    sql = sql_of(CreateTable(Base.metadata.tables["people"]))

    assert (
        "FOREIGN KEY(tenant_id, company_id) REFERENCES companies (tenant_id, id) ON DELETE SET NULL (company_id)" in sql
    )


def test_unique_constraint_is_led_by_the_tenant() -> None:
    assert "UNIQUE (tenant_id, email)" in sql_of(CreateTable(Base.metadata.tables["people"]))


def test_index_is_led_by_the_tenant_and_named_after_its_columns() -> None:
    (index,) = Base.metadata.tables["people"].indexes

    assert sql_of(CreateIndex(index)) == "CREATE INDEX ix_people_name ON people (tenant_id, name)"


def test_index_over_an_expression_needs_a_name() -> None:
    with pytest.raises(ModelError, match="no natural name"):
        TenantIndex(func.lower("name"))

    table = Table("t", MetaData(), Column("tenant_id", String), Column("name", String))
    index = TenantIndex(func.lower(table.c.name), name="ix_t_lower")
    table.append_constraint(index)
    assert sql_of(CreateIndex(index)) == "CREATE INDEX ix_t_lower ON t (tenant_id, lower(name))"


def test_constraint_copied_to_other_metadata_stays_the_same() -> None:
    """Alembic and `to_metadata` copy tables; a copy must not add the tenant twice."""
    metadata = MetaData()
    for table in Base.metadata.sorted_tables:
        table.to_metadata(metadata)
    copied = metadata.tables["people"]

    original = sql_of(CreateTable(Base.metadata.tables["people"]))
    assert sql_of(CreateTable(copied)).count("UNIQUE (tenant_id, email)") == original.count("UNIQUE (tenant_id, email)")
    assert sql_of(CreateTable(copied)).count("ON DELETE SET NULL (company_id)") == 1
    assert [i.name for i in copied.indexes] == ["ix_people_name"]


# Marks ------------------------------------------------------------------------------------------------


def test_marks_tell_how_a_table_is_isolated() -> None:
    def mark(model: Any) -> Any:
        return mark_of(model.__table__)

    assert (mark(Person).kind, mark(Tenant).kind, mark(Account).kind) == ("tenant", "registry", "account")
    assert mark(Account).account_key == "id"
    assert mark(Tenant).app_update == ("name", "updated_at")


def test_unmarked_table_without_a_tenant_has_no_mark() -> None:
    assert mark_of(Table("plain", MetaData(), Column("id", Integer))) is None


def test_table_and_model_can_both_be_marked() -> None:
    table = Table("countries", MetaData(), Column("id", Integer))

    assert platform_table(reason="public knowledge")(table) is table
    found = mark_of(table)
    assert found is not None
    assert (found.kind, found.reason) == ("platform", "public knowledge")


def test_platform_table_without_a_reason_is_refused() -> None:
    with pytest.raises(ModelError, match="without a reason"):
        platform_table(reason=" ")


@pytest.mark.parametrize("mark", [platform_table(reason="why"), registry_table(app_update=())])
def test_only_something_with_a_table_can_be_marked(mark: Callable[[object], object]) -> None:
    with pytest.raises(ModelError, match="has no table to mark"):
        mark(object())


def test_tables_are_walked_in_the_order_of_their_foreign_keys() -> None:
    names = [table.name for table in tenant_tables(Base.metadata)]

    assert names.index("companies") < names.index("people") < names.index("notes")
    assert "accounts" not in names
    assert "accounts" in [table.name for table in guarded_tables(Base.metadata)]


def test_plain_platform_table_is_not_guarded() -> None:
    metadata = MetaData()
    platform_table(reason="public knowledge")(Table("countries", metadata, Column("id", Integer)))
    Table("unmarked", metadata, Column("id", Integer))

    assert guarded_tables(metadata) == []
