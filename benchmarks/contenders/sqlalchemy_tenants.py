"""sqlalchemy-tenants: a database role for each tenant, and `SET SESSION ROLE` at the begin of each session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session
from sqlalchemy_tenants import core
from sqlalchemy_tenants.managers import PostgresManager

from benchmarks.contenders.protocol import serve
from benchmarks.contenders.workload import OpenSession, actions_of, plain_person

TABLE = "people_sqlalchemy_tenants"


class SqlalchemyTenants:
    explicit = False

    def __init__(self) -> None:
        self.person = plain_person(TABLE, tenant_column="tenant")

    def engine(self, url: str, **options: Any) -> Engine:
        return create_engine(url, **options)

    def sessions(self, engine: Engine) -> OpenSession:
        manager = PostgresManager.from_engine(engine, schema_name="public")

        @contextmanager
        def opened(tenant: UUID) -> Iterator[Session]:
            with manager.new_tenant_session(tenant, create_if_missing=False) as session:
                yield session
                session.commit()

        return opened


def ddl(table: str) -> list[str]:
    function = core._GET_TENANT_FUNCTION_TEMPLATE.format(
        name=core.GET_TENANT_FUNCTION_NAME, tenant_role_prefix=core.TENANT_ROLE_PREFIX
    )
    return [
        function,
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        core.get_table_policy(table_name=table, column_type=UUID),
    ]


if __name__ == "__main__":
    serve(lambda question: actions_of(SqlalchemyTenants(), question) if "urls" in question else {"ddl": ddl})
