"""Reports: one examination told to a person at a terminal, to a program, to code scanning, or to a CI server."""

from __future__ import annotations

from tenancy.doctor.reports.json import render_json
from tenancy.doctor.reports.junit import render_junit
from tenancy.doctor.reports.sarif import render_sarif

__all__ = ["render_json", "render_junit", "render_sarif"]
