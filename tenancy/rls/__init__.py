"""Row-level security: the only place that writes role, function, policy and grant text, and reads it back."""

from tenancy.rls.catalog import Difference, TableState, canonical_policies, differences, read_state
from tenancy.rls.functions import create_lookup_sql, drop_lookup_sql, install_sql, uninstall_sql
from tenancy.rls.names import SCHEMA, Flavour, qualified, quote
from tenancy.rls.policies import (
    POLICY_NAMES,
    Grant,
    GuardedTable,
    Policy,
    announce_sql,
    force_sql,
    grant_added_column_sql,
    grants,
    guard_sql,
    guarded,
    guarded_table,
    policies,
    unguard_sql,
)
from tenancy.rls.roles import Roles, bootstrap_sql

__all__ = [
    "POLICY_NAMES",
    "SCHEMA",
    "Difference",
    "Flavour",
    "Grant",
    "GuardedTable",
    "Policy",
    "Roles",
    "TableState",
    "announce_sql",
    "bootstrap_sql",
    "canonical_policies",
    "create_lookup_sql",
    "differences",
    "drop_lookup_sql",
    "force_sql",
    "grant_added_column_sql",
    "grants",
    "guard_sql",
    "guarded",
    "guarded_table",
    "install_sql",
    "policies",
    "qualified",
    "quote",
    "read_state",
    "unguard_sql",
    "uninstall_sql",
]
