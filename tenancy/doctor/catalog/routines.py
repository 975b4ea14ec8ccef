"""Functions, triggers, operators and casts that act with somebody else's rights."""

from __future__ import annotations

from tenancy.doctor.findings import Rule

DEFINER_FUNCTION = Rule(
    "TEN144",
    "definer-function",
    "error",
    "A SECURITY DEFINER function acts with its owner's rights for whoever may call it.",
)
DEFINER_TRIGGER = Rule(
    "TEN145",
    "definer-trigger",
    "error",
    "A trigger function that is SECURITY DEFINER acts with its owner's rights on each tenant's rows.",
)
PUBLIC_EXECUTE = Rule(
    "TEN146",
    "public-execute",
    "warning",
    "A function that PUBLIC may call is one more thing that injected SQL can use.",
)
LEAKPROOF_FUNCTION = Rule(
    "TEN147",
    "leakproof-function",
    "warning",
    "A LEAKPROOF function is run on rows before the policies hid them, and can tell what it saw.",
)
SHADOWING_OPERATOR = Rule(
    "TEN157",
    "shadowing-operator",
    "error",
    "An operator or cast between built-in types can take the place of the system's own in any statement.",
)

RULES: tuple[Rule, ...] = (
    DEFINER_FUNCTION,
    DEFINER_TRIGGER,
    PUBLIC_EXECUTE,
    LEAKPROOF_FUNCTION,
    SHADOWING_OPERATOR,
)
