"""Runs of pytest in a folder of its own, as a stranger to the project would start them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenancy.embedded import Server

SHOP = Path(__file__).parent / "shop" / "shop.py"
LINE = "tenancy_app = shop:create_app"
# Roles of its own: other tests change those of the default prefix.
ROLES = "tenancy_roles = shop"


@dataclass(frozen=True)
class Finished:
    code: int
    output: str
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "isolation-report" / "matrix.json").read_text())
        return found

    def outcomes(self) -> dict[str, str]:
        """What became of each route, by its endpoint."""
        return {one["endpoint"]: one.get("outcome", "did not finish") for one in self.report["routes"]}


class Stranger:
    """A folder with the shop, its own pytest configuration, and the means to run pytest there."""

    def __init__(self, folder: Path, server: Server, *lines: str) -> None:
        self.folder = folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TENANCY"))
        }
        self.environment["TENANCY_DATABASE_URL"] = server.url()
        folder.mkdir(exist_ok=True)
        shutil.copy(SHOP, folder)
        self.write("pytest.ini", "\n".join(["[pytest]", "filterwarnings = error", *(lines or (LINE, ROLES)), ""]))

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, *args: str, **environment: str) -> Finished:
        # Plugins that this environment happens to have: one warns where nobody configured it, the others take seconds.
        others = [f"-pno:{name}" for name in ("asyncio", "hypothesispytest", "cov", "pgrls", "cacheprovider")]
        command = [sys.executable, "-m", "pytest", *others, "--color=no", *args]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        return Finished(done.returncode, done.stdout + done.stderr, self.folder)
