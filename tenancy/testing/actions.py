"""What a thread of the soak does inside a transaction: each action reads or writes, and checks every row it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from tenancy.context import tenant_scope
from tenancy.errors import NoTenantError, StatementRefusedError, WrongTenantError
from tenancy.session import TenantSession
from tenancy.testing.ledger import Ledger

Note = Callable[..., None]
Action = Callable[["Actor", TenantSession, UUID], None]
LIMIT = 20
# What the driver says of a connection that was ended by the superuser.
CUT = {"AdminShutdown", "OperationalError"}


class DeliberateError(Exception):
    """What an action raises as an application's own code would, in the middle of a transaction."""


class MissedError(AssertionError):
    """Something that must fail did not, or failed otherwise."""


class Actor:
    """One thread's part: its random numbers, and what it remembers from one transaction to the next.

    The texts it writes carry its number, and it changes no rows but those: threads never wait for one another's locks.
    """

    def __init__(self, ledger: Ledger, note: Note, tenants: list[UUID], number: int, random: Random) -> None:
        self.ledger, self.note, self.tenants = ledger, note, tenants
        self.number, self.random = number, random
        self.own = f":{number}."  # stands in every text it writes, and in no other
        self.kept: tuple[TenantSession, UUID] | None = None
        self.seen: dict[UUID, Any] = {}
        self._serial = 0
        table, payload = ledger.table, ledger.payload
        quoted = table.fullname if table.fullname.islower() else f'"{table.fullname}"'
        self.select = select(table.c.tenant_id, table.c[payload], table.c.id)
        self.select_text = text(f'SELECT tenant_id, "{payload}", id FROM {quoted}')  # noqa: S608 - names of a Table
        self.count_text = text(
            # The name of a column of the models; values are parameters.
            f'SELECT count(*), count(*) FILTER (WHERE tenant_id <> :id OR "{payload}" NOT LIKE :mark)'  # noqa: S608
            f" FROM {quoted}"
        )

    def choose_tenant(self) -> UUID:
        return self.random.choice(self.tenants)

    def other(self, tenant: UUID) -> UUID:
        return self.random.choice([other for other in self.tenants if other != tenant])

    def choose_actions(self) -> list[Action]:
        return self.random.choices(ACTIONS, WEIGHTS, k=self.random.choice((1, 1, 1, 2, 3)))

    def end(self, session: TenantSession) -> None:
        """Commit, roll back, fail, or leave the session open for the block's end to close."""
        match self.random.choice("cccccrfo"):
            case "c":
                session.commit()
            case "r":
                session.rollback()
            case "f":
                raise DeliberateError

    def serial(self) -> str:
        self._serial += 1
        return f"{self.number}.{self._serial}"

    def row(self, tenant: UUID) -> dict[str, Any]:
        serial = self.serial()
        return self.ledger.row(tenant, serial, number=self._unique())

    def new(self, tenant: UUID) -> Any:
        serial = self.serial()
        return self.ledger.new(tenant, serial, number=self._unique())

    def _unique(self) -> int:
        return self.number * 10_000_000 + self._serial

    def check(self, rows: Iterable[Any], tenant: UUID) -> None:
        """Compare each row read with the tenant it was read for, and remember one of them."""
        found = list(rows)
        self.note(rows=len(found), foreign=self.ledger.foreign([(row[0], row[1]) for row in found], tenant))
        if found:
            self.seen[tenant] = found[-1][2]

    def must_fail(self, act: Callable[[], object], *kinds: type[Exception] | str) -> None:
        """Note the error in which this must end: one of these classes, or of the driver's, by their names.

        Raises: MissedError - it did not fail, or otherwise. DBAPIError - the connection was cut.
        """
        try:
            act()
        except tuple(kind for kind in kinds if not isinstance(kind, str)) as error:
            self.note(error=type(error).__name__)
        except DBAPIError as error:
            name = type(error.orig).__name__
            if error.connection_invalidated or name in CUT:
                raise
            if name not in kinds and name != "InFailedSqlTransaction":
                raise MissedError(f"failed otherwise than by {kinds}: {error}") from error
            self.note(error=name)
        else:
            raise MissedError(f"nothing raised one of {kinds}")


# Reading ----------------------------------------------------------------------------------------------


def read_objects(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    model = actor.ledger.model
    found = session.scalars(select(model).limit(LIMIT)).all()
    rows = [(entry.tenant_id, getattr(entry, actor.ledger.attribute), entry.id) for entry in found]
    actor.check(rows, tenant)


def read_by_core(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    actor.check(session.execute(actor.select), tenant)


def read_by_text(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    actor.check(session.execute(actor.select_text), tenant)


def read_without_parameters(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    actor.check(session.connection().exec_driver_sql(actor.select_text.text), tenant)


def read_half_by_server_cursor(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    with session.execute(actor.select_text, execution_options={"yield_per": 3}) as result:
        actor.check(result.fetchmany(3), tenant)


def count_all(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    row = session.execute(actor.count_text, {"id": tenant, "mark": f"{tenant.hex}:%"}).one()
    foreign = [f"{row[1]} foreign rows were counted by {tenant}"] if row[1] else []
    actor.note(rows=int(row[0]), foreign=foreign)


def read_a_strangers_row_by_its_id(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    stranger = actor.other(tenant)
    wanted = actor.seen.get(stranger)
    if wanted is None:
        return
    found = [session.get(actor.ledger.model, wanted)]
    found += session.execute(actor.select.where(actor.ledger.table.c.id == wanted)).all()
    # An id of the model's own counting may be the tenant's too; a UUID is nobody else's.
    if isinstance(wanted, UUID) and any(found):
        actor.note(foreign=[f"a row of {stranger} was read by {tenant}, by its id"])


# Writing ----------------------------------------------------------------------------------------------


def add_object(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    session.add(actor.new(tenant))
    session.flush()


def insert_by_core(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    table, payload = actor.ledger.table, actor.ledger.payload
    written = insert(table).values(actor.row(tenant)).returning(table.c.tenant_id, table.c[payload], table.c.id)
    actor.check(session.execute(written), tenant)


def insert_many(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    session.execute(insert(actor.ledger.table), [actor.row(tenant) for _ in range(4)])


def add_many_objects(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    session.add_all([actor.new(tenant) for _ in range(3)])
    session.flush()


def change_own_rows_of_whatever_tenant(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    """Name no tenant: a row of another one would be given this one's mark, and be found out."""
    table, payload = actor.ledger.table, actor.ledger.table.c[actor.ledger.payload]
    changed = (
        update(table)
        .where(payload.contains(actor.own))
        .values({payload: func.concat(f"{tenant.hex}:", func.split_part(payload, ":", 2), "'")})
        .returning(table.c.tenant_id, payload, table.c.id)
    )
    with session.begin_nested() as savepoint:
        actor.check(session.execute(changed), tenant)
        if actor.random.random() < 0.9:  # or the texts grow without end
            savepoint.rollback()


def remove_own_rows_of_whatever_tenant(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    table, payload = actor.ledger.table, actor.ledger.table.c[actor.ledger.payload]
    removed = delete(table).where(payload.contains(actor.own)).returning(table.c.tenant_id, payload, table.c.id)
    actor.check(session.execute(removed), tenant)


def write_into_a_savepoint(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    savepoint = session.begin_nested()
    insert_by_core(actor, session, tenant)
    if actor.random.random() < 0.5:
        savepoint.rollback()
    read_by_text(actor, session, tenant)


def fail_in_a_savepoint_and_go_on(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    savepoint = session.begin_nested()
    try:
        session.execute(text("SELECT 1/0"))
    except DBAPIError as error:
        if error.connection_invalidated or type(error.orig).__name__ in CUT:
            raise
        savepoint.rollback()
    read_by_text(actor, session, tenant)


# Failing ----------------------------------------------------------------------------------------------


def divide_by_zero(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    actor.must_fail(lambda: session.execute(text("SELECT 1/0")), "DivisionByZero")


def misspell(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    actor.must_fail(lambda: session.execute(text("SELEKT 1")), "SyntaxError")


def leave_the_payload_out(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    row = actor.row(tenant) | {actor.ledger.payload: None}
    actor.must_fail(lambda: session.execute(insert(actor.ledger.table).values(row)), "NotNullViolation")


def insert_twice(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    table, row = actor.ledger.table, actor.row(tenant)
    made = session.execute(insert(table).values(row).returning(table.c.id)).scalar_one()
    actor.must_fail(lambda: session.execute(insert(table).values(row | {"id": made})), "UniqueViolation")


def insert_for_a_stranger(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    stranger = actor.other(tenant)
    row = actor.row(stranger) | {"tenant_id": stranger}
    actor.must_fail(lambda: session.execute(insert(actor.ledger.table).values(row)), "InsufficientPrivilege")


def set_another_tenant(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    statement = text(f"SET LOCAL app.tenant_id = '{actor.other(tenant)}'")
    actor.must_fail(lambda: session.execute(statement), StatementRefusedError)
    read_by_text(actor, session, tenant)


# Switching --------------------------------------------------------------------------------------------


def use_the_session_in_a_strangers_scope(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    connection = session.connection()
    with tenant_scope(actor.other(tenant)):
        actor.must_fail(lambda: session.execute(actor.select_text), WrongTenantError)
        actor.must_fail(lambda: connection.execute(actor.select_text), WrongTenantError)
    read_by_text(actor, session, tenant)


def work_for_a_stranger_in_between(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    """A second connection while the first is held: where the pool is small, some wait in vain."""
    stranger = actor.other(tenant)
    with tenant_scope(stranger), TenantSession(session.get_bind()) as inner:
        read_by_text(actor, inner, stranger)
        insert_by_core(actor, inner, stranger)
        inner.commit()
    read_by_core(actor, session, tenant)


def keep_the_session_for_another_scope(actor: Actor, session: TenantSession, tenant: UUID) -> None:
    """Use the session that an earlier transaction kept, closed by then, and keep this one."""
    kept, actor.kept = actor.kept, (session, tenant)
    if kept is not None and kept[0] is not session and kept[1] != tenant:
        actor.must_fail(lambda: kept[0].execute(actor.select_text), WrongTenantError)
    read_by_text(actor, session, tenant)


def act_for_nobody(actor: Actor, engine: Engine) -> None:
    """Outside any scope, on a connection that carried some tenant before: an error, never a row."""
    if actor.kept is not None:
        kept = actor.kept[0]
        actor.must_fail(lambda: kept.execute(actor.select_text), NoTenantError)
    with engine.connect() as connection:
        answered: list[Any] = []
        try:
            actor.must_fail(lambda: answered.extend(connection.execute(actor.select_text)), "InsufficientPrivilege")
        finally:
            foreign = actor.ledger.foreign([(row[0], row[1]) for row in answered], None)
            actor.note(rows=len(answered), foreign=foreign)


_WEIGHTED: dict[Action, int] = {
    read_objects: 6,
    read_by_core: 8,
    read_by_text: 8,
    read_without_parameters: 4,
    read_half_by_server_cursor: 3,
    count_all: 6,
    read_a_strangers_row_by_its_id: 4,
    add_object: 3,
    insert_by_core: 6,
    insert_many: 2,
    add_many_objects: 1,
    change_own_rows_of_whatever_tenant: 4,
    remove_own_rows_of_whatever_tenant: 5,
    write_into_a_savepoint: 3,
    fail_in_a_savepoint_and_go_on: 2,
    divide_by_zero: 1,
    misspell: 1,
    leave_the_payload_out: 1,
    insert_twice: 1,
    insert_for_a_stranger: 2,
    set_another_tenant: 2,
    use_the_session_in_a_strangers_scope: 3,
    work_for_a_stranger_in_between: 2,
    keep_the_session_for_another_scope: 2,
}
ACTIONS = list(_WEIGHTED)
WEIGHTS = list(_WEIGHTED.values())
