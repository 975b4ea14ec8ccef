"""The application under test: its server, its database with two tenants, and itself, each made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from sqlalchemy import MetaData, Table

from tenancy.directory import SQLDirectory
from tenancy.embedded import Server, Template, find_server, make_template
from tenancy.errors import ConfigurationError, TenancyError
from tenancy.flask import Tenancy
from tenancy.pytest_plugin.settings import Settings, load
from tenancy.rls import Roles
from tenancy.tables import check_metadata, tenant_tables
from tenancy.testing.databases import (
    FAST,
    build_from_migrations,
    build_from_models,
    digest_of_files,
    digest_of_models,
)
from tenancy.testing.world import World, seed

INSTALLATION: pytest.StashKey[Installation] = pytest.StashKey()


class Installation:
    """One process's installation of the application. With pytest-xdist, all workers share the server."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        workerinput: Mapping[str, Any] = getattr(config, "workerinput", {})
        self._worker: str = workerinput.get("workerid", "main")
        self._run: str = workerinput.get("testrunuid", uuid4().hex)[:8]
        self._clones = 0
        self._closers: list[Callable[[], None]] = []
        self._failure: TenancyError | None = None
        self.is_touched = False  # a test had the database, and may have left rows in it

    @property
    def roles(self) -> Roles:
        return self._settings.roles

    @property
    def has_app(self) -> bool:
        return bool(self._settings.app)

    @property
    def has_world(self) -> bool:
        """Whether the database was made and seeded."""
        return "_world" in vars(self)

    def at_close(self, closer: Callable[[], None]) -> None:
        """Call this before the database is let go of."""
        self._closers.append(closer)

    def make_template(self) -> None:
        """Start the server and build the database that others are copied from, if that has not been done."""
        # A cached property: asking for it builds it.
        self.template  # noqa: B018

    @cached_property
    def server(self) -> Server:
        """The server, shared by all workers of the run; it stops with the last of them."""
        # The fixture's factory, which collection cannot ask for: pytest-xdist takes it in the same way.
        base: Path = self._config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        folder = base if self._worker == "main" else base.parent
        found = find_server(data_dir=folder / "postgres", settings=FAST)
        self._closers.append(found.close)
        return found

    @cached_property
    def database(self) -> str:
        """The name of this process's database."""
        return f"tenancy_{self._run}_{self._worker}"

    def url(self, role: str) -> str:
        """Give the SQLAlchemy URL of a role in this process's database; `postgres` stands for the superuser."""
        return self.server.url(role=role, database=self.database)

    @cached_property
    def app(self) -> Flask:
        """The application. Its factory is called once, possibly before its database is there."""
        line = f"tenancy_app = {self._settings.app}"
        app = load("tenancy_app", self._settings.app, self._settings.root)(self.url(self.roles.app))
        if not isinstance(app, Flask):
            raise ConfigurationError(
                f"{line} returned {type(app).__name__}, not a Flask application",
                hint="name a callable that takes a database URL and returns the application",
            )
        if not isinstance(app.extensions.get("tenancy"), Tenancy):
            raise ConfigurationError(
                f"{line} returned an application without Tenancy", hint="call tenancy.init_app(app)"
            )
        self._closers.append(lambda: close_app(app))
        return app

    @cached_property
    def metadata(self) -> MetaData:
        """The metadata of the tables, from the configuration or from the directory of the application."""
        if self._settings.metadata:
            found = load("tenancy_metadata", self._settings.metadata, self._settings.root)
            if not isinstance(found, MetaData):
                raise ConfigurationError(
                    f"tenancy_metadata names a {type(found).__name__}, not a MetaData", hint="name Base.metadata"
                )
        else:
            directory = self.app.extensions["tenancy"].chain.directory
            if not isinstance(directory, SQLDirectory):
                raise ConfigurationError(
                    f"the directory is a {type(directory).__name__}, which does not tell the tables",
                    hint="set tenancy_metadata = module:Base.metadata as well",
                )
            found = directory.metadata
        check_metadata(found)
        if not [table for table in tenant_tables(found) if table.primary_key]:
            raise ConfigurationError("the metadata has no tenant table", hint="import the modules with your models")
        return found

    @cached_property
    def template(self) -> Template:
        settings = self._settings
        if settings.migrations is None:
            name = digest_of_models(self.metadata, self.roles)
            return make_template(
                self.server, f"tenancy_{name}", lambda url: build_from_models(url, self.metadata, self.roles)
            )
        from tenancy.pytest_plugin.migrations import migration_files, upgrade

        if not settings.migrations.is_file():
            raise ConfigurationError(
                f"tenancy_migrations: there is no file {settings.migrations}", hint="name your alembic.ini"
            )
        migrations = settings.migrations
        return make_template(
            self.server,
            f"tenancy_{digest_of_files(migration_files(migrations), self.roles)}",
            lambda url: build_from_migrations(url, self.roles, lambda migrator: upgrade(migrations, migrator)),
        )

    @cached_property
    def _world(self) -> World:
        self.template.clone(self.database)
        self._closers.append(lambda: self.template.drop(self.database))
        made = seed(self.metadata, self.url, roles=self.roles, factory=self._row)
        self._closers.append(made.close)
        return made

    @property
    def world(self) -> World:
        """The two tenants and their rows, as they were seeded.

        Raises: TenancyError - the database could not be made or seeded; told in full once, and in brief from then on.
        """
        if self._failure is not None:
            raise ConfigurationError(
                f"there are no rows to aim at: {self._failure.message}", hint="mend what the first failure says"
            ) from None
        try:
            world = self._world
        except TenancyError as error:
            self._failure = error
            raise
        if self.is_touched:
            self.is_touched = False
            world.restore()
        return world

    def spare_world(self) -> tuple[World, Callable[[], None]]:
        """Make a world in a database of its own, to be spoiled; call what comes with it afterwards."""
        self._clones += 1
        name = self.template.clone(f"{self.database}_{self._clones}")
        world = seed(
            self.metadata, lambda role: self.server.url(role=role, database=name), roles=self.roles, factory=self._row
        )

        def close() -> None:
            world.close()
            self.template.drop(name)

        return world, close

    def _row(self, table: Table, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._config.hook.pytest_tenancy_row(table=table, values=values)
        return found

    def close(self) -> None:
        """Let go of everything, in the reverse order of its making."""
        while self._closers:
            self._closers.pop()()


def close_app(app: Flask) -> None:
    """Close the connections of an application that has a Tenancy."""
    tenancy: Tenancy = app.extensions["tenancy"]
    if isinstance(tenancy.chain.directory, SQLDirectory):
        tenancy.chain.directory.close()
    tenancy.engine_of(app).dispose()
