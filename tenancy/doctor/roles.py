"""Roles: their attributes, memberships, possessions and settings."""

from __future__ import annotations

from collections.abc import Iterator

from tenancy.doctor import connection
from tenancy.doctor.findings import NOT_CHECKED, Finding, Rule, Subject

ROLE_MISSING = Rule(
    "TEN201",
    "role-missing",
    "error",
    "Without the role, what it was meant to do is done by a stronger one.",
)
ROLE_ATTRIBUTE = Rule(
    "TEN202",
    "role-attribute",
    "error",
    "The attribute lets the role pass policies, or make a role that does.",
)
ROLE_MEMBER = Rule(
    "TEN203",
    "role-member",
    "error",
    "A member acts with the rights of the role it belongs to.",
)
ROLE_OWNS = Rule(
    "TEN204",
    "role-owns",
    "error",
    "An owner can change or share what it owns, and switch its policies off.",
)
SCOPE_PRESET = Rule(
    "TEN205",
    "scope-preset",
    "error",
    "A scope that is set before any transaction makes forgotten bindings read one tenant's rows instead of failing.",
)
ROLE_SETTING = Rule(
    "TEN206",
    "role-setting",
    "error",
    "The setting takes effect at each login, before the library can object.",
)
SEARCH_PATH = Rule(
    "TEN207",
    "search-path",
    "warning",
    "The path decides which object a plain name means; temporary objects must come last.",
)
TIMEOUT_MISSING = Rule(
    "TEN208",
    "timeout-missing",
    "warning",
    "One tenant's statement, lock or idle transaction can hold up all others for ever.",
)
MIGRATOR_FILTERED = Rule(
    "TEN209",
    "migrator-filtered",
    "warning",
    "Without row_security = off a data migration changes no row, or one tenant's, and reports success.",
)
LOGIN_UNEXPECTED = Rule(
    "TEN210",
    "login-unexpected",
    "warning",
    "A login that the library does not know has privileges on tenants' rows.",
)

RULES: tuple[Rule, ...] = (
    ROLE_MISSING,
    ROLE_ATTRIBUTE,
    ROLE_MEMBER,
    ROLE_OWNS,
    SCOPE_PRESET,
    ROLE_SETTING,
    SEARCH_PATH,
    TIMEOUT_MISSING,
    MIGRATOR_FILTERED,
    LOGIN_UNEXPECTED,
    *connection.RULES,
)


def examine_roles(subject: Subject) -> Iterator[Finding]:
    """Examine the roles, their settings, the server, and the connection of the application."""
    yield NOT_CHECKED.finding("roles", "not written yet", remedy="wait")
