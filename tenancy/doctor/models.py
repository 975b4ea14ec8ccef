"""Models against the database, both ways: what one has and the other lacks, as far as isolation depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from sqlalchemy import Column, Connection, ForeignKeyConstraint, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SQLAlchemyError

from tenancy.doctor.findings import NOT_CHECKED, Finding, Rule, Subject
from tenancy.doctor.shapes import ColumnShape, Key, TableShape, canonical_types, read_shapes
from tenancy.tables import TENANT_KEY, faults_of

MODEL_REFUSED = Rule(
    "TEN301",
    "model-refused",
    "error",
    "A table that is declared in a way the library cannot isolate gets no policies that hold.",
)
TABLE_MISSING = Rule(
    "TEN302",
    "table-missing",
    "error",
    "What runs against this database is not what was tested: a migration has not run, or ran elsewhere.",
)
TABLE_UNKNOWN = Rule(
    "TEN303",
    "table-without-model",
    "warning",
    "A table that no model knows is examined by nobody: no test walks it and no completeness check counts it.",
)
TENANT_TABLE_UNKNOWN = Rule(
    "TEN304",
    "tenant-table-without-model",
    "error",
    "Rows of tenants lie in a table that no model knows, so nothing made from the models guards it.",
)
TENANT_COLUMN_DRIFT = Rule(
    "TEN305",
    "tenant-column-drift",
    "error",
    "Models and database disagree about whose rows these are, so one side does not keep them apart.",
)
COLUMN_MISSING = Rule(
    "TEN306",
    "column-missing",
    "error",
    "Each statement that names the column fails, or code falls back to another one.",
)
COLUMN_UNKNOWN = Rule(
    "TEN307",
    "column-without-model",
    "note",
    "The column has data that the application neither shows nor deletes, such as on a tenant's last day.",
)
KEY_COLUMN_DRIFT = Rule(
    "TEN308",
    "key-column-drift",
    "error",
    "A key column of another type, or one that may be NULL, compares differently from what the policies expect.",
)
KEY_MISSING = Rule(
    "TEN309",
    "key-missing",
    "error",
    "Without the key, the database accepts rows that the models rule out, such as a reference to another tenant's row.",
)
KEY_UNKNOWN = Rule(
    "TEN310",
    "key-without-model",
    "warning",
    "A key that only this database has is in no test: it may refuse one tenant because of another's row.",
)
INDEX_MISSING = Rule(
    "TEN311",
    "index-missing",
    "warning",
    "Without the index, each tenant's query reads everybody's rows to find its own, and slows down with their number.",
)
RULES = (
    MODEL_REFUSED,
    TABLE_MISSING,
    TABLE_UNKNOWN,
    TENANT_TABLE_UNKNOWN,
    TENANT_COLUMN_DRIFT,
    COLUMN_MISSING,
    COLUMN_UNKNOWN,
    KEY_COLUMN_DRIFT,
    KEY_MISSING,
    KEY_UNKNOWN,
    INDEX_MISSING,
)

_MIGRATE = "run your migrations on this database, or write the one that is missing: alembic revision --autogenerate"
_VERSIONS = "alembic_version"
_dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's


def examine_models(subject: Subject) -> Iterator[Finding]:
    """Compare the metadata with itself and with the database; four queries, however many tables."""
    if subject.metadata is None:
        yield NOT_CHECKED.finding(
            "kind models", "no models were given", remedy="pass --metadata shop.models:Base.metadata"
        )
        return
    tables = list(subject.metadata.tables.values())
    if not tables:
        yield NOT_CHECKED.finding(
            "kind models",
            "the metadata has no tables",
            remedy="name a module that imports every model, such as shop.models",
        )
        return
    for table in tables:
        for fault in faults_of(table):
            remedy = "use TenantTable, TenantUnique and TenantForeignKey, or mark it with platform_table(reason=...)"
            yield MODEL_REFUSED.finding(f"model {table.fullname}", fault, remedy=remedy)
    if subject.connection is None:
        yield NOT_CHECKED.finding(
            "kind models",
            "the models were compared with no database",
            remedy="pass the migrator's URL: tenancy doctor URL",
        )
        return
    yield from _compare(tables, subject.connection)


def _compare(tables: list[Table], connection: Connection) -> Iterator[Finding]:
    shapes = read_shapes(connection)
    default = str(connection.dialect.default_schema_name)
    known = {_name(table, default): table for table in tables}
    types = canonical_types(connection, (_type(column) for table in tables for column in table.columns))
    for name, table in known.items():
        shape = shapes.get(name)
        if shape is None:
            yield TABLE_MISSING.finding(f"table {name}", "the database has no such table", remedy=_MIGRATE)
        else:
            yield from _columns(table, shape, types)
            yield from _keys(table, shape, default)
            yield from _indexes(table, shape)
    for name, shape in shapes.items():
        if name not in known and name.partition(".")[2] != _VERSIONS:
            yield _unknown(shape)


def _unknown(shape: TableShape) -> Finding:
    drop = "or drop it"
    if TENANT_KEY in shape.columns:
        remedy = f"give it a model (TenantTable) and op.guard_table in a migration, {drop}"
        return TENANT_TABLE_UNKNOWN.finding(f"table {shape.name}", "has tenant_id, and no model", remedy=remedy)
    remedy = f"give it a model marked with platform_table(reason=...), {drop}"
    return TABLE_UNKNOWN.finding(f"table {shape.name}", "no model knows it", remedy=remedy)


def _columns(table: Table, shape: TableShape, types: dict[str, str | None]) -> Iterator[Finding]:
    object_name = f"table {shape.name}"
    wanted = {column.name: column for column in table.columns}
    if (TENANT_KEY in wanted) != (TENANT_KEY in shape.columns):
        has, lacks = ("the model", "the database") if TENANT_KEY in wanted else ("the database", "the model")
        yield TENANT_COLUMN_DRIFT.finding(object_name, f"{has} has tenant_id and {lacks} has not", remedy=_MIGRATE)
    for name in sorted((wanted.keys() - shape.columns.keys()) - {TENANT_KEY}):
        yield COLUMN_MISSING.finding(f"column {shape.name}.{name}", "the database has no such column", remedy=_MIGRATE)
    for name in sorted((shape.columns.keys() - wanted.keys()) - {TENANT_KEY}):
        remedy = f"add {name} to the model, or drop it in a migration"
        yield COLUMN_UNKNOWN.finding(f"column {shape.name}.{name}", "the model has no such column", remedy=remedy)
    for column in _key_columns(table):
        if column.name in shape.columns:
            yield from _key_column(column, shape, types[_type(column)])


def _key_column(column: Column[object], shape: TableShape, wanted: str | None) -> Iterator[Finding]:
    name, found = f"column {shape.name}.{column.name}", shape.columns[column.name]
    if wanted is None:
        what = f"the database does not know the type {_type(column)}"
        yield NOT_CHECKED.finding(name, what, remedy="create the type or its extension in a migration")
    elif wanted != found.type:
        yield KEY_COLUMN_DRIFT.finding(name, f"is {found.type}, and {wanted} in the model", remedy=_MIGRATE)
    if bool(column.nullable) != found.is_nullable:
        yield KEY_COLUMN_DRIFT.finding(name, _nullability(found), remedy=_MIGRATE)


def _nullability(found: ColumnShape) -> str:
    return "may be NULL, and not in the model" if found.is_nullable else "is NOT NULL, and may be NULL in the model"


def _keys(table: Table, shape: TableShape, default: str) -> Iterator[Finding]:
    wanted = {key.meaning: key for key in _keys_of(table, default)}
    found = {key.meaning: key for key in shape.keys}
    for meaning in wanted.keys() - found.keys():
        yield KEY_MISSING.finding(f"table {shape.name}", f"has no {wanted[meaning]}", remedy=_MIGRATE)
    for meaning in found.keys() - wanted.keys():
        if meaning[0] == "unique" and meaning[1] >= set(_primary(table)):
            continue  # as wide as the primary key, it refuses nothing that the primary key allows
        remedy = "add it to the model, or drop it in a migration"
        yield KEY_UNKNOWN.finding(f"table {shape.name}", f"has a {found[meaning]}, the model none", remedy=remedy)


def _indexes(table: Table, shape: TableShape) -> Iterator[Finding]:
    for index in table.indexes:
        columns = tuple(getattr(expression, "name", "") or "" for expression in index.expressions)
        if columns[:1] != (TENANT_KEY,) or "" in columns:
            continue
        if not any(found[: len(columns)] == columns for found in shape.leading):
            what = f"has no index on ({', '.join(columns)})"
            yield INDEX_MISSING.finding(f"table {shape.name}", what, remedy=_MIGRATE)


def _keys_of(table: Table, default: str) -> Iterator[Key]:
    for constraint in table.constraints:
        columns = tuple(column.name for column in getattr(constraint, "columns", ()))
        if isinstance(constraint, PrimaryKeyConstraint) and columns:
            yield Key("primary key", columns)
        elif isinstance(constraint, UniqueConstraint):
            yield Key("unique", columns)
        elif isinstance(constraint, ForeignKeyConstraint):
            with suppress(SQLAlchemyError):  # it points at an unknown table, which TEN301 says
                referred = tuple(element.column.name for element in constraint.elements)
                yield Key("foreign key", columns, (_name(constraint.referred_table, default), referred))
    for index in table.indexes:
        is_partial = index.dialect_options["postgresql"]["where"] is not None
        names = tuple(getattr(expression, "name", "") or "" for expression in index.expressions)
        if index.unique and not is_partial and "" not in names:
            yield Key("unique", names)


def _key_columns(table: Table) -> list[Column[object]]:
    names = {name for key in _keys_of(table, "") for name in key.columns} | {TENANT_KEY}
    return [column for column in table.columns if column.name in names]


def _primary(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


def _name(table: Table, default: str) -> str:
    return f"{table.schema or default}.{table.name}"


def _type(column: Column[object]) -> str:
    return column.type.compile(_dialect)
