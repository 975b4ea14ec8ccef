"""Reading: each way is tried on the whole table, and aimed at the owner's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Executable, and_, func, select, text, true
from sqlalchemy.orm import Session

from tenancy.tables import TENANT_KEY
from tenancy.testing.rows import Row, pairs_of
from tenancy.testing.verbs.attempts import Attempt, Outcome

Rows = Iterable[Mapping[str, Any]]
# None reads everything there is; an id asks for the rows of that tenant.
Reading = Callable[[Attempt, Session, UUID | None], Rows]


def read(attempt: Attempt, reading: Reading) -> None:
    """Every actor sees its own rows and no others, asked for or not; who acts for nobody is refused."""
    owners, strangers = attempt.rows_of(attempt.owner), attempt.rows_of(attempt.stranger)
    attempt.step(
        "read all",
        lambda session: attempt.seen(reading(attempt, session, None)),
        owner=attempt.seen(owners),
        stranger=attempt.seen(strangers),
    )
    attempt.step(
        "ask for the owner's",
        lambda session: attempt.seen(reading(attempt, session, attempt.owner.id)),
        owner=attempt.seen(owners),
        stranger=attempt.seen([]),
    )


def fetch(session: Session, statement: Executable, parameters: Any = None) -> list[Row]:
    return [dict(row) for row in session.connection().execute(statement, parameters).mappings()]


def select_orm(attempt: Attempt) -> None:
    if attempt.shape.mapper is None:
        read(attempt, _core)
        attempt.judge("by Core", Outcome(words="no class is mapped"), Outcome(words="no class is mapped"))
        return
    read(attempt, _orm)
    if not attempt.is_bound:
        refuse_in_python(attempt, lambda session: attempt.seen(_orm(attempt, session, None)))


def refuse_in_python(attempt: Attempt, act: Callable[[Session], Outcome]) -> None:
    """Without a tenant, the library refuses before the server is asked."""
    with attempt.refusals() as refusals, attempt.world.sessions() as session:
        refusals.append(act(session))
    attempt.judge("by the library", Outcome("NoTenantError"), refusals[0])


def _orm(attempt: Attempt, session: Session, only: UUID | None) -> Rows:
    mapper = attempt.mapper
    statement = select(mapper.class_).where(_of(attempt, only))
    for found in session.scalars(statement).unique():
        yield {
            column.name: getattr(found, mapper.get_property_by_column(column).key) for column in attempt.shape.identity
        }


def select_core(attempt: Attempt) -> None:
    read(attempt, _core)


def _core(attempt: Attempt, session: Session, only: UUID | None) -> Rows:
    statement = select(attempt.table).where(_of(attempt, only))
    return fetch(session, statement)


def select_text(attempt: Attempt) -> None:
    def reading(attempt: Attempt, session: Session, only: UUID | None) -> Rows:
        name = attempt.shape.sql_name
        if only is None:
            return fetch(session, text(f"SELECT * FROM {name}"))  # noqa: S608 - a quoted name
        aimed = text(f"SELECT * FROM {name} WHERE tenant_id = :only")  # noqa: S608 - a quoted name
        return fetch(session, aimed, {"only": only})

    read(attempt, reading)


def copy_to(attempt: Attempt) -> None:
    """COPY gives lines, not rows: what is compared is whose id stands in each."""
    name = attempt.shape.sql_name

    tenants = [str(tenant.id) for tenant in attempt.world.tenants]

    def act(session: Session) -> Outcome:
        lines = _copied(attempt, session, f"COPY {name} TO STDOUT")
        return Outcome(seen=tuple(sorted((t,) for line in lines for t in tenants if t in line)), count=len(lines))

    def expected(rows: list[Row]) -> Outcome:
        return Outcome(seen=tuple((str(row[TENANT_KEY]),) for row in rows), count=len(rows))

    attempt.step(
        "copy all",
        act,
        owner=expected(attempt.rows_of(attempt.owner)),
        stranger=expected(attempt.rows_of(attempt.stranger)),
    )


def _copied(attempt: Attempt, session: Session, statement: str) -> list[str]:
    attempt.stage.sent.append(statement)
    driver: Any = session.connection().connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        return b"".join(bytes(block) for block in copy).decode().splitlines()


def join(attempt: Attempt) -> None:
    """Join each foreign key's table by the bare id, as careless code would; without one, the table itself."""

    def reading(attempt: Attempt, session: Session, only: UUID | None) -> Rows:
        table = attempt.table
        for key in attempt.shape.pointers[:1]:
            there = key.referred_table.alias("there")
            on = and_(*(table.c[local] == there.c[referred] for local, referred in pairs_of(key)))
            break
        else:
            there = table.alias("there")
            bare = [table.c[column.name] == there.c[column.name] for column in attempt.shape.key[1:]]
            on = and_(*(bare or [table.c[TENANT_KEY] == there.c[TENANT_KEY]]))
        statement = select(table, there.c[TENANT_KEY].label("of_there")).outerjoin_from(table, there, on)
        for row in fetch(session, statement.where(_of(attempt, only))):
            is_foreign = row["of_there"] not in (None, row[TENANT_KEY])
            yield {**row, TENANT_KEY: "joined to another tenant's"} if is_foreign else row

    read(attempt, reading)


def subquery(attempt: Attempt) -> None:
    def reading(attempt: Attempt, session: Session, only: UUID | None) -> Rows:
        inner = attempt.table.alias("inner_rows")
        name = attempt.shape.key[-1].name
        statement = select(attempt.table).where(attempt.table.c[name].in_(select(inner.c[name])), _of(attempt, only))
        return fetch(session, statement)

    read(attempt, reading)


def cte(attempt: Attempt) -> None:
    def reading(attempt: Attempt, session: Session, only: UUID | None) -> Rows:
        found = select(attempt.table).where(_of(attempt, only)).cte("found")
        return fetch(session, select(found))

    read(attempt, reading)


def aggregate(attempt: Attempt) -> None:
    """A count by tenant, and one over all: figures leak as rows do."""
    key = attempt.table.c[TENANT_KEY]

    def act(session: Session) -> Outcome:
        connection = session.connection()
        by_tenant = connection.execute(select(key, func.count()).group_by(key))
        seen = tuple(sorted((str(tenant),) for tenant, number in by_tenant for _ in range(number)))
        return Outcome(
            seen=seen, count=connection.execute(select(func.count()).select_from(attempt.table)).scalar_one()
        )

    def expected(rows: list[Row]) -> Outcome:
        return Outcome(seen=tuple((str(row[TENANT_KEY]),) for row in rows), count=len(rows))

    attempt.step(
        "count all",
        act,
        owner=expected(attempt.rows_of(attempt.owner)),
        stranger=expected(attempt.rows_of(attempt.stranger)),
    )


def _of(attempt: Attempt, only: UUID | None) -> ColumnElement[bool]:
    return true() if only is None else attempt.table.c[TENANT_KEY] == only
