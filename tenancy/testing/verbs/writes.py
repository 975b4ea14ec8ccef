"""Writing: the same statement from each actor, aimed at the owner's rows or at the whole table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from sqlalchemy import Column, Connection, Executable, bindparam, cast, delete, insert, literal, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert as upserting
from sqlalchemy.orm import Session

from tenancy.rls import quote
from tenancy.tables import TENANT_KEY
from tenancy.testing.cascades import deleting
from tenancy.testing.rows import Row
from tenancy.testing.verbs.attempts import NO_SUCH_ROW, REFUSED, TAKEN, Attempt, Outcome, changed
from tenancy.testing.verbs.reads import fetch
from tenancy.testing.world import SeededTenant

NOTHING = Outcome(count=0)
DENIED = Outcome(REFUSED)


def run(statement: Executable, parameters: Any = None) -> Callable[[Connection], int | None]:
    """Execute on the connection; an INSERT says nothing of its count when it is one of many."""

    def act(connection: Connection) -> int | None:
        result: Any = connection.execute(statement, parameters, execution_options={"preserve_rowcount": True})
        return None if isinstance(parameters, list) else int(result.rowcount)

    return act


def one(attempt: Attempt, **changes: int) -> Outcome:
    found = Outcome(count=sum(changes.values()), changes=changed(attempt.table.key, **changes))
    return if_it_may_insert(attempt, found) if "inserted" in changes else found


def if_it_may_insert(attempt: Attempt, outcome: Outcome) -> Outcome:
    return outcome if attempt.shape.can_insert else DENIED


def insert_row(attempt: Attempt) -> None:
    """A new row of the owner's; then one with a key that the owner has: the stranger may not learn that it is taken."""
    table = attempt.table
    if not attempt.shape.is_single:
        # Inline: without RETURNING, which would ask the reading policies as well.
        statement = insert(table).values(attempt.fresh(attempt.owner)).inline()
        attempt.step("a new row", counting(attempt, run(statement)), owner=one(attempt, inserted=1), stranger=DENIED)
    if not attempt.shape.keeps_its_key and attempt.shape.has_key:
        statement = insert(table).values(_written(attempt, attempt.own_row)).inline()
        attempt.step(
            "a taken key",
            counting(attempt, run(statement)),
            owner=if_it_may_insert(attempt, Outcome(TAKEN)),
            stranger=DENIED,
        )


def bulk_insert(attempt: Attempt) -> None:
    rows = [attempt.fresh(attempt.owner, number) for number in (0, 1)]
    expected = if_it_may_insert(attempt, Outcome(changes=changed(attempt.table.key, inserted=2)))
    attempt.step(
        "two rows by Core", counting(attempt, run(insert(attempt.table), rows)), owner=expected, stranger=DENIED
    )
    mapper = attempt.shape.mapper
    if mapper is None or not attempt.is_bound:
        return
    named = [{mapper.get_property_by_column(attempt.table.c[k]).key: v for k, v in row.items()} for row in rows]

    def by_class(session: Session) -> Outcome:
        before = attempt.counts(session)
        session.execute(insert(mapper.class_), named)
        return Outcome(changes=attempt.since(session, before))

    attempt.step("two rows by class", by_class, owner=expected, stranger=DENIED)


def insert_select(attempt: Attempt) -> None:
    """A row for the owner, selected from nothing; then one for the actor, selected from the owner's row."""
    table, me = attempt.table, attempt.me or attempt.owner

    def selected(row: Row) -> Any:
        return select(*(cast(literal(value, table.c[name].type), table.c[name].type) for name, value in row.items()))

    for_owner = attempt.fresh(attempt.owner)
    statement = insert(table).from_select(list(for_owner), selected(for_owner))
    attempt.step("for the owner", counting(attempt, run(statement)), owner=one(attempt, inserted=1), stranger=DENIED)
    mine = attempt.fresh(me)
    source = selected(mine).select_from(attempt.shape.plain).where(*attempt.where_key(attempt.own_row))
    statement = insert(table).from_select(list(mine), source)
    attempt.step(
        "from the owner's row",
        counting(attempt, run(statement)),
        owner=one(attempt, inserted=1),
        stranger=if_it_may_insert(attempt, NOTHING),
    )


def upsert(attempt: Attempt) -> None:
    table, shape = attempt.table, attempt.shape
    statement = upserting(table).values(_written(attempt, attempt.own_row))
    keys = [column.name for column in shape.key]
    if shape.can_update:
        name = shape.updated.name
        updating = statement.on_conflict_do_update(index_elements=keys, set_={name: statement.excluded[name]}).inline()
        done = if_it_may_insert(attempt, one(attempt, updated=1))
        attempt.step("do update", counting(attempt, run(updating)), owner=done, stranger=DENIED)
    nothing = statement.on_conflict_do_nothing(index_elements=keys).inline()
    undone = if_it_may_insert(attempt, NOTHING)
    attempt.step("do nothing", counting(attempt, run(nothing)), owner=undone, stranger=DENIED)


def update_by_key(attempt: Attempt) -> None:
    """By the owner's key; then by the bare id that both tenants have, which finds the actor's own row."""
    for what, row, bare, found in _aims(attempt):
        _update(attempt, what, _touching(attempt).where(*attempt.where_key(row, bare=bare)), found)


def update_all(attempt: Attempt) -> None:
    _update(attempt, "every row", _touching(attempt), attempt.rows_of)


def _touching(attempt: Attempt) -> Any:
    """An UPDATE that writes what is there already: no CHECK can mind."""
    plain = attempt.shape.plain
    return update(plain).values({attempt.shape.updated.name: plain.c[attempt.shape.updated.name]})


def _update(attempt: Attempt, what: str, statement: Any, found: Callable[[SeededTenant], list[Row]]) -> None:
    def expected(tenant: SeededTenant) -> Outcome:
        if not attempt.shape.can_update:
            return DENIED
        rows = found(tenant)
        return Outcome(seen=attempt.identities(rows), changes=changed(attempt.table.key, updated=len(rows)))

    def act(session: Session) -> Outcome:
        before = attempt.counts(session)
        rows = fetch(session, statement.returning(*(attempt.shape.plain.c[c.name] for c in attempt.shape.identity)))
        return attempt.seen(rows, attempt.since(session, before))

    attempt.step(what, act, owner=expected(attempt.owner), stranger=expected(attempt.stranger))


def update_tenant(attempt: Attempt) -> None:
    """Nobody moves a row to another tenant: nobody may write the column."""
    to = attempt.owner if attempt.actor == "stranger" else attempt.stranger
    moving = update(attempt.shape.plain).values({TENANT_KEY: to.id})
    keyed = moving.where(*attempt.where_key(attempt.shared_row(attempt.me or attempt.owner)))
    for what, statement in (("one row", keyed), ("every row", moving)):
        attempt.step(what, counting(attempt, run(statement)), owner=DENIED, stranger=DENIED)


def delete_by_key(attempt: Attempt) -> None:
    """The owner deletes a row made for it; the stranger aims at the owner's; then both at the id they share."""
    table, shape = attempt.table, attempt.shape
    target: Row = dict(attempt.own_row)

    def make(session: Session) -> None:
        statement = insert(table).values(attempt.fresh(attempt.owner)).returning(*shape.identity)
        target.update(fetch(session, statement)[0])

    def by_key(connection: Connection) -> int | None:
        return run(delete(shape.plain).where(*attempt.where_key(target)))(connection)

    if not shape.is_single and (shape.can_insert or not shape.can_delete):
        attempt.step(
            "by its key",
            counting(attempt, by_key),
            owner=_allowed(attempt, one(attempt, deleted=1)),
            stranger=_allowed(attempt, NOTHING),
            before=make if shape.can_delete else None,
        )
    for what, row, bare, found in _aims(attempt)[1 if shape.can_insert and not shape.is_single else 0 :]:
        _delete(attempt, what, delete(shape.plain).where(*attempt.where_key(row, bare=bare)), found)


def delete_all(attempt: Attempt) -> None:
    _delete(attempt, "every row", delete(attempt.shape.plain), attempt.rows_of)


def _delete(attempt: Attempt, what: str, statement: Any, found: Callable[[SeededTenant], list[Row]]) -> None:
    def expected(tenant: SeededTenant) -> Outcome:
        rows = {name: by_tenant.get(tenant.id, []) for name, by_tenant in attempt.world.rows.items()}
        doomed = found(tenant)
        taken_along = deleting(attempt.world.metadata, rows, attempt.table, doomed)
        if not isinstance(taken_along, dict):
            return _allowed(attempt, Outcome(NO_SUCH_ROW))
        return _allowed(attempt, Outcome(count=len(doomed), changes={k: v for k, v in taken_along.items() if any(v)}))

    attempt.step(
        what, counting(attempt, run(statement)), owner=expected(attempt.owner), stranger=expected(attempt.stranger)
    )


def merge(attempt: Attempt) -> None:
    """MERGE onto the owner's row, and MERGE that inserts one for it."""
    shape, name = attempt.shape, attempt.shape.sql_name
    keys = {column.name: attempt.own_row[column.name] for column in shape.key}
    source = ", ".join(f"{_typed(shape.table.c[k], i)} AS {quote(k)}" for i, k in enumerate(keys))
    on = " AND ".join(f"t.{quote(k)} = s.{quote(k)}" for k in keys)
    onto = f"MERGE INTO {name} AS t USING (SELECT {source}) AS s ON {on} WHEN MATCHED THEN"
    if shape.can_update:
        column = quote(shape.updated.name)
        statement = _text(f"{onto} UPDATE SET {column} = t.{column}", shape.table.c, keys)
        attempt.step("onto its row", counting(attempt, run(statement)), owner=one(attempt, updated=1), stranger=NOTHING)
    else:
        statement = _text(f"{onto} UPDATE SET {quote(TENANT_KEY)} = t.{quote(TENANT_KEY)}", shape.table.c, keys)
        attempt.step("onto its row", counting(attempt, run(statement)), owner=DENIED, stranger=DENIED)
    if shape.is_single:
        return
    row = attempt.fresh(attempt.owner)
    values = ", ".join(_typed(shape.table.c[k], i) for i, k in enumerate(row))
    inserting = f"INSERT ({', '.join(map(quote, row))}) VALUES ({values})"  # noqa: S608 - quoted names
    new = f"MERGE INTO {name} AS t USING (SELECT 1) AS s ON false WHEN NOT MATCHED THEN {inserting}"
    statement = _text(new, shape.table.c, row)
    attempt.step("a new row", counting(attempt, run(statement)), owner=one(attempt, inserted=1), stranger=DENIED)


def truncate(attempt: Attempt) -> None:
    for what in ("", " CASCADE"):
        statement = text(f"TRUNCATE {attempt.shape.sql_name}{what}")
        attempt.step(f"truncate{what.lower()}", counting(attempt, run(statement)), owner=DENIED, stranger=DENIED)


def copy_from(attempt: Attempt) -> None:
    """PostgreSQL does not load into a table with policies, for whomever they hold."""
    statement = f"COPY {attempt.shape.sql_name} FROM STDIN"

    def act(session: Session) -> Outcome:
        attempt.stage.sent.append(statement)
        driver: Any = session.connection().connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(statement):
            return Outcome()

    unsupported = Outcome(psycopg.errors.FeatureNotSupported.sqlstate or "")
    refused = unsupported if attempt.actor == "table_owner" else if_it_may_insert(attempt, unsupported)
    attempt.step("copy in", act, owner=refused, stranger=refused, nobody=refused)


def counting(attempt: Attempt, act: Callable[[Connection], int | None]) -> Callable[[Session], Outcome]:
    return lambda session: attempt.counted(session, act)


def _allowed(attempt: Attempt, outcome: Outcome) -> Outcome:
    return outcome if attempt.shape.can_delete else DENIED


def _aims(attempt: Attempt) -> list[tuple[str, Row, bool, Callable[[SeededTenant], list[Row]]]]:
    """What to aim at, whether by the bare id, and which of its own rows a tenant then hits."""
    own = attempt.own_row
    aims: list[tuple[str, Row, bool, Callable[[SeededTenant], list[Row]]]] = [
        ("by its key", own, False, lambda tenant: [own] if tenant == attempt.owner else [])
    ]
    if len(attempt.shape.key) > 1:
        shared = attempt.shared_row(attempt.owner)
        names = [column.name for column in attempt.shape.key[1:]]
        aims.append(
            (
                "by the bare id of both",
                shared,
                True,
                lambda tenant: [row for row in attempt.rows_of(tenant) if all(row[n] == shared[n] for n in names)],
            )
        )
    return aims


def _written(attempt: Attempt, row: Row) -> Row:
    """A row that is there, as an insert would write it."""
    return {column.name: row[column.name] for column in attempt.shape.writable}


def _typed(column: Column[Any], number: int) -> str:
    # SQLAlchemy's dialects have no types for their constructors.
    return f"CAST(:p{number} AS {column.type.compile(dialect=postgresql.dialect())})"  # type: ignore[no-untyped-call]


def _text(statement: str, columns: Any, values: Mapping[str, Any]) -> Any:
    return text(statement).bindparams(
        *(bindparam(f"p{i}", v, type_=columns[k].type) for i, (k, v) in enumerate(values.items()))
    )
