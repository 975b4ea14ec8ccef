"""Schema `tenancy` itself: its functions, its tables and the lookups."""

from __future__ import annotations

from tenancy.doctor.findings import Rule

LIBRARY_FUNCTION_CHANGED = Rule(
    "TEN112",
    "library-function-changed",
    "error",
    "The policies are as good as the functions they call: a changed one can name another tenant.",
)
LIBRARY_TABLE_CHANGED = Rule(
    "TEN113",
    "library-table-changed",
    "error",
    "The audit of platform sessions proves nothing when it can be changed, or entered by another role.",
)
ANNOUNCEMENT_MISSING = Rule(
    "TEN114",
    "announcement-missing",
    "warning",
    "Without the trigger no process learns that a tenant was suspended before its cache expires.",
)
LOOKUP_CHANGED = Rule(
    "TEN116",
    "lookup-changed",
    "error",
    "Lookups read past the policies, so each must return exactly the columns of one key that its declaration says.",
)

RULES: tuple[Rule, ...] = (
    LIBRARY_FUNCTION_CHANGED,
    LIBRARY_TABLE_CHANGED,
    ANNOUNCEMENT_MISSING,
    LOOKUP_CHANGED,
)
