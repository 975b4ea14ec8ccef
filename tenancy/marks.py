"""Marks: what a table is to its tenants, and what the runtime roles may do with it, said beside the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from sqlalchemy import Table

from tenancy.errors import ModelError

TENANT_KEY = "tenant_id"
_MARK = "tenancy"
_LIMITS = "tenancy_limits"
# What marks leave in `Table.info`.
INFO_KEYS = (_MARK, _LIMITS)

Kind = Literal["tenant", "registry", "account", "staff", "platform"]
Privilege = Literal["SELECT", "INSERT", "UPDATE", "DELETE"]
EVERY_PRIVILEGE: tuple[Privilege, ...] = ("SELECT", "INSERT", "UPDATE", "DELETE")
T = TypeVar("T")


@dataclass(frozen=True)
class TableMark:
    """What a table was marked as. `account_key` names the column that holds the owning account's id.

    app, platform: what each of the two runtime roles may do with its rows.
    """

    kind: Kind
    reason: str
    account_key: str | None = None
    app_update: tuple[str, ...] | None = None
    app: tuple[Privilege, ...] = EVERY_PRIVILEGE
    platform: tuple[Privilege, ...] = EVERY_PRIVILEGE


def platform_table(*, reason: str, account_key: str | None = None) -> Callable[[T], T]:
    """Mark a model or Table as having no tenant, and say why.

    reason: shown by the completeness check; may not be blank.
    account_key: the column holding the owner's account id; its rows are then guarded by
        `app.account_id` the way tenant tables are by `app.tenant_id`. None leaves it to plain grants.
    """
    _check_reason(reason, "platform_table")
    return _marker(TableMark("account" if account_key else "platform", reason, account_key))


def staff_table(*, reason: str) -> Callable[[T], T]:
    """Mark a model or Table as platform staff's own: it has no tenant, and policies that open in a platform scope only.

    The app role is granted nothing; lookups may read it. It is written in `platform_scope(..., reads_only=False)`.
    reason: why it has no tenant; may not be blank.
    """
    _check_reason(reason, "staff_table")
    return _marker(TableMark("staff", reason, app=()))


def registry_table(*, app_update: Sequence[str]) -> Callable[[T], T]:
    """Mark the table of tenants: the app role may create and read a tenant, and update only these columns.

    Status, plan, slug and deletion stay with the platform, so that a tenant cannot lift its own suspension.
    A column with `onupdate` belongs in the list: SQLAlchemy sets it in every update.
    """
    return _marker(TableMark("registry", "the table of tenants", app_update=tuple(app_update)))


def limit_grants(*, app: Sequence[Privilege], platform: Sequence[Privilege] = EVERY_PRIVILEGE) -> Callable[[T], T]:
    """Grant the runtime roles less than everything on a tenant table: `app=("SELECT", "INSERT")` is append-only.

    What a tenant may read but not decide, such as its limits, is `app=("SELECT",)`: platform staff write it.
    A foreign key that would delete or blank what a role may not is refused, unless its `info` has `past_limits`.
    app, platform: of SELECT, INSERT, UPDATE, DELETE; SELECT always, for rows that nobody reads prove nothing.
    Raises: ModelError - a privilege is unknown, or SELECT is missing.
    """
    for role, given in (("app", app), ("platform", platform)):
        unknown = [name for name in given if name not in EVERY_PRIVILEGE]
        if unknown or "SELECT" not in given:
            found = f"{', '.join(map(repr, unknown))} is no privilege" if unknown else "SELECT is missing"
            raise ModelError(
                f"limit_grants({role}=...): {found}", hint="give SELECT, and INSERT, UPDATE or DELETE as needed"
            )

    def apply(target: T) -> T:
        _table_of(target).info[_LIMITS] = (_in_order(app), _in_order(platform))
        return target

    return apply


def _in_order(given: Sequence[Privilege]) -> tuple[Privilege, ...]:
    return tuple(name for name in EVERY_PRIVILEGE if name in given)


def mark_of(table: Table) -> TableMark | None:
    """Return how the table is isolated; None when it has no `tenant_id` and nobody marked it."""
    mark = table.info.get(_MARK)
    if not isinstance(mark, TableMark):
        if TENANT_KEY not in table.c:
            return None
        mark = TableMark("tenant", "has tenant_id")
    if _LIMITS not in table.info:
        return mark
    app, platform = table.info[_LIMITS]
    return dataclasses.replace(mark, app=app, platform=platform)


def is_limited(table: Table) -> bool:
    """Tell whether `limit_grants` was said of the table."""
    return _LIMITS in table.info


def _check_reason(reason: str, function: str) -> None:
    if not reason.strip():
        raise ModelError("platform table without a reason", hint=f'say why: {function}(reason="...")')


def _marker(mark: TableMark) -> Callable[[T], T]:
    def apply(target: T) -> T:
        _table_of(target).info[_MARK] = mark
        return target

    return apply


def _table_of(target: object) -> Table:
    table = target if isinstance(target, Table) else getattr(target, "__table__", None)
    if not isinstance(table, Table):
        raise ModelError(f"{target!r} has no table to mark", hint="decorate a mapped class or a Table")
    return table
