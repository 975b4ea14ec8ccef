"""Row-level security: the only place that writes role, function, policy and grant text, and reads it back."""

from tenancy.rls.catalog import Difference, TableState, canonical_policies, differences, read_state
from tenancy.rls.functions import create_lookup_sql, drop_lookup_sql, install_sql, uninstall_sql, unsign_sql
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
from tenancy.rls.signatures import add_key_sql, key_table_sql, list_keys_sql, retire_key_sql

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
    "add_key_sql",
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
    "key_table_sql",
    "list_keys_sql",
    "policies",
    "qualified",
    "quote",
    "read_state",
    "retire_key_sql",
    "unguard_sql",
    "uninstall_sql",
    "unsign_sql",
]
