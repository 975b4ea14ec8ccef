"""The user who owns a cluster's files and runs its server: PostgreSQL refuses root."""

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tenancy.errors import ServerError


class PopenOptions(TypedDict, total=False):
    """What subprocess needs to run a program as the owner."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Owner:
    """A user and group of the operating system."""

    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        """Whether programs must change user to run as this owner; only root can."""
        return self.uid != os.geteuid()

    def popen_options(self) -> PopenOptions:
        return PopenOptions(user=self.uid, group=self.gid, extra_groups=[]) if self.is_other else PopenOptions()

    def make_folder(self, path: Path) -> None:
        """Create a folder that only this owner (and root) can enter."""
        path.mkdir(mode=0o700)
        if self.is_other:
            os.chown(path, self.uid, self.gid)

    def way_into(self, folder_fd: int, path: Path) -> str:
        """Name an open folder so that a server run by this owner can reach it.

        Another user may be unable to walk down to the path (root's home is closed); through /proc the
        inherited descriptor is entered directly, so no folder on the way needs to be opened.
        """
        return f"/proc/self/fd/{folder_fd}" if self.is_other and sys.platform == "linux" else str(path)


def choose_owner(cluster: Path) -> Owner:
    """Choose who runs the server: an existing cluster's owner, else this user; `postgres` or `nobody` for root."""
    euid = os.geteuid()
    if cluster.exists():
        status = cluster.stat()
        if euid not in (0, status.st_uid):
            raise ServerError(
                f"the cluster in {str(cluster)!r} belongs to user id {status.st_uid}, not to {euid}",
                hint="run as its owner, or use another data folder",
            )
        if status.st_uid != 0:
            return Owner(status.st_uid, status.st_gid)
    if euid != 0:
        return Owner(euid, os.getegid())
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(entry.pw_uid, entry.pw_gid)
    raise ServerError(
        "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`",
        hint="run as an ordinary user",
    )
