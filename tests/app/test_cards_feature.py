"""What a feature costs: the card collection has no line about tenants."""

from __future__ import annotations

import re
from pathlib import Path

import app.cards

FOLDER = Path(app.cards.__file__).parent
# The constructs a model is made of, and the cache that is asked for by name.
GIVEN = {"TenantTable", "TenantForeignKey", "TenantUnique", "TenantIndex", "tenant_cache"}


def test_feature_speaks_of_tenants_only_to_declare_its_tables() -> None:
    words = {word for path in FOLDER.glob("*.py") for word in re.findall(r"\w*[Tt]enant\w*", path.read_text())}

    assert words == GIVEN


def test_feature_knows_neither_the_scope_nor_another_feature() -> None:
    source = "".join(path.read_text() for path in FOLDER.glob("*.py"))

    assert not re.search(r"tenancy\.(context|session|binding)|app\.crm", source)
