"""What the figures were taken on: machine, versions, server settings, commit, and how busy it was."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psycopg

LIBRARIES = ("SQLAlchemy", "psycopg", "psycopg-binary", "alembic", "Flask", "Werkzeug", "uuid_utils")
_CHANGED = "SELECT name, current_setting(name) FROM pg_settings WHERE source IN ('configuration file', 'command line')"
_PLACES = {
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "log_directory",
    "unix_socket_directories",
    "port",
}


def describe_machine() -> dict[str, Any]:
    """Describe this machine and what is installed on it."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": versions(LIBRARIES),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "is_clean": _git("status", "--porcelain", "--untracked-files=no", "--", "tenancy", "benchmarks") == "",
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def describe_server(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """Describe the server by its version and what differs from the settings it is shipped with."""
    (name,) = connection.execute("SELECT current_setting('server_version')").fetchone() or ("unknown",)
    settings = {key: value for key, value in connection.execute(_CHANGED).fetchall() if key not in _PLACES}
    return {"version": f"PostgreSQL {name}", "settings": dict(sorted(settings.items()))}


def versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _field(path: Path, name: str) -> str | None:
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
