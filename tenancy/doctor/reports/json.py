"""The report as JSON, for programs. Keys are added, never renamed, while `version` stays."""

from __future__ import annotations

import json
from typing import Any

from tenancy.doctor.examination import Report
from tenancy.doctor.findings import LEVELS, Finding


def render_json(report: Report) -> str:
    """Return the whole report; `findings` are those that count."""
    content = {
        "version": 1,
        "started_at": report.started_at.isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 3),
        "versions": dict(report.versions),
        "examined": report.kinds,
        "unchecked": sorted(report.unchecked),
        "counts": {level: report.count(level) for level in LEVELS},
        "findings": [finding_fields(finding) for finding in report.findings],
        "ignored": [
            finding_fields(one.finding)
            | {
                "reason": one.ignore.reason,
                "until": one.ignore.until.isoformat() if one.ignore.until else None,
                "ignored_in": one.ignore.place,
            }
            for one in report.ignored
        ],
        "known": [finding_fields(finding) for finding in report.known],
        "vanished": list(report.vanished),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def finding_fields(finding: Finding) -> dict[str, Any]:
    """Return one finding as plain values."""
    return {
        "id": finding.rule.id,
        "name": finding.rule.name,
        "level": finding.rule.level,
        "object": finding.object_name,
        "line": finding.line,
        "what": finding.what,
        "why": finding.rule.why,
        "remedy": finding.remedy,
        "fingerprint": finding.fingerprint,
    }
