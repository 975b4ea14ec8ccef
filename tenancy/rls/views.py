"""Views over tenant tables: plain ones read with the caller's rights, materialized ones through a window."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tenancy.errors import ConfigurationError
from tenancy.rls.names import SCHEMA, qualified, quote
from tenancy.rls.roles import Roles
from tenancy.tables import TENANT_KEY

_CHANGES = ("INSERT", "UPDATE", "DELETE")
_LONGEST = 63  # bytes of an identifier; PostgreSQL cuts what is longer, and two names could become one
_COLUMNS = r"SELECT [^()]+?\s+FROM"
_KEY = rf"(?:\S+\.)?{TENANT_KEY}"
_WINDOW = re.compile(
    rf"\s*{_COLUMNS} \( {_COLUMNS} (?P<stored>\S+)\s+"
    rf"WHERE \(\({_KEY} = {SCHEMA}\.current_tenant\(\)\)"
    rf" AND \({_KEY} = \( SELECT {SCHEMA}\.guarded_tenant\(\) AS guarded_tenant\)\)\)\s+"
    rf"UNION ALL\s+{_COLUMNS} (?P=stored)\s+"
    rf"WHERE \( SELECT {SCHEMA}\.platform_open\(\) AS platform_open\)\) shown;?\s*"
)


@dataclass(frozen=True)
class TenantView:
    """A view in which everybody sees what the policies of its tables let them see.

    sql: the query. allow: of INSERT, UPDATE and DELETE, those granted besides SELECT.
    is_barrier: the view's own conditions hide rows too, so no condition of the caller may run before them.
    """

    name: str
    sql: str
    allow: tuple[str, ...] = ()
    is_barrier: bool = False
    schema: str | None = None

    def __post_init__(self) -> None:
        if unknown := [privilege for privilege in self.allow if privilege not in _CHANGES]:
            raise ConfigurationError(
                f"view {self.name!r} cannot allow {', '.join(unknown)}", hint=f"choose of {', '.join(_CHANGES)}"
            )


@dataclass(frozen=True)
class StoredView:
    """A materialized view of all tenants' rows, which nobody may read, and the window on it, which shows one's own.

    sql: the query; it must return `tenant_id`. unique: columns of a unique index, the tenant's first; a concurrent
    refresh needs one.
    """

    name: str
    sql: str
    unique: tuple[str, ...] = ()
    schema: str | None = None

    def __post_init__(self) -> None:
        if self.unique and self.unique[0] != TENANT_KEY:
            raise ConfigurationError(
                f"the unique index of {self.name!r} does not begin with {TENANT_KEY!r}",
                hint="name the tenant first: one tenant's value must not keep out another's",
            )
        if len(self.stored_name.encode()) > _LONGEST:
            raise ConfigurationError(f"{self.name!r} is too long for a view", hint="leave room for its second name")

    @property
    def stored_name(self) -> str:
        return f"{self.name}_all_tenants"


def create_view_sql(view: TenantView, roles: Roles) -> list[str]:
    """Return the statements that make a view and grant it; with its owner's rights it would show all tenants."""
    name = qualified(view.name, view.schema)
    barrier = ", security_barrier = true" if view.is_barrier else ""
    return [
        f"CREATE VIEW {name} WITH (security_invoker = true{barrier}) AS {_query(view.sql)}",
        f"REVOKE ALL ON {name} FROM PUBLIC, {roles.app}, {roles.platform}, {roles.lookup}",
        f"GRANT {', '.join(('SELECT', *view.allow))} ON {name} TO {roles.app}, {roles.platform}",
    ]


def drop_view_sql(name: str, *, schema: str | None = None) -> list[str]:
    return [f"DROP VIEW {qualified(name, schema)}"]


def create_stored_view_sql(view: StoredView, roles: Roles) -> list[str]:
    """Return the statements that make and fill a materialized view, and the window through which it is read.

    A materialized view takes no policies, so the window repeats them: the first part is the isolation policy and
    the guard, the second what an open platform session may read. In two parts, because an OR would lose the index;
    and inside a sub-select, because a view that is a UNION ALL is no barrier: a cheap function of the caller's would
    be shown the rows first.
    """
    name, stored = qualified(view.name, view.schema), qualified(view.stored_name, view.schema)
    columns = ", ".join(quote(column) for column in view.unique or (TENANT_KEY,))
    index = f"CREATE {'UNIQUE ' if view.unique else ''}INDEX ON {stored} ({columns})"
    nobody = f"PUBLIC, {roles.app}, {roles.platform}, {roles.lookup}"
    return [
        f"CREATE MATERIALIZED VIEW {stored} AS {_query(view.sql)} WITH NO DATA",
        f"REVOKE ALL ON {stored} FROM {nobody}",
        index,
        refresh_sql(view.name, schema=view.schema),
        f"CREATE VIEW {name} WITH (security_barrier = true, security_invoker = false) AS "
        f"SELECT * FROM (SELECT * FROM {stored} WHERE {TENANT_KEY} = {SCHEMA}.current_tenant() "
        f"AND {TENANT_KEY} = (SELECT {SCHEMA}.guarded_tenant()) "
        f"UNION ALL SELECT * FROM {stored} WHERE (SELECT {SCHEMA}.platform_open())) shown",
        f"REVOKE ALL ON {name} FROM {nobody}",
        f"GRANT SELECT ON {name} TO {roles.app}, {roles.platform}",
    ]


def drop_stored_view_sql(view: StoredView) -> list[str]:
    return [
        f"DROP VIEW {qualified(view.name, view.schema)}",
        f"DROP MATERIALIZED VIEW {qualified(view.stored_name, view.schema)}",
    ]


def refresh_sql(name: str, *, schema: str | None = None, concurrently: bool = False) -> str:
    """Return a block that fills a materialized view from every tenant's rows.

    The view is filled with its owner's rights, whom FORCE stops: it is off for the tables the view reads until the
    block ends, and they are locked until the transaction does. A block that fails leaves FORCE as it was.
    """
    stored = qualified(StoredView(name, "", schema=schema).stored_name, schema)
    literal = stored.replace("'", "''")
    return (
        "DO $tenancy$ DECLARE forced regclass[]; source regclass; BEGIN\n"
        "  WITH RECURSIVE reads (oid) AS (\n"
        f"    SELECT '{literal}'::regclass::oid\n"
        "    UNION\n"
        "    SELECT d.refobjid FROM reads r JOIN pg_rewrite w ON w.ev_class = r.oid JOIN pg_depend d\n"
        "      ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass)\n"
        "  SELECT coalesce(array_agg(c.oid ORDER BY c.oid), '{}') INTO forced\n"
        "    FROM reads r JOIN pg_class c ON c.oid = r.oid WHERE c.relforcerowsecurity;\n"
        "  FOREACH source IN ARRAY forced LOOP\n"
        "    EXECUTE 'ALTER TABLE ' || source || ' NO FORCE ROW LEVEL SECURITY';\n"
        "  END LOOP;\n"
        f"  REFRESH MATERIALIZED VIEW {'CONCURRENTLY ' if concurrently else ''}{stored};\n"
        "  FOREACH source IN ARRAY forced LOOP\n"
        "    EXECUTE 'ALTER TABLE ' || source || ' FORCE ROW LEVEL SECURITY';\n"
        "  END LOOP;\n"
        "END $tenancy$"
    )


def is_window(definition: str) -> bool:
    """Tell whether a view, as `pg_get_viewdef` prints it, is the window on a materialized view and nothing more."""
    return _WINDOW.fullmatch(definition) is not None


def _query(sql: str) -> str:
    return sql.strip().removesuffix(";")
