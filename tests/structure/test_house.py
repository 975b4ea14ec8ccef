"""The house itself: what is public, what importing does, and where files may not be."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import tenancy

ROOT = Path(__file__).parents[2]
LIBRARY = sorted(
    info.name
    for info in pkgutil.walk_packages(tenancy.__path__, "tenancy.")
    if not info.name.startswith(("tenancy.embedded.guard",))
)
DRAWERS = {"utils", "helpers", "common", "base", "manager", "managers", "service", "services", "misc"}


def test_public_names_are_the_promise() -> None:
    assert tenancy.__all__ == [
        "SQLDirectory",
        "TenancyError",
        "TenantForeignKey",
        "TenantIndex",
        "TenantMixin",
        "TenantTable",
        "TenantUnique",
        "account_scope",
        "async_tenant_sessionmaker",
        "create_async_tenant_engine",
        "create_tenant_engine",
        "current_tenant",
        "limit_grants",
        "platform_scope",
        "platform_sessionmaker",
        "platform_table",
        "require_tenant",
        "staff_table",
        "tenant_relationship",
        "tenant_scope",
        "tenant_sessionmaker",
    ]


def test_every_public_name_says_what_its_signature_cannot() -> None:
    undocumented = [name for name in tenancy.__all__ if not (getattr(tenancy, name).__doc__ or "").strip()]

    assert undocumented == []


def test_migrations_folder_never_becomes_a_package() -> None:
    assert not (ROOT / "alembic" / "__init__.py").exists()
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_importing_the_library_brings_no_framework() -> None:
    program = (
        "import sys, threading, tenancy\n"
        "optional = {'flask', 'alembic', 'click', 'pytest', 'jwt', 'testcontainers', 'greenlet'}\n"
        "optional |= {'cryptography', 'celery', 'redis', 'obstore'}\n"
        "frameworks = optional & set(sys.modules)\n"
        "assert not frameworks, frameworks\n"
        "assert threading.active_count() == 1\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", LIBRARY)
def test_importing_a_module_only_defines_names(name: str) -> None:
    tree = ast.parse(Path(str(importlib.util.find_spec(name).origin)).read_text())  # type: ignore[union-attr]

    effects = [
        ast.unparse(node)[:80]
        for node in tree.body
        if isinstance(node, ast.For | ast.While | ast.With)
        or (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.If) and ast.unparse(node.test) not in ("TYPE_CHECKING", "__name__ == '__main__'"))
    ]

    assert effects == []


def test_no_module_is_a_drawer() -> None:
    drawers = [
        str(path.relative_to(ROOT))
        for folder in ("tenancy", "app")
        for path in (ROOT / folder).rglob("*.py")
        if path.stem in DRAWERS
    ]

    assert drawers == []


def test_no_file_is_longer_than_one_can_hold_in_mind() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("tenancy", "app")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }

    assert long == {}
