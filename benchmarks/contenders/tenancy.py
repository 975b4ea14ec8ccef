"""This library. Arguments: the table, so that its share of the cost can be taken apart from the policies'."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session

from benchmarks.contenders.protocol import serve
from benchmarks.contenders.workload import OpenSession, actions_of
from tenancy import TenantTable, create_tenant_engine, tenant_scope, tenant_sessionmaker


def tenant_person(table: str) -> Any:
    class Base(DeclarativeBase):
        pass

    class Person(TenantTable, Base):
        __tablename__ = table
        name: Mapped[str]
        email: Mapped[str]
        company_id: Mapped[UUID | None]

    return Person


class WithTenancy:
    explicit = False
    stamps = True

    def __init__(self, table: str) -> None:
        self.person = tenant_person(table)

    def engine(self, url: str, **options: Any) -> Engine:
        return create_tenant_engine(url, **options)

    def sessions(self, engine: Engine) -> OpenSession:
        factory = tenant_sessionmaker(engine)

        @contextmanager
        def opened(tenant: UUID) -> Iterator[Session]:
            with tenant_scope(tenant), factory.begin() as session:
                yield session

        return opened


if __name__ == "__main__":
    serve(lambda question: actions_of(WithTenancy(sys.argv[1]), question))
