"""flask-rls: `set_config(…, true)` as its own statement at the begin of each transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import flask_rls
from flask_rls import sql
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.contenders.protocol import serve
from benchmarks.contenders.workload import OpenSession, actions_of, plain_person

TABLE = "people_flask_rls"


class FlaskRls:
    explicit = False

    def __init__(self) -> None:
        self.person = plain_person(TABLE)
        self.rls = flask_rls.RLS()

    def engine(self, url: str, **options: Any) -> Engine:
        engine = create_engine(url, **options)
        self.rls.bind_engine(engine)
        return engine

    def sessions(self, engine: Engine) -> OpenSession:
        factory = sessionmaker(engine)

        @contextmanager
        def opened(tenant: UUID) -> Iterator[Session]:
            with self.rls.override(tenant_id=tenant), factory.begin() as session:
                yield session

        return opened


def ddl(table: str) -> list[str]:
    policy = flask_rls.TenantPolicy("tenant_isolation", "tenant_id", cast="uuid")
    return [sql.enable_rls(table), sql.force_rls(table), sql.create_policy(table, policy)]


if __name__ == "__main__":
    serve(lambda question: actions_of(FlaskRls(), question) if "urls" in question else {"ddl": ddl})
