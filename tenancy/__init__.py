"""Multi-tenancy for SQLAlchemy and PostgreSQL in which the database itself refuses foreign rows.

These names are the promise; anything else may change. `tenancy.flask` and `tenancy.alembic` are the doors
to those two frameworks.
"""

from tenancy.binding import create_async_tenant_engine, create_tenant_engine
from tenancy.context import account_scope, current_tenant, platform_scope, require_tenant, tenant_scope
from tenancy.directory import SQLDirectory, TenantMixin
from tenancy.errors import TenancyError
from tenancy.session import async_tenant_sessionmaker, platform_sessionmaker, tenant_sessionmaker
from tenancy.tables import (
    TenantForeignKey,
    TenantIndex,
    TenantTable,
    TenantUnique,
    limit_grants,
    platform_table,
    staff_table,
    tenant_relationship,
)

__all__ = [
    "SQLDirectory",
    "TenancyError",
    "TenantForeignKey",
    "TenantIndex",
    "TenantMixin",
    "TenantTable",
    "TenantUnique",
    "account_scope",
    "async_tenant_sessionmaker",
    "create_async_tenant_engine",
    "create_tenant_engine",
    "current_tenant",
    "limit_grants",
    "platform_scope",
    "platform_sessionmaker",
    "platform_table",
    "require_tenant",
    "staff_table",
    "tenant_relationship",
    "tenant_scope",
    "tenant_sessionmaker",
]
