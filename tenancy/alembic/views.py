"""The operations of revision files that make views over tenant tables: plain and materialized ones."""

from __future__ import annotations

from collections.abc import Sequence

from alembic.operations import Operations
from alembic.operations.ops import MigrateOperation

from tenancy.alembic.execution import current_installation, run
from tenancy.alembic.operations import TenancyOp
from tenancy.rls.views import (
    StoredView,
    TenantView,
    create_stored_view_sql,
    create_view_sql,
    drop_stored_view_sql,
    drop_view_sql,
    refresh_sql,
)


class ViewOp(TenancyOp):
    """An operation on one plain view."""

    def __init__(self, view: TenantView) -> None:
        self.view = view

    @property
    def arguments(self) -> tuple[tuple[str, ...], dict[str, object]]:
        view = self.view
        keywords: dict[str, object] = {"allow": list(view.allow)} if view.allow else {}
        keywords |= {"security_barrier": True} if view.is_barrier else {}
        keywords |= {"schema": str(view.schema)} if view.schema else {}
        return (view.name, view.sql), keywords


class CreateTenantViewOp(ViewOp):
    verb = "create_tenant_view"

    @classmethod
    def create_tenant_view(
        cls,
        operations: Operations,
        name: str,
        sql: str,
        *,
        allow: Sequence[str] = (),
        security_barrier: bool = False,
        schema: str | None = None,
    ) -> None:
        """Create a view that reads with the rights of whoever asks, so that the policies of its tables hold.

        sql: the query. allow: of INSERT, UPDATE and DELETE, those granted besides SELECT.
        security_barrier: the view's own conditions hide rows too; costs indexes that the caller's conditions could use.
        """
        operations.invoke(cls(TenantView(name, sql, tuple(allow), security_barrier, schema)))

    def run(self, operations: Operations) -> None:
        run(operations, create_view_sql(self.view, current_installation().roles))

    def reverse(self) -> MigrateOperation:
        return DropTenantViewOp(self.view)


class DropTenantViewOp(ViewOp):
    verb = "drop_tenant_view"

    @classmethod
    def drop_tenant_view(
        cls,
        operations: Operations,
        name: str,
        sql: str,
        *,
        allow: Sequence[str] = (),
        security_barrier: bool = False,
        schema: str | None = None,
    ) -> None:
        """Drop a view; takes what `create_tenant_view` takes, so that its reverse can create it again."""
        operations.invoke(cls(TenantView(name, sql, tuple(allow), security_barrier, schema)))

    def run(self, operations: Operations) -> None:
        run(operations, drop_view_sql(self.view.name, schema=self.view.schema))

    def reverse(self) -> MigrateOperation:
        return CreateTenantViewOp(self.view)


class StoredViewOp(TenancyOp):
    """An operation on one materialized view and its window."""

    def __init__(self, view: StoredView) -> None:
        self.view = view

    @property
    def arguments(self) -> tuple[tuple[str, ...], dict[str, object]]:
        view = self.view
        keywords: dict[str, object] = {"unique": list(view.unique)} if view.unique else {}
        keywords |= {"schema": str(view.schema)} if view.schema else {}
        return (view.name, view.sql), keywords


class CreateTenantMaterializedViewOp(StoredViewOp):
    verb = "create_tenant_materialized_view"

    @classmethod
    def create_tenant_materialized_view(
        cls,
        operations: Operations,
        name: str,
        sql: str,
        *,
        unique: Sequence[str] = (),
        schema: str | None = None,
    ) -> None:
        """Create and fill a materialized view that nobody may read, and the view `name` that shows a tenant its rows.

        sql: the query; it must return `tenant_id`, and must not mix tenants in a row: group and join by it.
        unique: columns of a unique index, `tenant_id` first; a concurrent refresh needs one.
        The tables it reads are locked until the migration's transaction ends.
        """
        operations.invoke(cls(StoredView(name, sql, tuple(unique), schema)))

    def run(self, operations: Operations) -> None:
        run(operations, create_stored_view_sql(self.view, current_installation().roles))

    def reverse(self) -> MigrateOperation:
        return DropTenantMaterializedViewOp(self.view)


class DropTenantMaterializedViewOp(StoredViewOp):
    verb = "drop_tenant_materialized_view"

    @classmethod
    def drop_tenant_materialized_view(
        cls,
        operations: Operations,
        name: str,
        sql: str,
        *,
        unique: Sequence[str] = (),
        schema: str | None = None,
    ) -> None:
        """Drop a materialized view and its window.

        Takes what `create_tenant_materialized_view` takes, so that its reverse can create both again.
        """
        operations.invoke(cls(StoredView(name, sql, tuple(unique), schema)))

    def run(self, operations: Operations) -> None:
        run(operations, drop_stored_view_sql(self.view))

    def reverse(self) -> MigrateOperation:
        return CreateTenantMaterializedViewOp(self.view)


class RefreshTenantMaterializedView:
    """Registers `op.refresh_tenant_materialized_view`."""

    verb = "refresh_tenant_materialized_view"

    @classmethod
    def refresh_tenant_materialized_view(
        cls, operations: Operations, name: str, *, concurrently: bool = False, schema: str | None = None
    ) -> None:
        """Fill a materialized view anew from every tenant's rows; `name` is that of its window.

        concurrently: let the window be read meanwhile. The tables it reads are locked in either case, until the
            migration's transaction ends.
        """
        run(operations, [refresh_sql(name, schema=schema, concurrently=concurrently)])
