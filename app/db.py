"""The declarative base, and the engines and sessions one running application holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flask import current_app, request
from pydantic import SecretStr
from sqlalchemy import CheckConstraint, DateTime, Engine, MetaData, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from app.config import Settings
from tenancy.binding import create_tenant_engine
from tenancy.budgets import BudgetOf, WorkBudget
from tenancy.directory import TenantRecord
from tenancy.errors import NoTenantError
from tenancy.flask import Tenancy
from tenancy.session import PlatformSession, TenantSession, platform_sessionmaker, tenant_sessionmaker

_POOL_TIMEOUT_S = 5.0


class Base(DeclarativeBase):
    """Base of every model. Constraints are named, so that migrations and error answers can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Timestamped:
    """Adds when a row was made and last changed, by the server's clock."""

    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now(), sort_order=90)
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now(), sort_order=91
    )


def one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    """Limit a text column to the values of an enumeration; for `__table_args__`.

    PostgreSQL's own enum can use no index under policies, and alembic overlooks a check given to a column.
    """
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


@dataclass(frozen=True)
class Database:
    """What one running application holds open towards PostgreSQL.

    sessions: of the runtime role; made inside `tenant_scope` or `account_scope`.
    platform_sessions: read-only and across tenants; made inside `platform_scope`.
    staff_sessions: of the platform role in one tenant; made inside both scopes.
    """

    engine: Engine
    platform_engine: Engine
    sessions: sessionmaker[TenantSession]
    platform_sessions: sessionmaker[PlatformSession]
    staff_sessions: sessionmaker[TenantSession]

    def close(self) -> None:
        """Close every connection that is not in use."""
        self.engine.dispose()
        self.platform_engine.dispose()


def open_database(settings: Settings) -> Database:
    """Prepare the engines of both roles; nothing connects yet."""
    budget = WorkBudget(
        statement_timeout_s=settings.tenant_statement_timeout_s,
        lock_timeout_s=settings.tenant_lock_timeout_s,
        concurrency=settings.tenant_concurrency or None,
        wait_s=settings.tenant_wait_s,
        waiting=settings.tenant_waiting,
        share=settings.tenant_share,
    )
    engine = _engine(settings.database_url, settings, budget_of=lambda _tenant: budget)
    platform_engine = _engine(settings.platform_database_url, settings)
    return Database(
        engine=engine,
        platform_engine=platform_engine,
        # What was committed is answered as it is: to read it again would take another transaction, and a slot for it.
        sessions=tenant_sessionmaker(engine, expire_on_commit=False),
        platform_sessions=platform_sessionmaker(platform_engine),
        staff_sessions=tenant_sessionmaker(platform_engine),
    )


def _engine(url: SecretStr, settings: Settings, *, budget_of: BudgetOf | None = None) -> Engine:
    return create_tenant_engine(
        url.get_secret_value(),
        budget_of=budget_of,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=_POOL_TIMEOUT_S,
        hide_parameters=True,  # or an error in the log would carry a tenant's data
    )


def tenancy() -> Tenancy:
    """Return the tenancy extension of the current application."""
    found = current_app.extensions["tenancy"]
    if not isinstance(found, Tenancy):
        raise TypeError(f"extension 'tenancy' is {type(found).__name__}")
    return found


def session() -> TenantSession:
    """Return the session of the current request, in its tenant."""
    return tenancy().session


def release_connection() -> None:
    """Give this request's connection back, before something opens another.

    Requests that each hold one and wait for a second could otherwise use up the pool and wait for each other.
    """
    session().commit()


def evidence_of_tenant() -> TenantRecord | None:
    """Return the tenant that a request names although its route is exempt, as by its host; None if it names none.

    Raises: TenantReferenceError - it names one that is not served, or two.
    """
    trace = tenancy().chain.explain(request)
    if trace.error is not None and not isinstance(trace.error, NoTenantError):
        raise trace.error
    return trace.tenant
