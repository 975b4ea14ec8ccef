"""A process that visits tenant after tenant: how much memory it and its server process come to hold."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

from benchmarks.contenders.protocol import serve
from benchmarks.registry import Person
from tenancy import create_tenant_engine, tenant_scope, tenant_sessionmaker


def make(question: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    return {"visit": _by_schema(question) if "schemas" in question else _by_tenant(question)}


def _by_tenant(question: dict[str, Any]) -> Callable[..., Any]:
    engine = create_tenant_engine(question["url"])
    sessions = tenant_sessionmaker(engine)

    def visit() -> dict[str, float]:
        for tenant in question["tenants"]:
            with tenant_scope(UUID(tenant)), sessions.begin() as session:
                session.scalars(select(Person).limit(10)).all()
        with tenant_scope(UUID(question["tenants"][0])), sessions.begin() as session:
            return _memory(session)

    return visit


def _by_schema(question: dict[str, Any]) -> Callable[..., Any]:
    engine = create_engine(question["url"])
    model = Person.__table__

    def visit() -> dict[str, float]:
        for schema in question["schemas"]:
            with Session(engine.execution_options(schema_translate_map={None: schema})) as session:
                session.execute(select(model).limit(10)).all()
                session.commit()
        with Session(engine) as session:
            return _memory(session)

    return visit


def _memory(session: Session) -> dict[str, float]:
    held = session.execute(text("SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts")).scalar_one()
    gc.collect()
    status = Path("/proc/self/status").read_text().splitlines()
    resident_kb = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return {"process": resident_kb / 1024, "server": held / 2**20}


if __name__ == "__main__":
    serve(make)
