"""What migrations need to know of a database: its schema `tenancy`, and what a fresh one would be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from tenancy.lookups import Lookup
from tenancy.rls.functions import create_lookup_sql, install_sql
from tenancy.rls.names import SCHEMA, Flavour, qualified
from tenancy.rls.policies import GuardedTable, drawing_roles
from tenancy.rls.roles import Roles
from tenancy.rls.signatures import BIND

_INSTALLED = text("SELECT to_regnamespace(:schema) IS NOT NULL")
_ROUTINES = text("""
    SELECT p.proname, pg_get_function_arguments(p.oid), pg_get_userbyid(p.proowner),
           ARRAY(SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee) END
                 FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
                 WHERE x.grantee <> p.proowner AND x.privilege_type = 'EXECUTE'),
           p.prosrc,
           concat_ws(' ', pg_get_function_result(p.oid), l.lanname, p.prosecdef, p.provolatile, p.proparallel,
                     p.proisstrict, p.proleakproof, p.proconfig, 'cost', p.procost)
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace = to_regnamespace(:schema) ORDER BY 1, 2
""")
_UPDATE_COLUMNS = text("""
    SELECT a.attname FROM pg_attribute a
    WHERE a.attrelid = CAST(:name AS regclass) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
      AND a.attname <> :key AND a.attname <> 'tenant_id'
      AND NOT EXISTS (SELECT FROM pg_index i
                      WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY (i.indkey))
    ORDER BY a.attnum
""")
_ANNOUNCES = text("""
    SELECT EXISTS (SELECT FROM pg_trigger t
                   WHERE t.tgrelid = CAST(:name AS regclass) AND t.tgname = 'tenancy_announce'
                     AND t.tgfoid = to_regprocedure(:function) AND t.tgenabled <> 'D')
""")
_USABLE = text("""
    SELECT bool_and(to_regclass(s) IS NULL OR has_sequence_privilege(r, to_regclass(s)::oid, 'USAGE'))
    FROM unnest(CAST(:sequences AS text[])) s, unnest(CAST(:roles AS text[])) r
""")
_LOOKUP_SOURCE = re.compile(
    r"\n#variable_conflict use_column\nBEGIN (?:IF [^;]+;\n  END IF;\n  )?"
    r"RETURN QUERY SELECT (?P<returns>[\w., ]+) FROM public\.(?P<table>\w+) t\n"
    r"  WHERE t\.(?P<key>\w+) = (?:\$1|\(SELECT tenancy\.guarded_account\(\)\))"
    r"(?P<requires>(?: AND t\.\w+ IS NOT NULL)*); END "
)


@dataclass(frozen=True)
class Routine:
    """One function of schema `tenancy`, as the catalog holds it. `traits`: result, language, safety, settings, cost."""

    name: str
    arguments: str
    owner: str
    callers: frozenset[str]
    source: str
    traits: str

    def answers(self, wanted: Routine) -> bool:
        """Whether it is the wanted function: roles of other programs may call it besides, PUBLIC may not."""
        callers = self.callers & (wanted.callers | {"PUBLIC"})
        return (self.arguments, self.owner, self.source, self.traits, callers) == (
            wanted.arguments,
            wanted.owner,
            wanted.source,
            wanted.traits,
            wanted.callers,
        )


def send(connection: Connection, statements: Iterable[str]) -> None:
    """Run statements as they are written: a percent sign is no placeholder, `:name` no parameter."""
    for statement in statements:
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def is_installed(connection: Connection) -> bool:
    """Whether schema `tenancy` exists."""
    return bool(connection.execute(_INSTALLED, {"schema": SCHEMA}).scalar_one())


def is_signed(connection: Connection) -> bool:
    """Whether the policies of the database demand signed scopes."""
    return BIND in read_routines(connection)


def read_routines(connection: Connection) -> dict[str, Routine]:
    """Return the functions of schema `tenancy` by name; none when it does not exist."""
    return {
        name: Routine(name, arguments, owner, frozenset(callers), source, traits)
        for name, arguments, owner, callers, source, traits in connection.execute(_ROUTINES, {"schema": SCHEMA})
    }


@contextmanager
def freshly_installed(
    connection: Connection, roles: Roles, flavour: Flavour, *, signed: bool = False
) -> Iterator[None]:
    """Put a fresh schema `tenancy` in place of the real one inside the block, in a savepoint rolled back after it.

    What the server makes of our text can then be read and compared; nobody else ever sees it.
    """
    savepoint = connection.begin_nested()
    try:
        if is_installed(connection):
            connection.exec_driver_sql(f"ALTER SCHEMA {SCHEMA} RENAME TO {SCHEMA}_set_aside")
        send(connection, install_sql(roles, flavour, signed=signed))
        yield
    finally:
        savepoint.rollback()


def fresh_lookups(connection: Connection, lookups: Sequence[Lookup], roles: Roles) -> dict[str, Routine]:
    """Create the lookups inside `freshly_installed` and read them back; one whose columns do not exist is left out."""
    for lookup in lookups:
        savepoint = connection.begin_nested()
        try:
            send(connection, create_lookup_sql(lookup, roles))
        except ProgrammingError:
            savepoint.rollback()
        else:
            savepoint.commit()
    names = {lookup.name for lookup in lookups}
    return {name: routine for name, routine in read_routines(connection).items() if name in names}


def recover_lookup(routine: Routine, roles: Roles) -> Lookup | None:
    """Return the declaration a lookup function was written from; None for a function that is not our text."""
    found = _LOOKUP_SOURCE.fullmatch(routine.source)
    if found is None:
        return None
    key_type = routine.arguments.removeprefix("key ") or "text"
    if key_type not in ("text", "bytea", "uuid"):
        return None
    lookup = Lookup(
        name=routine.name,
        table=found["table"],
        key=found["key"],
        returns=tuple(column.removeprefix("t.") for column in found["returns"].split(", ")),
        key_type=key_type,
        by_account=not routine.arguments,
        requires=tuple(re.findall(r"t\.(\w+) IS", found["requires"])),
    )
    return lookup if f"$${routine.source}$$" in create_lookup_sql(lookup, roles)[1] else None


def read_update_columns(connection: Connection, table: GuardedTable) -> tuple[str, ...]:
    """Return the columns of a table outside its keys, in order: those a role may be granted UPDATE on."""
    wanted = {"name": table.sql_name, "key": table.key}
    return tuple(connection.execute(_UPDATE_COLUMNS, wanted).scalars())


def announces(connection: Connection, table: GuardedTable) -> bool:
    """Whether every process is told when a row of this table changes."""
    wanted = {"name": table.sql_name, "function": f"{SCHEMA}.announce_tenant()"}
    return bool(connection.execute(_ANNOUNCES, wanted).scalar_one())


def can_draw(connection: Connection, table: GuardedTable, roles: Roles) -> bool:
    """Whether the roles that may insert may draw from every sequence of a table that exists."""
    sequences = [qualified(name, table.schema) for name in table.sequences]
    names = {"sequences": sequences, "roles": drawing_roles(table, roles)}
    return connection.execute(_USABLE, names).scalar_one() is not False
