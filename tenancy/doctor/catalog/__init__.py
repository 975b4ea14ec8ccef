"""The examination of the database's catalog: what opens one tenant's rows to another, or keeps nobody from doing so."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from tenancy.doctor.catalog import (
    columns,
    grants,
    indexes,
    keys,
    library,
    privileges,
    replication,
    routines,
    row_security,
    views,
)
from tenancy.doctor.catalog.guards import Catalog
from tenancy.doctor.checks import not_checked, rules_of, run_checks
from tenancy.doctor.findings import NOT_CHECKED, Finding, Rule, Subject

CHECKS = (
    *row_security.CHECKS,
    *grants.CHECKS,
    *library.CHECKS,
    *columns.CHECKS,
    *keys.CHECKS,
    *indexes.CHECKS,
    *views.CHECKS,
    *routines.CHECKS,
    *privileges.CHECKS,
    *replication.CHECKS,
)
RULES: tuple[Rule, ...] = (row_security.NOT_INSTALLED, *rules_of(CHECKS))


def examine_catalog(subject: Subject) -> Iterator[Finding]:
    """Examine tables, policies, grants and functions, in a number of queries that does not grow with them.

    Reads inside savepoints and changes nothing that outlives them. Without schema `tenancy` there is one
    finding and no other: everything else would follow from it.
    """
    if subject.connection is None:
        remedy = "give the doctor the URL of the migrator or of a superuser"
        yield NOT_CHECKED.finding("kind catalog", "no connection to the database was given", remedy=remedy)
        return
    try:
        catalog = Catalog(subject.connection, subject)
    except SQLAlchemyError as error:
        yield not_checked(RULES, error)
        return
    if catalog.is_installed:
        yield from run_checks(CHECKS, catalog)
        return
    yield row_security.NOT_INSTALLED.finding(
        f"database {catalog.database}",
        "it has no schema tenancy",
        remedy="op.install_tenancy()  # in the first revision; autogenerate writes it",
    )
