"""Which versions of PostgreSQL can hold the promise."""

import logging

from tenancy.errors import ServerError

OLDEST_MAJOR = 15
INSTALL_HINT = "pip install sqlalchemy-tenancy[embedded]"

# First minor releases in which a role can no longer drop itself from a policy (CVE-2026-116311).
SECURITY_FLOOR = {15: 20, 16: 16, 17: 12, 18: 6}

log = logging.getLogger(__name__)


def check_version(major: int, minor: int, *, where: str) -> None:
    """Refuse PostgreSQL below 15; warn of a release with a known hole in row-level security."""
    if major < OLDEST_MAJOR:
        raise ServerError(
            f"{where} is PostgreSQL {major}.{minor}", hint=f"PostgreSQL 15 or newer is needed: {INSTALL_HINT}"
        )
    floor = SECURITY_FLOOR.get(major, 0)
    if minor < floor:
        log.warning("server.below_security_floor", extra={"version": f"{major}.{minor}", "floor": f"{major}.{floor}"})
