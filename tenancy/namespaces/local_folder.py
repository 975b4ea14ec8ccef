"""A store on a local disk: object stores know no symbolic links, but a folder does, and follows them anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tenancy.errors import ConfigurationError, KeyRefusedError


def root_of(store: Any) -> Path | None:
    """Return the folder of a store on a local disk; None for every other kind.

    Raises: ConfigurationError - it is a local store of the whole file system.
    """
    if type(store).__name__ != "LocalStore":
        return None
    prefix = store.prefix
    if prefix is None:
        raise ConfigurationError(
            "a local store without a folder would reach the whole file system",
            hint="make it with LocalStore(prefix=...)",
        )
    return Path(prefix)


def is_reached_by_link(root: Path, key: str) -> bool:
    """Tell whether a symbolic link lies on the way from the store's folder to the object, or is the object."""
    place = root
    for part in key.split("/"):
        place /= part
        if place.is_symlink():
            return True
    return False


def check_place(root: Path, key: str) -> None:
    """Refuse a key that leads through a symbolic link.

    Whoever can make links in the folder at that very moment has the disk, and needs no store to read it.
    Raises: KeyRefusedError
    """
    if is_reached_by_link(root, key):
        raise KeyRefusedError(
            "a symbolic link lies where the object would be",
            hint="see who put it into the storage's folder, and remove it",
        )


def is_no_place(root: Path, key: str) -> bool:
    """Tell whether no object can lie there: a folder does, or an object where one of its folders would be."""
    place = root / key
    return place.is_dir() or any(above.is_file() for above in place.parents if root in above.parents)


def remove_folder(root: Path, prefix: str) -> None:
    """Remove a folder with all that lies in it, also what no store lists: halves of objects whose writer was killed.

    Raises: KeyRefusedError - a symbolic link leads to it.
    """
    check_place(root, prefix.rstrip("/"))
    if (root / prefix).is_dir():
        shutil.rmtree(root / prefix)
