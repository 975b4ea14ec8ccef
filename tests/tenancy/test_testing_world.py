"""Two tenants with rows in every table, made from the metadata, and put back as they were."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    MetaData,
    Table,
    Text,
    Uuid,
    create_engine,
    insert,
    select,
)
from sqlalchemy.pool import NullPool
from sqlalchemy.types import UserDefinedType

from tenancy.context import tenant_scope
from tenancy.embedded import Template
from tenancy.errors import ModelError, SeedError
from tenancy.tables import tenant_column
from tenancy.testing.world import OWNER, STRANGER, World, seed
from tests.conftest import ROLES, Database
from tests.models import Base, Person


@pytest.fixture
def world(fresh_database: Database) -> Iterator[World]:
    made = seed(Base.metadata, fresh_database.url, roles=ROLES)
    yield made
    made.close()


def values(world: World, table: str, column: str) -> dict[UUID, list[Any]]:
    return {tenant: [row[column] for row in rows] for tenant, rows in world.rows[table].items()}


def test_every_table_gets_rows_for_both_tenants(world: World) -> None:
    bare = [name for name in Base.metadata.tables if not all(world.rows[name][t.id] for t in world.tenants)]

    assert bare == []


def test_first_row_has_the_same_id_in_both_tenants_and_the_second_its_own(world: World) -> None:
    ids = values(world, "notes", "id")
    counted = values(world, "todos", "id")

    assert ids[OWNER.id][0] == ids[STRANGER.id][0]
    assert ids[OWNER.id][1] != ids[STRANGER.id][1]
    assert counted == {OWNER.id: [1_000_001, 1_000_004], STRANGER.id: [1_000_001, 1_000_005]}


def test_text_names_the_tenant_it_was_made_for(world: World) -> None:
    bodies = values(world, "notes", "body")

    assert bodies[OWNER.id] == ["isolation-owner body 2", "isolation-owner body 4"]
    assert bodies[STRANGER.id] == ["isolation-stranger body 3", "isolation-stranger body 5"]


def test_tenants_are_open_and_found_by_their_slugs(world: World) -> None:
    assert values(world, "tenants", "slug") == {OWNER.id: [OWNER.slug], STRANGER.id: [STRANGER.slug]}
    assert values(world, "tenants", "status") == {OWNER.id: ["active"], STRANGER.id: ["active"]}


def test_foreign_keys_point_within_the_tenant_nullable_ones_too(world: World) -> None:
    people, companies = values(world, "people", "company_id"), values(world, "companies", "id")

    assert people[STRANGER.id][:2] == companies[STRANGER.id]
    assert values(world, "people", "manager_id")[OWNER.id][:2] == [None, values(world, "people", "id")[OWNER.id][0]]


def test_seeding_twice_makes_the_same_ids(world: World, template: Template) -> None:
    name = template.clone("fresh_twice")
    try:
        again = seed(Base.metadata, Database(template.server, name).url)
        again.close()
    finally:
        template.drop(name)

    assert values(again, "people", "id") == values(world, "people", "id")


def test_factory_is_asked_about_every_row(fresh_database: Database) -> None:
    asked: list[tuple[str, str]] = []

    def factory(table: Table, guessed: Mapping[str, Any]) -> Mapping[str, Any] | None:
        asked.append((table.name, str(guessed.get("body", ""))))
        return {"body": f"rewritten: {guessed['body']}"} if table.name == "notes" else None

    made = seed(Base.metadata, fresh_database.url, factory=factory)
    made.close()

    assert ("notes", "isolation-owner body 2") in asked
    assert {name for name, _ in asked} == set(Base.metadata.tables)
    assert values(made, "notes", "body")[OWNER.id][0] == "rewritten: isolation-owner body 2"


def test_scope_of_the_caller_is_not_that_of_the_seeding(fresh_database: Database) -> None:
    with tenant_scope(UUID(int=7)):
        made = seed(Base.metadata, fresh_database.url)
    made.close()

    assert {row["tenant_id"] for rows in made.rows["people"].values() for row in rows} == {OWNER.id, STRANGER.id}


def test_refused_row_is_named_with_its_constraint_and_the_way_out(empty_database: Database) -> None:
    metadata = MetaData()
    column = Column("state", Text, CheckConstraint("state LIKE 'x%'", name="starts_with_x"), nullable=False)
    Table("states", metadata, tenant_column(), Column("id", Uuid, primary_key=True), column)
    engine = create_engine(empty_database.url("postgres"), poolclass=NullPool)
    metadata.create_all(engine)

    with pytest.raises(SeedError, match=r"'states': constraint 'starts_with_x'.*row factory"):
        seed(metadata, empty_database.url)

    made = seed(metadata, empty_database.url, factory=lambda _table, row: {"state": f"x {row['state']}"})
    made.close()
    assert values(made, "states", "state")[OWNER.id][0] == "x isolation-owner state 2"


def test_default_that_fails_is_named_with_its_table(empty_database: Database) -> None:
    def signed_in() -> str:
        raise RuntimeError("nobody is signed in")

    metadata = MetaData()
    column = Column("by_whom", Text, default=signed_in)
    Table("changes", metadata, tenant_column(), Column("id", Uuid, primary_key=True), column)
    metadata.create_all(create_engine(empty_database.url("postgres"), poolclass=NullPool))

    with pytest.raises(SeedError, match="'changes': nobody is signed in"):
        seed(metadata, empty_database.url)


def test_type_that_nobody_knows_is_named_with_its_column(empty_database: Database) -> None:
    class Strange(UserDefinedType[str]):
        cache_ok = True

        def get_col_spec(self, **_options: Any) -> str:
            return "text"

    metadata = MetaData()
    Table("odd", metadata, tenant_column(), Column("what", Strange()))

    with pytest.raises(ModelError, match=r"nothing is known of the type .* of odd\.what"):
        seed(metadata, empty_database.url)


def test_rows_that_need_each_other_at_once_are_refused_by_name(empty_database: Database) -> None:
    metadata = MetaData()
    for name, other in (("eggs", "hens"), ("hens", "eggs")):
        Table(
            name,
            metadata,
            tenant_column(),
            Column("id", Uuid, primary_key=True),
            Column("other_id", Uuid, nullable=False),
            ForeignKeyConstraint(
                ["tenant_id", "other_id"], [f"{other}.tenant_id", f"{other}.id"], use_alter=True, name=f"{name}_other"
            ),
        )

    with pytest.raises(SeedError, match="'eggs' and 'hens' each need a row of the other first"):
        seed(metadata, empty_database.url)


def test_restore_puts_back_what_was_changed_added_and_deleted(world: World) -> None:
    before = world.snapshot()
    world.admin.execute("UPDATE people SET name = 'changed' WHERE tenant_id = %s", [STRANGER.id])
    world.admin.execute("DELETE FROM notes")
    world.admin.execute(
        "INSERT INTO tags (tenant_id, id, label) SELECT tenant_id, gen_random_uuid(), 'new' FROM tenants"
    )
    assert world.snapshot() != before

    changed = world.restore()

    assert sorted(changed) == ["notes", "people", "tags"]
    assert world.snapshot() == before
    assert world.restore() == []


def test_restore_leaves_sequences_where_they_are(world: World) -> None:
    first = world.admin.execute("INSERT INTO todos (tenant_id, title) VALUES (%s, 'x') RETURNING id", [OWNER.id])
    number = int(next(iter(first))[0])

    world.restore()

    second = world.admin.execute("INSERT INTO todos (tenant_id, title) VALUES (%s, 'x') RETURNING id", [OWNER.id])
    assert int(next(iter(second))[0]) == number + 1


def test_snapshot_of_named_tables_holds_no_others(world: World) -> None:
    assert list(world.snapshot(["tags"])) == ["tags"]
    assert len(world.snapshot(["tags"])["tags"]) == 8


def test_app_engine_is_the_app_role_in_its_scope(world: World) -> None:
    with tenant_scope(OWNER), world.sessions() as session:
        found = session.scalars(select(Person.tenant_id)).all()
        role = session.connection().exec_driver_sql("SELECT current_user").scalar_one()

    assert set(found) == {OWNER.id}
    assert role == ROLES.app


def test_closed_world_opens_new_connections(world: World) -> None:
    first = world.app_engine
    world.close()

    with tenant_scope(OWNER), world.sessions() as session:
        assert session.scalars(select(Person)).first() is not None
    assert world.app_engine is not first


def test_fresh_rows_can_be_inserted_in_every_table(world: World) -> None:
    engine = create_engine(world.url("postgres"), poolclass=NullPool)
    tables = [table for table in Base.metadata.sorted_tables if "tenant_id" in table.c and table.name != "tenants"]
    before = {name: len(lines) for name, lines in world.snapshot().items()}

    for table in tables:
        with engine.begin() as connection:
            for number in (0, 1):
                connection.execute(insert(table).values(world.fresh(table, STRANGER, number)))

    assert {name: len(lines) - before[name] for name, lines in world.snapshot(t.name for t in tables).items()} == {
        "companies": 2,
        "domains": 2,
        "tags": 2,
        "todos": 2,
        "people": 2,
        "notes": 2,
        "person_tags": 2,
    }
