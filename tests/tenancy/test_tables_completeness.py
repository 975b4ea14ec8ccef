from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from tenancy.errors import ModelError
from tenancy.tables import (
    TenantForeignKey,
    TenantIndex,
    TenantUnique,
    check_metadata,
    platform_table,
    registry_table,
    tenant_column,
)
from tests.models import Base


def tenant_id(**options: Any) -> Column[Any]:
    return Column("tenant_id", Uuid, **({"primary_key": True} | options))


def id_column() -> Column[Any]:
    return Column("id", Uuid, primary_key=True)


def metadata_of(*arguments: Any, name: str = "t") -> MetaData:
    metadata = MetaData()
    Table(name, metadata, *arguments)
    return metadata


def test_metadata_of_every_supported_shape_is_complete() -> None:
    check_metadata(Base.metadata)


def test_tables_by_the_helpers_are_complete() -> None:
    metadata = metadata_of(tenant_column(), id_column(), name="parents")
    Table(
        "children",
        metadata,
        tenant_column(),
        id_column(),
        Column("parent_id", Uuid),
        Column("name", String),
        TenantForeignKey("parent_id", "parents"),
        TenantUnique("name"),
        TenantIndex("name", unique=True),
    )

    check_metadata(metadata)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([id_column()], "table 't' has no tenant_id and is not marked as a platform table"),
        ([Column("tenant_id", String, primary_key=True), id_column()], "t.tenant_id is String(), not a UUID"),
        ([tenant_id(primary_key=False), id_column()], "PrimaryKeyConstraint on t(id) leaves tenant_id out"),
        ([tenant_id(primary_key=False), id_column()], "t.tenant_id is nullable"),
        (
            [tenant_id(), id_column(), Column("name", String), UniqueConstraint("name")],
            "UniqueConstraint on t(name) leaves tenant_id out",
        ),
        (
            [tenant_id(), id_column(), Column("name", String), ExcludeConstraint(("name", "="))],
            "ExcludeConstraint on t(name) leaves tenant_id out",
        ),
        (
            [tenant_id(), id_column(), Column("name", String), Index("i", "name", unique=True)],
            "unique index on t(name) leaves tenant_id out",
        ),
        (
            [tenant_id(), id_column(), Column("name", String, unique=True)],
            "UniqueConstraint on t(name) leaves tenant_id out",
        ),
        (
            [tenant_id(), id_column(), Column("name", String, unique=True, index=True)],
            "unique index on t(name) leaves tenant_id out",
        ),
        (
            [tenant_id(), id_column(), Column("other_id", Uuid, ForeignKey("nowhere.id"))],
            "foreign key on t(other_id) points at an unknown table",
        ),
    ],
)
def test_table_that_cannot_be_isolated_is_refused(arguments: list[Any], fault: str) -> None:
    """T018: the column's type; the rest are keys that would tell, or tie, one tenant's rows by another's."""
    with pytest.raises(ModelError) as caught:
        check_metadata(metadata_of(*arguments))

    assert fault in caught.value.message


def test_foreign_key_between_tenant_tables_without_the_tenant_is_refused() -> None:
    metadata = metadata_of(tenant_id(), id_column(), UniqueConstraint("tenant_id", "id"), name="parents")
    Table("children", metadata, tenant_id(), id_column(), Column("parent_id", Uuid, ForeignKey("parents.id")))

    with pytest.raises(ModelError, match=r"children\(parent_id\) does not carry tenant_id to 'parents'"):
        check_metadata(metadata)


def test_foreign_key_that_carries_the_tenant_to_another_column_is_refused() -> None:
    metadata = metadata_of(tenant_id(), id_column(), name="parents")
    Table(
        "children",
        metadata,
        tenant_id(),
        id_column(),
        Column("parent_id", Uuid),
        ForeignKeyConstraint(["parent_id", "tenant_id"], ["parents.tenant_id", "parents.id"]),
    )

    with pytest.raises(ModelError, match="does not carry tenant_id"):
        check_metadata(metadata)


def test_nullable_tenant_in_a_composite_foreign_key_is_refused() -> None:
    """T044: MATCH SIMPLE checks nothing when one of the columns is NULL."""
    metadata = metadata_of(tenant_id(), id_column(), name="parents")
    Table(
        "children",
        metadata,
        tenant_id(primary_key=False),
        Column("id", Uuid),
        Column("parent_id", Uuid),
        TenantForeignKey("parent_id", "parents"),
        PrimaryKeyConstraint("id", "tenant_id"),
    )
    metadata.tables["children"].c.tenant_id.nullable = True

    with pytest.raises(ModelError, match=r"children\.tenant_id is nullable"):
        check_metadata(metadata)


def test_foreign_key_to_a_platform_table_needs_no_tenant() -> None:
    metadata = metadata_of(id_column(), name="countries")
    platform_table(reason="public knowledge")(metadata.tables["countries"])
    Table("t", metadata, tenant_id(), id_column(), Column("country_id", Uuid, ForeignKey("countries.id")))

    check_metadata(metadata)


def test_key_that_finds_a_tenant_may_span_tenants_if_it_says_so() -> None:
    check_metadata(
        metadata_of(
            tenant_id(),
            id_column(),
            Column("domain", String),
            UniqueConstraint("domain", info={"across_tenants": "a domain serves one tenant"}),
            Index("i", "domain", unique=True, info={"across_tenants": "a domain serves one tenant"}),
        )
    )


def test_keys_of_the_registry_may_span_tenants() -> None:
    metadata = metadata_of(tenant_id(), Column("slug", String), UniqueConstraint("slug"))
    registry_table(app_update=("name",))(metadata.tables["t"])

    check_metadata(metadata)


def changed_at() -> Column[Any]:
    return Column("changed_at", DateTime, onupdate=datetime.now)


def test_registry_that_the_app_role_could_never_update_is_refused() -> None:
    metadata = metadata_of(tenant_id(), Column("name", String), changed_at())
    registry_table(app_update=("name",))(metadata.tables["t"])

    with pytest.raises(ModelError, match="SQLAlchemy sets changed_at in each, and app_update leaves it out"):
        check_metadata(metadata)


@pytest.mark.parametrize("app_update", [(), ("name", "changed_at")])
def test_registry_is_updated_with_all_that_sqlalchemy_sets_or_not_at_all(app_update: tuple[str, ...]) -> None:
    metadata = metadata_of(tenant_id(), Column("name", String), changed_at())
    registry_table(app_update=app_update)(metadata.tables["t"])

    check_metadata(metadata)


@pytest.mark.parametrize("account_key", [None, "id"])
def test_tenant_table_marked_as_something_else_is_refused(account_key: str | None) -> None:
    metadata = metadata_of(tenant_id(), id_column())
    platform_table(reason="by mistake", account_key=account_key)(metadata.tables["t"])

    with pytest.raises(ModelError, match="but has a tenant_id"):
        check_metadata(metadata)


def test_account_table_without_its_key_column_is_refused() -> None:
    metadata = metadata_of(id_column())
    platform_table(reason="accounts", account_key="account_id")(metadata.tables["t"])

    with pytest.raises(ModelError, match="account table 't' has no column 'account_id'"):
        check_metadata(metadata)


def test_every_fault_is_named_at_once() -> None:
    metadata = metadata_of(Column("id", Integer, primary_key=True), name="one")
    Table("two", metadata, Column("id", Integer, primary_key=True))

    with pytest.raises(ModelError) as caught:
        check_metadata(metadata)

    assert "table 'one' has no tenant_id" in caught.value.message
    assert "table 'two' has no tenant_id" in caught.value.message
