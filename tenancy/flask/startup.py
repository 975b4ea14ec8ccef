"""The start-up check: nothing is served for a tenant before the database was seen to keep tenants apart."""

from __future__ import annotations

import logging
import threading
from contextvars import Context

from sqlalchemy import Engine

from tenancy.doctor.brief import brief
from tenancy.doctor.findings import Finding
from tenancy.errors import UnsafeConnectionError
from tenancy.rls import Flavour

log = logging.getLogger("tenancy.startup")
STARTUP = "tenancy.startup"  # the key among an app's extensions


class StartupCheck:
    """Looks once in each process, and not again after it has passed; until then, at each request that asks.

    Requests that come while one looks wait for what it finds.
    """

    def __init__(self, engine: Engine, flavour: Flavour) -> None:
        self.has_passed = False
        self._engine = engine
        self._flavour: Flavour = flavour
        self._lock = threading.Lock()
        self._looks = 0
        self._error: Exception | None = None

    def run(self) -> None:
        """Return when the database is safe to serve from.

        Raises: UnsafeConnectionError - it is not, or its role is not. DBAPIError - it could not be looked at.
        """
        looks = self._looks
        with self._lock:
            if self.has_passed:
                return
            if self._looks != looks and self._error is not None:
                raise self._error  # what the request found that this one waited for
            self._looks += 1
            try:
                self.look()
            except Exception as error:
                self._error = error
                raise

    def look(self) -> None:
        """Look, whether or not it has passed before. Raises what `run` does."""
        # In a context of its own: it belongs to no tenant, whoever's request comes first.
        findings = Context().run(self._examine)
        errors = [finding for finding in findings if finding.rule.level == "error"]
        for finding in findings:
            said = {"rule": finding.rule.id, "object": finding.object_name, "what": finding.what}
            log.log(logging.CRITICAL if finding in errors else logging.WARNING, "startup.finding", extra=said)
        if errors:
            log.critical("startup.refused", extra={"findings": [_line(finding) for finding in errors]})
            raise UnsafeConnectionError(
                f"the database does not keep tenants apart: {'; '.join(map(_line, errors))}",
                hint="run `tenancy doctor` with the migrator's URL for all findings and their remedies",
            )
        self.has_passed = True

    def _examine(self) -> list[Finding]:
        with self._engine.connect() as connection:
            return brief(connection, self._flavour)


def _line(finding: Finding) -> str:
    return f"{finding.rule.id} {finding.object_name}: {finding.what}"
