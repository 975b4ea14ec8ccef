"""Carriers: take a scope across a job, a thread or an executor, and run for one tenant after another.

What crosses are ids, never a scope, a session or a row: a scope that has ended by then is no hindrance.
"""

from tenancy.jobs.carrying import Carried, Carrier
from tenancy.jobs.rounds import AGAIN, Again, Round, for_each_tenant
from tenancy.jobs.running import Standing, check_standing, run_carried, standing_of
from tenancy.jobs.threads import in_this_scope, submit

__all__ = [
    "AGAIN",
    "Again",
    "Carried",
    "Carrier",
    "Round",
    "Standing",
    "check_standing",
    "for_each_tenant",
    "in_this_scope",
    "run_carried",
    "standing_of",
    "submit",
]
