"""rls: `set_config(…, false)` before each execute of a session that has not sent its context yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pydantic
from rls import rls_session, schemas
from sqlalchemy import UUID as UUID_TYPE  # in upper case: its policy compiles for no particular database
from sqlalchemy import Engine, column, create_engine
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.contenders.protocol import serve
from benchmarks.contenders.workload import OpenSession, actions_of, plain_person

TABLE = "people_rls"


class Context(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)  # as its documentation says for speed

    tenant_id: UUID


class Rls:
    explicit = False

    def __init__(self) -> None:
        self.person = plain_person(TABLE)

    def engine(self, url: str, **options: Any) -> Engine:
        return create_engine(url, **options)

    def sessions(self, engine: Engine) -> OpenSession:
        factory = sessionmaker(engine, class_=rls_session.RlsSession)

        @contextmanager
        def opened(tenant: UUID) -> Iterator[Session]:
            with factory(context=Context(tenant_id=tenant)) as session, session.begin():
                yield session

        return opened


def ddl(table: str) -> list[str]:
    policy = schemas.Permissive(
        condition_args=[schemas.ConditionArg(comparator_name="tenant_id", type=UUID_TYPE)],
        cmd=[schemas.Command.all],
        custom_expr=lambda tenant: column("tenant_id") == tenant,
    )
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        *(str(text) for text in policy.get_sql_policies(table)),
    ]


if __name__ == "__main__":
    serve(lambda question: actions_of(Rls(), question) if "urls" in question else {"ddl": ddl})
