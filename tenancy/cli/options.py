"""What several commands share: how a mistake in their arguments is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from tenancy.errors import TenancyError

Made = TypeVar("Made")


def checked(make: Callable[..., Made], *args: object, **options: object) -> Made:
    """Make something from arguments, or say which of them is wrong and exit with status 2."""
    try:
        return make(*args, **options)
    except TenancyError as error:
        raise click.UsageError(str(error)) from error
