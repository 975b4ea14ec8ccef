"""`tenancy` on the command line. One module per noun; each command is listed here."""

from __future__ import annotations

import click

from tenancy.cli.doctor import doctor
from tenancy.cli.explain import explain
from tenancy.cli.hardening import harden
from tenancy.cli.roles import bootstrap, check
from tenancy.cli.signing import keys

main = click.version_option(package_name="sqlalchemy-tenancy")(
    click.Group(
        "tenancy",
        commands=[bootstrap, check, doctor, explain, harden, keys],
        help="Multi-tenancy in which PostgreSQL itself refuses foreign rows.",
    )
)
