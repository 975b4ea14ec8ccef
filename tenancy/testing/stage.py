"""The actors' connections: each acts in transactions that are rolled back, over a connection of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, StaticPool

from tenancy.context import tenant_scope
from tenancy.rls import GuardedTable, differences, guarded, quote, read_state
from tenancy.testing.world import ADMIN, SeededTenant, World

# owner: acts for the tenant whose rows are aimed at. stranger: acts for the other tenant, at the same rows.
# unbound: no setting was ever made. empty: the settings are there, and ''. table_owner: the role that owns the
# tables, with no tenant bound; FORCE is what stops it.
Actor = Literal["owner", "stranger", "unbound", "empty", "table_owner"]
SETTINGS = ("app.tenant_id", "app.account_id", "app.platform_session")

_COUNTERS = text("""
    SELECT o, i, u, d FROM unnest(CAST(:oids AS oid[])) AS o CROSS JOIN LATERAL (
        SELECT pg_stat_get_xact_tuples_inserted(o), pg_stat_get_xact_tuples_updated(o),
               pg_stat_get_xact_tuples_deleted(o)) AS c (i, u, d)
    WHERE i > 0 OR u > 0 OR d > 0
""")
_COUNTING = str(_COUNTERS).strip()[:40]
_TRIGGERS = """
    SELECT t.tgrelid, p.proname, t.tgtype & 1 = 1 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid = ANY (%s) AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgname <> 'tenancy_announce'
"""
Counts = Mapping[str, tuple[int, int, int]]


class Stage:
    """Where actors act. The tenants act through the library, the others over plain connections of their roles."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sent: list[str] = []
        self._plain: dict[Actor, Engine] = {}
        self._watched: list[Engine] = []
        self._differences: Mapping[str, list[str]] | None = None
        self.oids = self._read_oids()
        self.triggers = self._read_triggers()

    def _read_oids(self) -> dict[int, str]:
        found = {}
        for table in self.world.metadata.tables.values():
            name = ".".join(quote(part) for part in (table.schema, table.name) if part)
            row = self.world.admin.execute("SELECT to_regclass(%s)::oid", [name]).fetchone()
            if row is not None and row[0] is not None:
                found[int(row[0])] = table.key
        return found

    def _read_triggers(self) -> dict[str, dict[str, bool]]:
        """The functions that the application's own triggers call, by table; and whether once for each row."""
        found: dict[str, dict[str, bool]] = {}
        for oid, name, for_each_row in self.world.admin.execute(_TRIGGERS, [list(self.oids)]):
            of_table = found.setdefault(self.oids[oid], {})
            of_table[str(name)] = of_table.get(str(name), False) or bool(for_each_row)
        return found

    def tenant(self, actor: Actor) -> SeededTenant | None:
        """The tenant an actor acts for; None for those who act for none."""
        owner, stranger = self.world.tenants
        return owner if actor == "owner" else stranger if actor == "stranger" else None

    @contextmanager
    def session(self, actor: Actor) -> Iterator[Session]:
        """Open a session in a transaction that is rolled back. Its connection() serves for Core."""
        tenant = self.tenant(actor)
        if tenant is not None:
            self._watch(self.world.app_engine)
            with tenant_scope(tenant.id), self.world.sessions() as session:
                try:
                    yield session
                finally:
                    session.rollback()
            return
        with self._plain_engine(actor).connect() as connection, Session(connection) as session:
            try:
                yield session
            finally:
                session.rollback()
                connection.rollback()

    def counts(self, connection: Connection) -> Counts:
        """Return what this transaction has inserted, updated and deleted, by table that has any; cascades included.

        The server also counts earlier transactions of this connection that it has not reported yet, so only
        the difference of two readings means something.
        """
        found = connection.execute(_COUNTERS, {"oids": list(self.oids)})
        return {self.oids[oid]: (inserted, updated, deleted) for oid, inserted, updated, deleted in found}

    def differences(self) -> Mapping[str, list[str]]:
        """Return, by table, how the database is not what the models ask for; read once, for all tables."""
        if self._differences is None:
            tables = guarded(self.world.metadata)
            found: dict[str, list[str]] = {}
            with create_engine(self.world.url(ADMIN), poolclass=NullPool).connect() as connection:
                there = read_state(connection, tables)
                for table in tables:
                    if (table.schema, table.name) not in there:
                        found.setdefault(_key_of(table), []).append("the table does not exist")
                for difference in differences(connection, tables, self.world.roles):
                    found.setdefault(_key_of(difference.table), []).append(difference.what)
                connection.rollback()
            self._differences = found
        return self._differences

    def _plain_engine(self, actor: Actor) -> Engine:
        if actor not in self._plain:
            url = self.world.url(ADMIN if actor == "table_owner" else self.world.roles.app)
            # Not prepared: a statement is hardly ever sent twice here.
            engine = create_engine(url, poolclass=StaticPool, connect_args={"prepare_threshold": None})
            self._plain[actor] = engine
            with engine.begin() as connection:  # for the whole session: nothing else is ever done on it
                for statement in self._opening(actor):
                    connection.exec_driver_sql(statement)
            self._watch(engine)
        return self._plain[actor]

    def _opening(self, actor: Actor) -> list[str]:
        if actor == "table_owner":
            return [f"SET ROLE {quote(self.world.roles.owner)}"]
        return [f"SET {setting} = ''" for setting in SETTINGS] if actor == "empty" else []

    def _watch(self, engine: Engine) -> None:
        if engine not in self._watched:
            event.listen(engine, "before_cursor_execute", self._note)
            self._watched.append(engine)

    def _note(self, _connection: object, _cursor: object, statement: str, *_rest: Any) -> None:
        if not statement.strip().startswith(_COUNTING):
            self.sent.append(statement)

    def close(self) -> None:
        for engine in self._watched:
            event.remove(engine, "before_cursor_execute", self._note)
        for engine in self._plain.values():
            engine.dispose()
        self._watched, self._plain = [], {}


def _key_of(table: GuardedTable) -> str:
    return f"{table.schema}.{table.name}" if table.schema else table.name
