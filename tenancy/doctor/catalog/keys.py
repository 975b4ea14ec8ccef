"""Keys and foreign keys: whether each of them carries the tenant."""

from __future__ import annotations

from tenancy.doctor.findings import Rule

KEY_WITHOUT_TENANT = Rule(
    "TEN123",
    "key-without-tenant",
    "error",
    "A key over all tenants tells one tenant, by a conflict or a wait, that another has the value.",
)
KEY_ACROSS_TENANTS = Rule(
    "TEN124",
    "key-across-tenants",
    "warning",
    "A key over all tenants tells one tenant that another has the value; only the models can say whether that is meant.",
)
FOREIGN_KEY_WITHOUT_TENANT = Rule(
    "TEN125",
    "foreign-key-without-tenant",
    "error",
    "A foreign key is checked past the policies, so without the tenant a row can point at another tenant's row.",
)
FOREIGN_KEY_NOT_VALIDATED = Rule(
    "TEN126",
    "foreign-key-not-validated",
    "warning",
    "Rows from before the foreign key may point at another tenant's rows, and nobody looked.",
)

RULES: tuple[Rule, ...] = (
    KEY_WITHOUT_TENANT,
    KEY_ACROSS_TENANTS,
    FOREIGN_KEY_WITHOUT_TENANT,
    FOREIGN_KEY_NOT_VALIDATED,
)
