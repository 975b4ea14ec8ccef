"""How operations are written into revision files: one readable line each."""

from __future__ import annotations

from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import render_op

from tenancy.alembic.operations import TenancyOp
from tenancy.alembic.rows import LiftedOps, LoweredOps


def render_operation(context: AutogenContext, operation: TenancyOp) -> str:
    positional, keywords = operation.arguments
    arguments = [*(repr(value) for value in positional), *(f"{name}={value!r}" for name, value in keywords.items())]
    return f"{_prefix(context)}{operation.verb}({', '.join(arguments)})"


def render_lifted(context: AutogenContext, operation: LiftedOps) -> list[str]:
    tables = ", ".join(repr(table) for table in operation.tables)
    tables += f", schema={str(operation.schema)!r}" if operation.schema else ""
    inner = [line for each in operation.ops for line in render_op(context, each)]
    return [f"with {_prefix(context)}lift_force({tables}):", *inner, ""]  # the blank line ends the block


def render_lowered(context: AutogenContext, operation: LoweredOps) -> list[str]:
    return [line for each in operation.ops for line in render_op(context, each)]


def _prefix(context: AutogenContext) -> str:
    return context.opts.get("alembic_module_prefix") or ""
