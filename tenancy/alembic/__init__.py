"""Migrations that carry isolation: operations for revision files, and their autogeneration from the models.

`alembic/env.py` calls `tenancy.alembic.install()`. Reading path: `autogenerate` (what a revision gets) ->
`guards` and `operations` (what it does) -> `rows` (data changes) -> `adoption` (tables that were there before).
"""

from __future__ import annotations

from alembic.autogenerate import comparators, renderers
from alembic.operations import Operations
from alembic.operations.ops import AddColumnOp
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority

from tenancy.alembic import adoption, guards, operations, rows, views
from tenancy.alembic.autogenerate import compare_guards
from tenancy.alembic.execution import Installation, is_first_installation, remember_installation
from tenancy.alembic.rendering import render_lifted, render_lowered, render_operation
from tenancy.rls import Flavour, Roles

__all__ = ["install"]

_OPERATIONS: tuple[type, ...] = (
    operations.InstallTenancyOp,
    operations.ReinstallTenancyOp,
    operations.UninstallTenancyOp,
    operations.CreateLookupOp,
    operations.RecreateLookupOp,
    operations.DropLookupOp,
    guards.GuardTableOp,
    guards.UnguardTableOp,
    guards.ReguardTableOp,
    guards.CreatePermissivePolicyOp,
    guards.DropPermissivePolicyOp,
    adoption.AdoptTableOp,
    adoption.AbandonTableOp,
    rows.LiftForce,
    rows.ForEachTenant,
    views.CreateTenantViewOp,
    views.DropTenantViewOp,
    views.CreateTenantMaterializedViewOp,
    views.DropTenantMaterializedViewOp,
    views.RefreshTenantMaterializedView,
)


def install(*, roles: Roles | None = None, flavour: Flavour = "postgres", signed: bool = False) -> None:
    """Teach alembic tenancy's operations, their text in revision files, and the comparison behind autogenerate.

    Call it in `env.py`; calling it again only changes what it was told. roles: None for the default prefix.
    signed: the policies are to demand signed scopes; autogenerate then writes the step there, or back.
    The comparison needs no `autogenerate_plugins`; naming "tenancy.*" there is fine.
    """
    is_first = is_first_installation()
    remember_installation(Installation(roles or Roles(), flavour, signed))
    if not is_first:
        return
    for operation in _OPERATIONS:
        # Each of ours has a verb; their common base class in alembic does not say so.
        Operations.register_operation(operation.verb)(operation)  # type: ignore[attr-defined]
    Operations.implementation_for(operations.TenancyOp)(operations.run_operation)
    Operations.implementation_for(AddColumnOp, replace=True)(operations.add_column)
    renderers.dispatch_for(operations.TenancyOp)(render_operation)
    renderers.dispatch_for(rows.LiftedOps)(render_lifted)
    renderers.dispatch_for(rows.LoweredOps)(render_lowered)
    # The registry of comparators that every context starts from; a plugin's own are skipped unless env.py names it.
    comparators.dispatch_for("schema", qualifier="postgresql", priority=DispatchPriority.LAST)(compare_guards)
    Plugin("tenancy.guards")  # empty: it lets autogenerate_plugins name "tenancy.*"
