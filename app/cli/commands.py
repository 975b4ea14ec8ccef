"""Every command of operators, for `python -m app` and for Flask's own command line."""

from __future__ import annotations

from app.audit.cli import audit
from app.cli.configuration import config
from app.cli.domains import domains
from app.cli.health import health
from app.cli.invitations import invitations
from app.cli.jobs import jobs
from app.cli.operators import lets_staff_act
from app.cli.plans import plans
from app.cli.tenants import tenants
from app.cli.usage import usage
from app.keys.cli import keys
from app.staff.cli import staff

COMMANDS = (
    *map(lets_staff_act, (tenants, plans, usage, config, invitations, domains, jobs, keys, audit, staff)),
    health,
)
