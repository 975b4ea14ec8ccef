"""SQLAlchemy without a tenancy library: no row-level security, the tenant in every statement by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.contenders.protocol import serve
from benchmarks.contenders.workload import OpenSession, actions_of, plain_person


class Plain:
    explicit = True

    def __init__(self) -> None:
        self.person = plain_person("people_plain")

    def engine(self, url: str, **options: Any) -> Engine:
        return create_engine(url, **options)

    def sessions(self, engine: Engine) -> OpenSession:
        factory = sessionmaker(engine)

        @contextmanager
        def opened(tenant: UUID) -> Iterator[Session]:
            with factory.begin() as session:
                yield session

        return opened


if __name__ == "__main__":
    serve(lambda question: actions_of(Plain(), question))
