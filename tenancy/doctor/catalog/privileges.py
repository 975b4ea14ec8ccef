"""Ways out besides tables: schemas, the database, defaults, large objects, extensions, statistics."""

from __future__ import annotations

from tenancy.doctor.findings import Rule

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

RULES: tuple[Rule, ...] = (
    DEFAULT_PRIVILEGES,
    SCHEMA_CREATE,
    DATABASE_CREATE,
    LARGE_OBJECT,
    RISKY_EXTENSION,
    STATISTICS_READABLE,
)
