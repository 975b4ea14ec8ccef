"""The pytest plugin: the generated isolation suite, its fixtures and its evidence.

It does nothing, and imports nothing, until the pytest configuration names an application or its metadata.
"""

from __future__ import annotations

import pytest

from tenancy.pytest_plugin import hooks

INI = {
    "tenancy_app": "module:callable that takes the app role's database URL and returns the Flask application",
    "tenancy_metadata": "module:MetaData, for people without Flask or with a directory of their own",
    "tenancy_migrations": "the alembic.ini whose migrations make the tables; else they are made from the models",
    "tenancy_roles": "prefix of the six roles (default: tenancy)",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tenancy", "proof of tenant isolation")
    group.addoption(
        "--isolation", action="store_true", help="add the generated suite although single files or tests are named"
    )
    group.addoption("--no-isolation", action="store_true", help="leave the generated suite out")
    group.addoption(
        "--isolation-report",
        metavar="DIR",
        default="isolation-report",
        help="where matrix.html and matrix.json are written (default: isolation-report)",
    )
    for name, meaning in INI.items():
        parser.addini(name, meaning, default="")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hooks)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "isolation: generated from the tables and routes by tenancy's plugin")
    if any(config.getini(name) for name in ("tenancy_app", "tenancy_metadata")):
        from tenancy.pytest_plugin import run  # not at the top: it needs the frameworks

        run.register(config)
    elif config.getoption("isolation"):
        raise pytest.UsageError("--isolation needs a `tenancy_app` or `tenancy_metadata` in the pytest configuration")
