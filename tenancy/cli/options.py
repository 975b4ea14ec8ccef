"""What several commands share: how a mistake in their arguments is answered."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import Any, TypeVar

import click

from tenancy.errors import TenancyError

Made = TypeVar("Made")


def checked(make: Callable[..., Made], *args: object, **options: object) -> Made:
    """Make something from arguments, or say which of them is wrong and exit with status 2."""
    try:
        return make(*args, **options)
    except TenancyError as error:
        raise click.UsageError(str(error)) from error


def imported(path: str, option: str, example: str) -> Any:
    """Import what `module:name` names, also from the working directory, or say in one line why it is not to be had."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise click.UsageError(f"{option} is {path!r}; write it as in {example}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return attrgetter(name)(import_module(module))
    except Exception as error:  # the module's own code runs, and may fail in any way
        raise click.UsageError(f"{option} {path}: {type(error).__name__}: {error}") from error
