"""Runs migrations as the migrator. Whoever calls alembic from Python passes the URL as `config.attributes["url"]`."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

import tenancy.alembic
from app.config import read_migration_settings
from app.models import Base
from tenancy.tables import check_metadata

tenancy.alembic.install()
check_metadata(Base.metadata)


def _url() -> str:
    given = context.config.attributes.get("url")
    return str(given) if given else read_migration_settings().migrator_database_url.get_secret_value()


def _run(**options: object) -> None:
    context.configure(target_metadata=Base.metadata, compare_server_default=True, **options)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _run(url=_url(), literal_binds=True)
else:
    engine = create_engine(_url(), poolclass=NullPool)
    with engine.connect() as connection:
        _run(connection=connection)
