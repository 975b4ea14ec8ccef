"""Databases copied from a finished one: built once per server, cloned in milliseconds per test worker."""

from collections.abc import Callable
from dataclasses import dataclass

from psycopg import Connection, sql

from tenancy.embedded.server import Server
from tenancy.errors import ServerError

# Grants and settings of a database live outside it, and CREATE DATABASE ... TEMPLATE leaves them behind:
# without them a clone would let roles CONNECT or use TEMP where the original does not.
COPY_RIGHTS = """
SELECT format('REVOKE ALL ON DATABASE %%I FROM PUBLIC', %(clone)s::text)
FROM pg_database WHERE datname = %(template)s::text AND datacl IS NOT NULL
UNION ALL
SELECT format('GRANT %%s ON DATABASE %%I TO %%s', privilege_type, %(clone)s::text,
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
FROM pg_database, aclexplode(datacl) WHERE datname = %(template)s::text
UNION ALL
SELECT CASE setrole WHEN 0 THEN format('ALTER DATABASE %%I', %(clone)s::text)
                    ELSE format('ALTER ROLE %%I IN DATABASE %%I', pg_get_userbyid(setrole), %(clone)s::text) END
       -- the values of list settings are stored with their quotes
       || format(CASE WHEN key ~ '^(search_path|temp_tablespaces|(local|session)_preload_libraries)$'
                      THEN ' SET %%I TO %%s' ELSE ' SET %%I TO %%L' END, key, value)
FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase, unnest(setconfig) AS setting,
     LATERAL (SELECT split_part(setting, '=', 1) AS key, substr(setting, strpos(setting, '=') + 1) AS value) AS pair
WHERE datname = %(template)s::text
"""
# Comments on databases: only what carries one is ever dropped.
CLONE_MARK = "tenancy: clone, may be replaced"
BUILD_MARK = "tenancy: template, unfinished until it is marked IS_TEMPLATE"


@dataclass(frozen=True)
class Template:
    """A finished database that nobody can connect to, only clone."""

    server: Server
    name: str

    def clone(self, name: str) -> str:
        """Create a database like the template, grants and settings of the database included; return its name.

        A clone of that name left by an earlier run is replaced; any other database of that name is an error.
        """
        with self.server.connect() as connection:
            _drop_marked(connection, name, CLONE_MARK)
            owner = _owner(connection, self.name)
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
                    sql.Identifier(name), sql.Identifier(self.name), sql.Identifier(owner)
                )
            )
            _mark(connection, name, CLONE_MARK)
            for (statement,) in connection.execute(COPY_RIGHTS, {"clone": name, "template": self.name}).fetchall():
                connection.execute(str(statement).encode())
        return name

    def drop(self, name: str) -> None:
        """Remove a clone, closing whatever is still connected to it; none of that name is fine."""
        with self.server.connect() as connection:
            _drop_marked(connection, name, CLONE_MARK)


def make_template(server: Server, name: str, build: Callable[[str], None]) -> Template:
    """Build a template database, unless one of this name is finished already.

    name: should change with what `build` creates (a hash of the migrations), because a finished one is kept.
    build: gets the superuser's URL of an empty database; it must leave no connection open.
    Many processes may call this at once: one builds, the others wait; a build that died is begun anew.
    """
    with server.connect() as connection:
        # One build at a time, whatever its name: building may make roles, which the whole server shares.
        connection.execute("SELECT pg_advisory_lock(hashtextextended('tenancy.template', 0))")
        state = connection.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", [name]).fetchone()
        if state != (True,):
            database = sql.Identifier(name)
            _drop_marked(connection, name, BUILD_MARK)
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(database))
            _mark(connection, name, BUILD_MARK)
            build(server.url(database=name))
            connection.execute(
                sql.SQL("ALTER DATABASE {} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false").format(database)
            )
    return Template(server, name)


def _owner(connection: Connection[tuple[object, ...]], template: str) -> str:
    row = connection.execute(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s AND datistemplate", [template]
    ).fetchone()
    if row is None:
        raise ServerError(f"there is no template database {template!r}", hint="call make_template first")
    return str(row[0])


def _mark(connection: Connection[tuple[object, ...]], name: str, mark: str) -> None:
    connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(mark)))


def _drop_marked(connection: Connection[tuple[object, ...]], name: str, mark: str) -> None:
    found = connection.execute(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [name]
    ).fetchone()
    if found is None:
        return
    if found != (mark,):
        raise ServerError(f"database {name!r} was not made here", hint="choose another name, or drop it yourself")
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
