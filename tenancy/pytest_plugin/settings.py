"""What the pytest configuration says of the application under test."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tenancy.errors import ConfigurationError
from tenancy.rls import Roles

_LINES = ("tenancy_app", "tenancy_metadata", "tenancy_migrations", "tenancy_roles")


@dataclass(frozen=True)
class Settings:
    """The `tenancy_*` lines of the configuration. At least one of `app` and `metadata` is set."""

    app: str
    metadata: str
    migrations: Path | None
    roles: Roles
    root: Path


def read_settings(config: pytest.Config) -> Settings | None:
    """Return the settings; None when the configuration names neither an application nor metadata."""
    given = {name: str(config.getini(name)).strip() for name in _LINES}
    if not given["tenancy_app"] and not given["tenancy_metadata"]:
        return None
    migrations = given["tenancy_migrations"]
    return Settings(
        app=given["tenancy_app"],
        metadata=given["tenancy_metadata"],
        migrations=config.rootpath / migrations if migrations else None,
        roles=Roles(given["tenancy_roles"]) if given["tenancy_roles"] else Roles(),
        root=config.rootpath,
    )


def load(line: str, name: str, root: Path) -> Any:
    """Import what a line such as `tenancy_app = shop:create_app` names, also from the root folder itself.

    Raises: ConfigurationError - there is no such module, or nothing of that name in it.
    """
    module_name, _, attributes = name.partition(":")
    if not attributes:
        raise ConfigurationError(f"{line} = {name} names nothing in a module", hint="write it as module:name")
    found: Any = _module(line, module_name, root)
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise ConfigurationError(
                f"{line} = {name}: there is no {attribute!r} in {module_name!r}", hint="write it as module:name"
            ) from None
    return found


def _module(line: str, name: str, root: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports something that is not
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"{line} names the module {name!r}, and there is none",
            hint=f"install it, or put its folder on pytest's `pythonpath`; {root} was tried too",
        ) from None
