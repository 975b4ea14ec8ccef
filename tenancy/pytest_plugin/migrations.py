"""The application's own migrations, run the way its operator would."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory


def migration_files(ini: Path) -> Iterable[Path]:
    """Return every file that decides what the migrations make."""
    scripts = ScriptDirectory.from_config(Config(ini))
    return [ini, *Path(scripts.dir).glob("*.py"), *(Path(script.path) for script in scripts.walk_revisions())]


def upgrade(ini: Path, url: str) -> None:
    """Migrate to the newest revision. `env.py` finds the URL in `config.attributes` and as `sqlalchemy.url`."""
    config = Config(ini)
    config.attributes["url"] = url
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, "head")
