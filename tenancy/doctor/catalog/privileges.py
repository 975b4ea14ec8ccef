"""Ways out besides tables: schemas, the database, defaults, large objects, extensions, statistics."""

from __future__ import annotations

from collections.abc import Iterator

from tenancy.doctor.catalog.guards import SCHEMA, Catalog
from tenancy.doctor.checks import Check, rules_of
from tenancy.doctor.findings import Finding, Rule
from tenancy.rls import quote

DEFAULT_PRIVILEGES = Rule(
    "TEN150",
    "default-privileges",
    "error",
    "What is created next is granted at once, before it carries a policy.",
)
SCHEMA_CREATE = Rule(
    "TEN151",
    "schema-create",
    "error",
    "Who may create objects in a schema can put one in the way of a statement that names another.",
)
DATABASE_CREATE = Rule(
    "TEN152",
    "database-create",
    "error",
    "Temporary objects and new schemas stand in for the tables and functions that statements name.",
)
LARGE_OBJECT = Rule(
    "TEN155",
    "large-object",
    "warning",
    "Large objects have no tenant and no policies; who knows or guesses the number of one reads it.",
)
RISKY_EXTENSION = Rule(
    "TEN156",
    "risky-extension",
    "warning",
    "The extension gives SQL a way out of the database, or code that runs past the policies.",
)
STATISTICS_READABLE = Rule(
    "TEN158",
    "statistics-readable",
    "error",
    "Planner statistics hold the most common values of each column, of every tenant.",
)
HARDENING_UNDONE = Rule(
    "TEN159",
    "hardening-undone",
    "error",
    "Hardening holds only as a whole: one function given back is enough for injected SQL to name another tenant.",
)

_KINDS = {"r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "n": "SCHEMAS", "L": "LARGE OBJECTS"}
# Each reaches other databases, files or programs, or runs code as the server's user.
RISKY = frozenset(
    {
        *("dblink", "postgres_fdw", "file_fdw", "adminpack", "pageinspect", "pg_surgery"),
        *("plpython3u", "plpythonu", "plperlu", "pltclu", "plsh", "http", "pg_net", "pg_cron", "pg_background"),
    }
)


def examine_defaults(catalog: Catalog) -> Iterator[Finding]:
    """Look for default privileges of runtime roles and PUBLIC, and for functions that PUBLIC gets by default."""
    for role, schema, kind, grantee, privilege in catalog.defaults:
        if kind in _KINDS and grantee in catalog.exposed:
            inside = f" IN SCHEMA {quote(schema)}" if schema else ""
            change = f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote(role)}{inside}"
            yield DEFAULT_PRIVILEGES.finding(
                f"default privileges of {role}{inside.lower()}",
                f"{privilege} ON {_KINDS[kind]} goes to {grantee}",
                remedy=f"{change} REVOKE {privilege} ON {_KINDS[kind]} FROM {grantee};",
            )
    revoked = {role for role, schema, kind, *_ in catalog.defaults if kind == "f" and not schema}
    for role in (catalog.roles.owner, catalog.roles.lookup):
        if role not in revoked:
            yield DEFAULT_PRIVILEGES.finding(
                f"default privileges of {role}",
                "EXECUTE ON FUNCTIONS goes to PUBLIC",
                remedy=f"ALTER DEFAULT PRIVILEGES FOR ROLE {role} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;",
            )


def examine_creation(catalog: Catalog) -> Iterator[Finding]:
    """Look for schemas, and the database, in which runtime roles may create objects."""
    for kind, name, grantee, privilege in catalog.privileges:
        if grantee not in catalog.exposed or privilege not in ("CREATE", "TEMPORARY"):
            continue
        rule = {"schema": SCHEMA_CREATE, "database": DATABASE_CREATE}.get(kind)
        # The schema's own difference is the library's to report.
        if rule is not None and name != SCHEMA:
            remedy = f"REVOKE {privilege} ON {kind.upper()} {name} FROM {grantee};"
            yield rule.finding(f"{kind} {name}", f"{grantee} has {privilege}", remedy=remedy)


def examine_large_objects(catalog: Catalog) -> Iterator[Finding]:
    """Look for large objects that runtime roles own or may read."""
    for kind, owner, grantee, count in catalog.privileges:
        if kind == "setting" and count == "on":
            remedy = f"ALTER DATABASE {quote(catalog.database)} RESET lo_compat_privileges;"
            yield LARGE_OBJECT.finding(f"setting {owner}", "every large object is open to every role", remedy=remedy)
        if kind == "large objects" and grantee in catalog.exposed:
            what = f"there are {count} of them, and {grantee} may read them whatever the tenant"
            role = quote(owner).replace("'", "''")
            # Printed as a remedy, with the name quoted; it is never run from here.
            drop = f"SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE lomowner = '{role}'::regrole;"  # noqa: S608
            remedy = f"{drop}  -- after their bytes were put into a tenant table"
            yield LARGE_OBJECT.finding(f"large objects of role {owner}", what, remedy=remedy)


def examine_extensions(catalog: Catalog) -> Iterator[Finding]:
    """Look for extensions and languages that lead out of the database."""
    for kind, name in catalog.extensions:
        if name in RISKY or kind == "language":
            what = "it reaches files, programs or other databases"
            yield RISKY_EXTENSION.finding(f"{kind} {name}", what, remedy=f"DROP {kind.upper()} {quote(name)};")


def examine_statistics(catalog: Catalog) -> Iterator[Finding]:
    """Look for privileges on the tables behind pg_stats."""
    for kind, name, grantee, privilege in catalog.privileges:
        if kind == "table" and grantee in (*catalog.exposed, catalog.roles.lookup):
            remedy = f"REVOKE {privilege} ON {name} FROM {grantee};"
            yield STATISTICS_READABLE.finding(f"table {name}", f"{grantee} has {privilege}", remedy=remedy)


def examine_hardening(catalog: Catalog) -> Iterator[Finding]:
    """Look, in a database that was hardened, for what the runtime roles hold again."""
    held = catalog.weaknesses() if catalog.is_hardened else []
    if held:
        more = f"; and {len(held) - 3} more" if len(held) > 3 else ""
        what = f"it was hardened, and now {'; '.join(held[:3])}{more}"
        yield HARDENING_UNDONE.finding(f"database {quote(catalog.database)}", what, remedy="tenancy harden --apply URL")


CHECKS = (
    Check((DEFAULT_PRIVILEGES,), examine_defaults),
    Check((SCHEMA_CREATE, DATABASE_CREATE), examine_creation),
    Check((LARGE_OBJECT,), examine_large_objects),
    Check((RISKY_EXTENSION,), examine_extensions),
    Check((STATISTICS_READABLE,), examine_statistics),
    Check((HARDENING_UNDONE,), examine_hardening),
)
RULES: tuple[Rule, ...] = rules_of(CHECKS)
